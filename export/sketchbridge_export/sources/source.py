"""What a file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx
from torch import nn

from sketchbridge_export.families import Weights

Layout = Literal["nchw", "nhwc"]
# What people know the formats as. The Keras readers name their own.
TORCH, SAFETENSORS, TORCHSCRIPT, EXPORTED_PROGRAM, ONNX = (
    "torch.save", "safetensors", "TorchScript", "torch.export", "ONNX",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A generator's weights: the network around them is rebuilt.

    sha256: of the file (of a folder: of its files' digests). metadata: what the file's `sketchbridge` entry says, plain
    JSON values; empty if it has none. weights: wrapper prefixes removed, float32. format: what the file is.
    notes: what was chosen among the file's contents and why, a sentence each.
    """

    path: Path
    sha256: str
    weights: Weights
    metadata: Mapping[str, Any]
    format: str = TORCH
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadyNetwork:
    """A network that comes with its own graph and fits no family: it is passed on as it is.

    network: what is exported: a torch module that torch.export can trace, or an ONNX model. runtime: what the file's
    own runtime runs, the reference; of an ONNX model, the model as it came. Both take float32 of `layout`, one picture
    at a time: (1, input_channels, native_size, native_size) or (1, native_size, native_size, input_channels).
    house: an ONNX model that shows the house interface already, uint8 `sketch` -> `photo`; it is taken as it is.
    """

    path: Path
    sha256: str
    format: str
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]
    network: nn.Module | onnx.ModelProto = field(repr=False)
    runtime: nn.Module | onnx.ModelProto = field(repr=False)
    input_channels: int
    output_channels: int
    native_size: int
    layout: Layout = "nchw"
    house: bool = False
