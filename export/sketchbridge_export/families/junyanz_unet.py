"""U-Net generators as trained by pytorch-CycleGAN-and-pix2pix (`--netG unet_128`, `unet_256` and deeper or shallower).

The checkpoint's names nest: level k + 1 is a numbered step inside level k's list of steps. Everything else is read from
the names and shapes: depth, widths, channels, and the kind of normalisation.

Which statistics? The reference trains with batches of one and paints in training mode, so a picture is normalised with
its own statistics; its published checkpoints look right only so. That is the default, "instance". Checkpoints trained
with larger batches and judged in evaluation mode want "running": ours say so in their `sketchbridge` metadata.

The reference applies LeakyReLU in place to the very tensor that is also the skip connection, so what is concatenated is
the activated tensor. ReLU follows, and ReLU(LeakyReLU(x)) = ReLU(x): the skip below is ReLU(x), with the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import (
    TANH_CONVENTION,
    Choices,
    Family,
    Generator,
    NormMode,
    Recognition,
    Shapes,
    Weights,
)
from sketchbridge_export.families.layers import (
    FixedDropout,
    NormalisedConvolution,
    NormKind,
    StructureMismatch,
    build_convolution,
    build_transposed,
    choose_activation,
    choose_fixed_size,
    choose_norm,
    convolution_tensor_names,
    dropout_state,
    norm_tensor_names,
    normalised,
    read_norm_kind,
    require_nothing_else,
    require_shape,
    require_torch,
)

_DEFAULT_NORM: NormMode = "instance"
_LEVELS_WITHOUT_DROPOUT = 4  # the outermost ones
_FEWEST_DOWNS, _MOST_DOWNS = 5, 10  # the reference can't build fewer; 10 paint 1024 x 1024 pixels


@dataclass(frozen=True)
class _Level:
    """Names of one level's parts, without the trailing `.weight`; None where the level has no such part."""

    down: str
    down_norm: str | None
    up: str
    up_norm: str | None


@dataclass(frozen=True)
class _Structure:
    levels: tuple[_Level, ...]
    input_channels: int
    output_channels: int
    widths: tuple[int, ...]
    norm_kind: NormKind


