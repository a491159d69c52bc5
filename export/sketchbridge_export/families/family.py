"""The record that a checkpoint family is: how its networks are recognised, rebuilt and fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

State = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Fact = int | str | list[int]

NormMode = Literal["running", "instance"]
NORM_MODES: tuple[NormMode, ...] = ("running", "instance")


@dataclass(frozen=True)
class ValueRange:
    """The values that black and white have for a network."""

    low: float
    high: float


TANH_RANGE = ValueRange(-1.0, 1.0)
UNIT_RANGE = ValueRange(0.0, 1.0)


@dataclass(frozen=True)
class Recognition:
    """Whether the weights belong to a family, and why or why not, in words for the person who owns them."""

    matches: bool
    why: str


@dataclass(frozen=True)
class Generator:
    """A network rebuilt from a checkpoint, in evaluation mode.

    module: (N, input_channels, native_size, native_size) float32 in the family's input range ->
    (N, output_channels, H, W) float32 in its output range; H and W need not be native_size.
    norm: the statistics it normalises with: "running", "instance", or "none" if it has no normalisation.
    facts: what was read from the weights, for the manifest.
    """

    module: nn.Module
    input_channels: int
    output_channels: int
    native_size: int
    norm: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class Family:
    """Everything the exporter knows of one kind of checkpoint.

    recognise: looks at names and shapes only, all of which must be explained.
    rebuild: weights and the wanted norm (None: what the checkpoint's kind prefers) -> Generator. Raises OptionInvalid
    if the checkpoint can't be run with that norm.
    channel_order: of the network's three-channel input and output.
    line_polarity: what the network was trained on; the house feeds dark lines on white paper.
    dropout: whether it is on at inference. It never is so far: a service must give the same answer twice.
    native_size: the rule for the side in pixels of the picture the network takes.
    source: where the structure comes from.
    """

    name: str
    recognise: Callable[[Shapes], Recognition]
    rebuild: Callable[[State, NormMode | None], Generator]
    input_range: ValueRange
    output_range: ValueRange
    channel_order: Literal["rgb", "bgr"]
    line_polarity: Literal["dark-on-light", "light-on-dark"]
    dropout: bool
    native_size: str
    source: str
