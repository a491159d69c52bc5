"""A real Triton with models that do nothing, and the pictures to send there: with them a client is all that costs."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_server import ServerConfig, TritonServer

LARGE_HEIGHT, LARGE_WIDTH = 2160, 3840


@dataclass(frozen=True)
class CheapModel:
    """A model that does nothing. Its input is `sketch` and its output `photo`, as a painter's; one that answers with
    files has `timings` too.

    input_type, output_type: as a config has them, such as "TYPE_STRING". echoes: answers with what it was given; else
    with a small PNG, or zeros if its output is numbers.
    """

    name: str
    input_type: str = "TYPE_STRING"
    input_shape: tuple[int, ...] = (1,)
    output_type: str = "TYPE_STRING"
    output_shape: tuple[int, ...] = (1,)
    echoes: bool = False


PAINTER = CheapModel("shoes")
ECHO = CheapModel("echo", echoes=True)


@contextmanager
def cheap_server(models: Sequence[CheapModel]) -> Iterator[TritonServer]:
    """A server of these models on free ports of this machine, over a repository in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="sketchbridge-cheap-") as temporary:
        for model in models:
            write_model(model, Path(temporary))
        config = ServerConfig(repositories=(Path(temporary),), http_port=0, grpc_port=0, metrics_port=0)
        with TritonServer(config) as server:
            yield server


def write_model(model: CheapModel, repository: Path) -> None:
    """Write one model into a repository."""
    version = repository / model.name / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("cheap_model.py"), version / "model.py")
    (version / "answer").write_bytes(small_answer())
    (version.parent / "config.pbtxt").write_text(_config(model))


@cache
def small_answer() -> bytes:
    """The PNG that a cheap painter paints: 256x256 pixels, about 1 KB."""
    columns = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256))
    return _saved(Image.fromarray(np.stack([columns, columns.T, 255 - columns], axis=2)), "png")


def small_sketch() -> bytes:
    """A PNG of about 1 KB: dark lines on white, 128x128 pixels, the same each time."""
    y, x = np.mgrid[:128, :128]
    lines = (np.hypot(x - 60, y - 66) % 23 < 2) | ((x * y) % 301 < 3)
    return _saved(Image.fromarray(np.where(lines, 0, 255).astype(np.uint8)).convert("1"), "png")


def large_photo() -> bytes:
    """A JPEG of 3840x2160 pixels and several MB, the same each time: waves that get finer, so that it has details."""
    return _saved(Image.fromarray(large_array()), "jpeg", quality=95)


def large_array() -> NDArray[np.uint8]:
    """The pixels of the large photo: (2160, 3840, 3) uint8 RGB in [0, 255], 24.9 MB."""
    y, x = np.ogrid[:LARGE_HEIGHT, :LARGE_WIDTH]
    planes = [127.5 + 90 * np.sin((x - cx) ** 2 / 2900.0 + (y - cy) ** 2 / 1700.0) for cx, cy in _CENTRES]
    array: NDArray[np.uint8] = np.stack(planes, axis=2).astype(np.uint8)  # (H, W, 3)
    return array


_CENTRES = ((1300, 700), (1900, 1080), (2500, 1500))


def _saved(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _config(model: CheapModel) -> str:
    # No `default_queue_policy`: with one, Triton's batcher now and then lets a request wait for 500 ms.
    lines = [
        'backend: "python"',
        "max_batch_size: 8",
        f'input {{ name: "sketch" data_type: {model.input_type} dims: {list(model.input_shape)} }}',
        f'output {{ name: "photo" data_type: {model.output_type} dims: {list(model.output_shape)} }}',
        "dynamic_batching { }",
        "instance_group { kind: KIND_CPU count: 1 }",
    ]
    if model.output_type == "TYPE_STRING":
        lines.append('output { name: "timings" data_type: TYPE_STRING dims: [1] }')
    if model.echoes:
        lines.append('parameters { key: "echo" value { string_value: "true" } }')
    return "\n".join([*lines, ""])
