"""The served pipelines without a server: the oracle of the integration tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sketchbridge_preprocess import (
    Image,
    RequestOptions,
    decode,
    draw_photo,
    lines_for_model,
    read_options,
    sketch_for_model,
    to_wire,
)

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@cache
def session(name: str) -> onnxruntime.InferenceSession:
    """The newest version of a generator in ONNX Runtime."""
    newest = max((REPOSITORY / f"{name}_generator").glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    return onnxruntime.InferenceSession(newest, providers=["CPUExecutionProvider"])


def generate(name: str, sketch: Image) -> Image:
    """(256, 256, 3) uint8 from (256, 256, 3) uint8."""
    result: Image = session(name).run(["photo"], {"sketch": sketch[None]})[0][0]
    return result


def paint(name: str, data: bytes, **parameters: Any) -> Image:
    """What `<name>` answers, before it is encoded."""
    return generate(name, sketch_for_model(data, read_options(parameters)))


def draw(data: bytes, **parameters: Any) -> Image:
    """What `sketch` answers, as (H, W, 3)."""
    options = read_options(parameters)
    return decode(to_wire(draw_photo(data, options), options))


def repaint(name: str, data: bytes) -> Image:
    """The photo that `<name>_roundtrip` answers, before it is encoded."""
    lines = draw_photo(data, RequestOptions())
    return generate(name, lines_for_model(lines, RequestOptions()))


def largest_difference(first: Image, second: Image) -> int:
    """In grey levels."""
    return int(np.abs(first.astype(int) - second).max())