class SkipUNet(nn.Module):
    """down[0] is the outermost level; up[k] undoes down[k].

    (N, C, 2**n, 2**n) in [-1, 1] -> (N, C', 2**n, 2**n) in [-1, 1], n being the number of levels.
    """

    def __init__(
        self, down: Sequence[NormalisedConvolution], up: Sequence[NormalisedConvolution], drop: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(up)
        self.drop = nn.ModuleList(drop)  # drop[k] follows up[k]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = [self.down[0](x)]
        for down in list(self.down)[1:]:
            features.append(down(functional.leaky_relu(features[-1], 0.2)))
        x = functional.relu(features.pop())
        for up, drop in zip(list(self.up)[:0:-1], list(self.drop)[:0:-1], strict=True):
            x = functional.relu(torch.cat([features.pop(), drop(up(x))], dim=1))  # the skip comes first
        return torch.tanh(self.up[0](x))


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a U-Net's, every one of them."""
    try:
        require_torch(weights)
        found = _read_structure(weights.shapes)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(
        matches=True, why=f"U-Net of {len(found.levels)} levels, ngf {found.widths[0]}, norm {found.norm_kind}"
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights.shapes)
    state = weights.tensors
    mode = choose_norm(found.norm_kind, choices.norm, default=_DEFAULT_NORM)
    native_size = choose_fixed_size(choices, 2 ** len(found.levels))
    choose_activation(choices, "tanh")
    downs: list[NormalisedConvolution] = []
    ups: list[NormalisedConvolution] = []
    for level in found.levels:
        down = build_convolution(state, level.down, stride=2, padding=1)
        downs.append(normalised(state, down, level.down_norm, mode))
        up = build_transposed(state, level.up)
        ups.append(normalised(state, up, level.up_norm, mode))
    drops = _drops(found, choices.dropout_seed)
    return Generator(
        module=SkipUNet(downs, ups, drops).eval().requires_grad_(requires_grad=False),
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode or "none",
        facts={
            "num_downs": len(found.levels),
            "ngf": found.widths[0],
            "widths": list(found.widths),
            "norm_kind": found.norm_kind,
        },
        dropout=dropout_state(choices),
    )


def _drops(found: _Structure, seed: int | None) -> list[nn.Module]:
    """The reference drops half after each level between the innermost and the four outermost; weights don't show it."""
    drops: list[nn.Module] = [nn.Identity() for _ in found.levels]
    if seed is not None:
        for index in range(_LEVELS_WITHOUT_DROPOUT, len(found.levels) - 1):
            side = 2 ** (len(found.levels) - index)
            drops[index] = FixedDropout((found.widths[index - 1], side, side), rate=0.5, seed=seed, layer=index)
    return drops


def _read_structure(shapes: Shapes) -> _Structure:
    levels = _read_levels(shapes)
    explained: set[str] = set()
    widths: list[int] = []
    for index, level in enumerate(levels):
        expected = {1: widths[-1]} if widths else {}
        widths.append(require_shape(shapes, f"{level.down}.weight", expected | {2: 4, 3: 4})[0])
        explained |= convolution_tensor_names(shapes, level.down, widths[index])
    input_channels = shapes[f"{levels[0].down}.weight"][1]
    output_channels = 0
    for index, level in reversed(list(enumerate(levels))):
        expected = {0: widths[index] if index == len(levels) - 1 else 2 * widths[index], 2: 4, 3: 4}
        if index > 0:
            expected[1] = widths[index - 1]
        output_channels = require_shape(shapes, f"{level.up}.weight", expected)[1]
        explained |= convolution_tensor_names(shapes, level.up, output_channels)
        for prefix, channels in ((level.down_norm, widths[index]), (level.up_norm, output_channels)):
            if prefix is not None:
                explained |= norm_tensor_names(shapes, prefix, channels)
    kind = _read_norm_kind(shapes, levels)
    require_nothing_else(shapes, explained)
    return _Structure(levels, input_channels, output_channels, tuple(widths), kind)


def _read_levels(shapes: Shapes) -> tuple[_Level, ...]:
    if "model.model.0.weight" not in shapes:
        raise StructureMismatch("`model.model.0.weight` is missing")
    levels = [_Level("model.model.0", None, "model.model.3", None)]
    prefix = "model.model.1.model."
    while any(key.startswith(f"{prefix}3.model.") for key in shapes):
        levels.append(_Level(f"{prefix}1", f"{prefix}2", f"{prefix}5", f"{prefix}6"))
        prefix += "3.model."
        if len(levels) > _MOST_DOWNS:
            break
    levels.append(_Level(f"{prefix}1", None, f"{prefix}3", f"{prefix}4"))
    if not _FEWEST_DOWNS <= len(levels) <= _MOST_DOWNS:
        raise StructureMismatch(f"it nests {len(levels)} levels; {_FEWEST_DOWNS} to {_MOST_DOWNS} are taken")
    return tuple(levels)


def _read_norm_kind(shapes: Shapes, levels: Sequence[_Level]) -> NormKind:
    prefixes = [prefix for level in levels for prefix in (level.down_norm, level.up_norm) if prefix is not None]
    # Nothing stored is either instance normalisation without parameters or none at all. The reference gives its
    # convolutions a bias in the first case only.
    biased = f"{levels[1].down}.bias" in shapes
    return read_norm_kind(shapes, prefixes, if_nothing_stored="instance" if biased else "none")


FAMILY = Family(
    name="junyanz_unet",
    title="pytorch-CycleGAN-and-pix2pix, unet_128, unet_256 and their like",
    recognised_by="nested `model.model.1.model...` convolutions, 4 x 4",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: the reference paints with each picture's own statistics",
    dropout="the reference drops half in the levels between the innermost and the four outermost, at test time too",
    native_size="2 ** num_downs: the bottleneck is 1 x 1",
    exact="depth (5 to 10 levels), widths, channels, kind of normalisation, biases",
    assumed="dark lines in RGB; a checkpoint does not show whether it was trained with dropout",
    source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix models/networks.py, UnetGenerator",
)
