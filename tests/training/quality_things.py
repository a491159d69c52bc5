"""Two trivially different domains with their splits, and a repository whose generators hand back the drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.training.conftest import draw_photo


def ripe_photo(number: int) -> Any:
    """(120, 100, 3) uint8 BGR: as `draw_photo`, but orange and in the dark."""
    photo = (draw_photo(number) * 0.3).astype(np.uint8)
    photo[..., 2] = 200
    return photo


def write_domains(root: Path) -> tuple[Path, Path]:
    """Folders of data and of splits: `pale` and `ripe` with 14 photos each, the last two of each held out."""
    data, splits = root / "photos", root / "splits"
    splits.mkdir(parents=True)
    for name, photo in (("pale", draw_photo), ("ripe", ripe_photo)):
        (data / name).mkdir(parents=True)
        for number in range(14):
            assert cv2.imwrite(str(data / name / f"{number:02d}.png"), photo(number))
        (splits / f"{name}.csv").write_text("file,identity,source_path\n12.png,a,x/12.png\n13.png,b,x/13.png\n")
    return data, splits


def write_generator(repository: Path, domain: str, *, version: int = 1, side: int = 256) -> Path:
    """An ONNX file of one Identity node, uint8 NHWC, where the server would look for it."""
    shape: list[str | int | None] = ["N", side, side, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sketch"], ["photo"])],
        "copies",
        [helper.make_tensor_value_info("sketch", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("photo", TensorProto.UINT8, shape)],
    )
    path = repository / f"{domain}_generator" / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
