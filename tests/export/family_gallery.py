"""docs/pictures/families.png: what networks of other people's code paint, and what our artefacts of their files paint.

    python -m tests.export.family_gallery docs/pictures/families.png

The weights are random, so the pictures are patterns; what counts is that both are the same. Every network is defined in
the tests, apart from the exporter, or is Keras's own; its file is written, read, recognised, rebuilt and exported.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from sketchbridge_export.parity import Pictures, paint_with_onnx
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.parity_sheet import captioned
from sketchbridge_export.reconstruction import Wishes, reconstruct
from tests.export.conftest import INSTANCE, Pix2PixUNet, RenderXUNet, paint, randomise, use_own_statistics
from tests.export.test_sequential import NETWORKS as PLAIN_NETWORKS
from tests.export.torch_networks import AladdinGenerator, GeneratorUNet, GlobalGenerator, ResnetGenerator

GAIN = 100
COLUMNS = 5
DRAWING = shipped_pictures()[4:5]
BATCH_NORMALISED = ("junyanz_unet",)  # of those below, painted with each picture's own statistics
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "junyanz_unet": lambda: Pix2PixUNet(downs=8, ngf=16, dropout=False),
    "junyanz_resnet": lambda: ResnetGenerator(ngf=16, blocks=9, norm=INSTANCE),
    "pix2pixhd": lambda: GlobalGenerator(ngf=8, downs=4, blocks=9, norm=INSTANCE),
    "aladdin_unet": lambda: AladdinGenerator(features=16),
    "eriklindernoren_unet": lambda: GeneratorUNet(width=16),
    "renderx_unet": lambda: RenderXUNet((8, 16, 32), 64),
    "sequential": lambda: next(iter(PLAIN_NETWORKS.values())),
}
KERAS = {"keras_tutorial_unet": "tutorial", "keras_brownlee_unet": "brownlee", "keras_pooling_unet": "pooling"}


def torch_pairs(folder: Path) -> Iterator[tuple[str, Path, Pictures]]:
    """Family, file, and what its own code paints."""
    for name, build in NETWORKS.items():
        network: nn.Module = randomise(build()).eval()
        path = folder / f"{name}.pth"
        torch.save(network.state_dict(), path)
        yield name, path, paint(use_own_statistics(network) if name in BATCH_NORMALISED else network, DRAWING)


def keras_pairs(folder: Path) -> Iterator[tuple[str, Path, Pictures]]:
    """The same, painted by Keras."""
    np.save(folder / "pictures.npy", DRAWING)
    script = Path(__file__).with_name("keras_networks.py")
    subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, check=True)
    with np.load(folder / "painted.npz") as painted:
        for family, name in KERAS.items():
            kind = "none" if name == "pooling" else "instance"
            yield family, folder / f"{name}.weights.h5", painted[f"{name} {kind}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    tiles = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family, path, expected in (*torch_pairs(folder), *keras_pairs(folder)):
            found = reconstruct(path, Wishes())
            assert found.family == family
            found.write_onnx(folder / "model.onnx", "fp32")
            painted = np.asarray(paint_with_onnx(folder / "model.onnx")(DRAWING))
            difference = np.abs(painted.astype(np.int16) - expected.astype(np.int16))
            print(family, int(difference.max()), float(difference.mean()))  # noqa: T201 - for whoever runs it
            parts = [captioned(family, expected[0]), captioned("model.onnx", painted[0])]
            brightened = np.clip(difference[0] * GAIN, 0, 255).astype(np.uint8)
            parts.append(captioned(f"difference x {GAIN}, at most {difference.max()}", brightened))
            tiles.append(np.concatenate(parts))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    half = cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return 0 if cv2.imwrite(str(arguments.output), half) else 1


if __name__ == "__main__":
    sys.exit(main())
