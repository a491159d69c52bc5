"""Two pictures for the documentation, from any checkpoint: what each artefact paints, and what each way of running.

    python examples/parity_gallery.py CHECKPOINT --output docs/pictures

parity.png      a drawing a row; what the checkpoint paints of it, then each artefact, and below it where they differ
inference.png   a drawing a row; running and instance statistics, dropout off and by two seeds
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sketchbridge_export.export import export_checkpoint
from sketchbridge_export.manifest import FILE_NAME as MANIFEST_NAME
from sketchbridge_export.parity import Pictures
from sketchbridge_export.parity_pictures import read_pictures
from sketchbridge_export.parity_sheet import captioned
from sketchbridge_export.production import painter_of
from sketchbridge_export.reconstruction import Wishes, reconstruct
from sketchbridge_export.shipped import drawings
from sketchbridge_export.verification import read_artefacts

GAIN = 8  # a difference of 1 grey level would not be seen
SHOWN = (1, 4, 5)  # a heel, a sandal, a sneaker
WAYS = {
    "norm running": Wishes(norm="running"),
    "norm instance": Wishes(norm="instance"),
    "dropout seed 1": Wishes(norm="running", dropout_seed=1),
    "dropout seed 2": Wishes(norm="running", dropout_seed=2),
}


def parity(checkpoint: Path, kinds: Sequence[str], pictures: Pictures, calibration: Path | None) -> Pictures:
    """The first sheet. Exports `checkpoint` into a repository that is thrown away."""
    expected = reconstruct(checkpoint, Wishes()).paint(pictures)
    columns = [_compared("drawing", pictures, None), _compared("checkpoint", expected, None)]
    with tempfile.TemporaryDirectory() as folder:
        report = export_checkpoint(
            checkpoint,
            name="shown",
            repository=Path(folder) / "models",
            artefacts=kinds,
            calibration=calibration,
            progress=lambda line: print(line, file=sys.stderr),
        )
        for kind, recorded in read_artefacts(report.path).items():
            precision = recorded.certificates[-1].precision
            paint = painter_of(kind, [report.path / name for name in recorded.sha256], precision)
            if paint is not None:
                columns.append(_compared(f"{kind} {precision}", paint(pictures), expected))
        print((report.path / MANIFEST_NAME).read_text())
    return np.concatenate(columns, axis=1)


def inference(checkpoint: Path, pictures: Pictures) -> Pictures:
    """The second sheet."""
    columns = [_column("drawing", pictures)]
    for caption, wishes in WAYS.items():
        columns.append(_column(caption, reconstruct(checkpoint, wishes).paint(pictures)))
    return np.concatenate(columns, axis=1)


def _column(caption: str, painted: Pictures) -> Pictures:
    return np.concatenate([captioned(caption, painted[0]), *painted[1:]])


def _compared(caption: str, painted: Pictures, expected: Pictures | None) -> Pictures:
    """A column with the difference of its first picture below; blank where there is nothing to compare."""
    if expected is None:
        last = captioned("", np.full_like(painted[0], 255))
    else:
        difference = np.abs(painted.astype(np.int16) - expected.astype(np.int16))
        brightened = np.clip(difference[0] * GAIN, 0, 255).astype(np.uint8)
        last = captioned(f"difference x {GAIN}, at most {difference.max()}", brightened)
    return np.concatenate([_column(caption, painted), last])


def main() -> int:
    """Write both sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--artefacts", nargs="*", default=["openvino", "openvino-bf16", "openvino-int8"])
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    pictures = read_pictures(drawings())[list(SHOWN)]
    sheets = {
        "parity.png": parity(arguments.checkpoint, arguments.artefacts, pictures, arguments.calibration),
        "inference.png": inference(arguments.checkpoint, pictures),
    }
    for name, sheet in sheets.items():
        if not cv2.imwrite(str(arguments.output / name), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            print(f"error: `{arguments.output / name}` can't be written", file=sys.stderr)
            return 1
        print(f"wrote: `{arguments.output / name}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
