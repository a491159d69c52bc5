"""The record that a checkpoint family is: how its networks are recognised, rebuilt and fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

State = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Fact = int | str | list[int]

NormMode = Literal["running", "instance"]
NORM_MODES: tuple[NormMode, ...] = ("running", "instance")


# What turns the last layer's numbers into colours. It has no weights, so a checkpoint can't say which one it was.
Activation = Literal["tanh", "sigmoid", "none"]
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "sigmoid", "none")

ChannelOrder = Literal["rgb", "bgr"]
LinePolarity = Literal["dark-on-light", "light-on-dark"]


@dataclass(frozen=True)
class ValueRange:
    """The values that black and white have for a network: one pair, or one value a channel in the network's order."""

    low: float | tuple[float, float, float]
    high: float | tuple[float, float, float]


TANH_RANGE = ValueRange(-1.0, 1.0)
UNIT_RANGE = ValueRange(0.0, 1.0)
BYTE_RANGE = ValueRange(0.0, 255.0)
# (0 - mean) / deviation and (1 - mean) / deviation, with ImageNet's means and deviations as torchvision documents them.
_IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
IMAGENET_RANGE = ValueRange(
    (-_IMAGENET[0][0] / _IMAGENET[0][1], -_IMAGENET[1][0] / _IMAGENET[1][1], -_IMAGENET[2][0] / _IMAGENET[2][1]),
    (
        (1 - _IMAGENET[0][0]) / _IMAGENET[0][1],
        (1 - _IMAGENET[1][0]) / _IMAGENET[1][1],
        (1 - _IMAGENET[2][0]) / _IMAGENET[2][1],
    ),
)


@dataclass(frozen=True)
class Convention:
    """How a network wants its drawing and gives its photograph.

    channel_order: of its three-channel input and output. line_polarity: what it was trained on; the house feeds dark
    lines on white paper.
    """

    input_range: ValueRange
    output_range: ValueRange
    channel_order: ChannelOrder = "rgb"
    line_polarity: LinePolarity = "dark-on-light"


TANH_CONVENTION = Convention(TANH_RANGE, TANH_RANGE)


@dataclass(frozen=True)
class Weights:
    """What is known of a network without its code.

    tensors: name -> float32 (or integer counter) tensor on the CPU, in the layout of `framework`.
    graph: the network's own description, where the file has one (the configuration of a Keras model).
    """

    tensors: State = field(repr=False)
    framework: Literal["torch", "keras"] = "torch"
    graph: Mapping[str, Any] | None = field(default=None, repr=False)

    @cached_property
    def shapes(self) -> Shapes:
        """Name -> shape of every tensor."""
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}


@dataclass(frozen=True)
class Choices:
    """What is asked of a rebuilt network beyond its weights; None leaves it to the family.

    norm: the statistics to normalise with. dropout_seed: drop by a fixed mask of this seed; None: dropout is off.
    activation: the last one, if the family can't tell. size: side in pixels of the picture that the network takes.
    Each raises OptionInvalid in `rebuild` if the network can't have it.
    """

    norm: NormMode | None = None
    dropout_seed: int | None = None
    activation: Activation | None = None
    size: int | None = None


@dataclass(frozen=True)
class Recognition:
    """Whether the weights belong to a family, and why or why not, in words for the person who owns them."""

    matches: bool
    why: str


@dataclass(frozen=True)
class Generator:
    """A network rebuilt from a checkpoint, in evaluation mode.

    module: (N, input_channels, native_size, native_size) float32 in the convention's input range ->
    (N, output_channels, H, W) float32 in its output range; H and W need not be native_size.
    norm: the statistics it normalises with: "running", "instance", or "none" if it has no normalisation.
    dropout: "none" if it has no dropout, "off", or "seed N".
    convention: None if it is the family's.
    facts: what was read from the weights, for the manifest.
    """

    module: nn.Module
    input_channels: int
    output_channels: int
    native_size: int
    norm: str
    facts: Mapping[str, Fact]
    dropout: str = "none"
    convention: Convention | None = None


@dataclass(frozen=True)
class Family:
    """Everything the exporter knows of one kind of checkpoint.

    title: whose networks these are, in a few words. recognised_by: what gives them away, for people.
    recognise: looks at names and shapes (and the graph) only, all of which must be explained.
    rebuild: weights and choices -> Generator. Raises OptionInvalid if the network can't be run so.
    norm: the statistics it paints with unless asked otherwise, in words. dropout: what its own code does at test time,
    in words. native_size: the rule for the side in pixels of the picture the network takes.
    exact: what is sure to be as in the source, and assumed: what a checkpoint does not say and was settled here.
    source: where the structure comes from.
    """

    name: str
    title: str
    recognised_by: str
    recognise: Callable[[Weights], Recognition]
    rebuild: Callable[[Weights, Choices], Generator]
    convention: Convention
    norm: str
    dropout: str
    native_size: str
    exact: str
    assumed: str
    source: str
