"""`GeneratorUNet` of eriklindernoren's PyTorch-GAN (`implementations/pix2pix`), for 256 pixels.

Eight halvings and seven doublings with instance normalisation without parameters, then an enlargement by repeating
pixels: it is padded by one pixel at the left and the top, so that a 4 x 4 convolution keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import TANH_CONVENTION, Choices, Family, Generator, Recognition, Weights
from sketchbridge_export.families.layers import (
    FixedDropout,
    NormalisedConvolution,
    Reading,
    StructureMismatch,
    build_convolution,
    build_transposed,
    choose_activation,
    choose_free_size,
    choose_norm,
    dropout_state,
    normalised,
    read_norm_kind,
    require_torch,
)

_DOWNS, _UPS = 8, 7
_DROPPED_DOWNS = range(4, _DOWNS + 1)
_DROPPED_UPS = range(1, 5)
_DROPOUT_RATE = 0.5
_MULTIPLE = 2**_DOWNS


@dataclass(frozen=True)
class _Structure:
    input_channels: int
    output_channels: int
    down_widths: tuple[int, ...]
    up_widths: tuple[int, ...]


class RepeatingUNet(nn.Module):
    """down[0] is the outermost; up[0] is the innermost. drop_down[k] follows down[k], drop_up[k] follows up[k].

    (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1], H and W being multiples of 256.
    """

    def __init__(
        self,
        down: Sequence[NormalisedConvolution],
        up: Sequence[NormalisedConvolution],
        drop_down: Sequence[nn.Module],
        drop_up: Sequence[nn.Module],
        last: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.drop_down, self.drop_up = nn.ModuleList(drop_down), nn.ModuleList(drop_up)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features: list[torch.Tensor] = []
        for down, drop in zip(self.down, self.drop_down, strict=True):
            x = drop(functional.leaky_relu(down(x), 0.2))
            features.append(x)
        features.pop()
        for up, drop in zip(self.up, self.drop_up, strict=True):
            x = torch.cat([drop(functional.relu(up(x))), features.pop()], dim=1)  # the skip comes last
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.tanh(self.last(functional.pad(x, (2, 1, 2, 1))))  # the one pixel, and one on each side


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are this U-Net's, every one of them."""
    try:
        found = _read_structure(weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(matches=True, why=f"U-Net of {_DOWNS} levels, widths {list(found.down_widths)}")


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights)
    state = weights.tensors
    mode = choose_norm("instance", choices.norm, default="instance")
    choose_activation(choices, "tanh")
    native_size = choose_free_size(choices, multiple=_MULTIPLE, smallest=_MULTIPLE)
    downs, ups = [], []
    for level in range(1, _DOWNS + 1):
        down = build_convolution(state, f"down{level}.model.0", stride=2, padding=1)
        downs.append(normalised(state, down, None if level in (1, _DOWNS) else f"down{level}.model.1", mode))
    for level in range(1, _UPS + 1):
        up = build_transposed(state, f"up{level}.model.0")
        ups.append(normalised(state, up, f"up{level}.model.1", mode))
    drop_down: list[nn.Module] = [nn.Identity() for _ in downs]
    drop_up: list[nn.Module] = [nn.Identity() for _ in ups]
    if choices.dropout_seed is not None:
        for level in _DROPPED_DOWNS:
            side = native_size // 2**level
            shape = (found.down_widths[level - 1], side, side)
            drop_down[level - 1] = FixedDropout(shape, rate=_DROPOUT_RATE, seed=choices.dropout_seed, layer=level)
        for level in _DROPPED_UPS:
            side = native_size * 2**level // _MULTIPLE
            shape = (found.up_widths[level - 1], side, side)
            drop_up[level - 1] = FixedDropout(
                shape, rate=_DROPOUT_RATE, seed=choices.dropout_seed, layer=_DOWNS + level
            )
    module = RepeatingUNet(downs, ups, drop_down, drop_up, build_convolution(state, "final.2"))
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm="instance",
        facts={"down_widths": list(found.down_widths), "up_widths": list(found.up_widths)},
        dropout=dropout_state(choices),
    )


def _read_structure(weights: Weights) -> _Structure:
    require_torch(weights)
    reading = Reading(weights.shapes)
    input_channels, width = reading.convolution("down1.model.0", kernel=4, bias=False)
    down_widths = [width]
    for level in range(2, _DOWNS + 1):
        prefix = f"down{level}.model"
        norm = None if level == _DOWNS else f"{prefix}.1"
        _, width = reading.convolution(f"{prefix}.0", kernel=4, inputs=width, norm=norm, bias=False)
        down_widths.append(width)
    before, up_widths = width, []
    for level in range(1, _UPS + 1):
        prefix = f"up{level}.model"
        _, width = reading.convolution(
            f"{prefix}.0", kernel=4, inputs=before, transposed=True, norm=f"{prefix}.1", bias=False
        )
        up_widths.append(width)
        before = width + down_widths[-1 - level]
    _, output_channels = reading.convolution("final.2", kernel=4, inputs=before)
    reading.finish()
    kind = read_norm_kind(weights.shapes, reading.norms, if_nothing_stored="instance")
    if kind != "instance":
        raise StructureMismatch(f"its normalisation is of kind {kind!r}; the reference's has no parameters")
    return _Structure(input_channels, output_channels, tuple(down_widths), tuple(up_widths))


FAMILY = Family(
    name="eriklindernoren_unet",
    title="eriklindernoren's PyTorch-GAN, pix2pix GeneratorUNet",
    recognised_by="`down1.model.0` to `down8`, `up1.model.0` to `up7`, `final.2`, without biases",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: it has no other",
    dropout="the reference drops half after down4 to down8 and up1 to up4, and paints its samples so",
    native_size="256, or any multiple of it",
    exact="widths, channels",
    assumed="dark lines in RGB",
    source="https://github.com/eriklindernoren/PyTorch-GAN implementations/pix2pix/models.py, GeneratorUNet",
)
