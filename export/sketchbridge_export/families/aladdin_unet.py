"""The pix2pix generator of Aladdin Persson's Machine-Learning-Collection, for 256 pixels.

Eight halvings, the first seven with reflection padding, the last one (the bottleneck) without normalisation. Each
doubling is given what the one below painted, then the features of its own size.

Its author paints with `gen.eval()` and trains with batches of 16: the default is "running".
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
    Weights,
)
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

_DEFAULT_NORM: NormMode = "running"
_DOWNS = 6  # between the first halving and the bottleneck
_UPS = _DOWNS + 1
_DROPPED_UPS = 3  # the innermost ones
_DROPOUT_RATE = 0.5
_MULTIPLE = 2 ** (_DOWNS + 2)


@dataclass(frozen=True)
class _Structure:
    input_channels: int
    output_channels: int
    down_widths: tuple[int, ...]  # of initial_down, down1, ...
    bottleneck_width: int
    up_widths: tuple[int, ...]  # of up1, up2, ...


class ReflectedUNet(nn.Module):
    """down[0] is the outermost; up[0] and drop[0] are the innermost.

    (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1], H and W being multiples of 256.
    """

    def __init__(
        self,
        down: Sequence[NormalisedConvolution],
        bottleneck: nn.Conv2d,
        up: Sequence[NormalisedConvolution],
        drop: Sequence[nn.Module],
        last: nn.ConvTranspose2d,
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(down)
        self.bottleneck = bottleneck
        self.up = nn.ModuleList(up)
        self.drop = nn.ModuleList(drop)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features: list[torch.Tensor] = []
        for down in self.down:
            x = functional.leaky_relu(down(x), 0.2)
            features.append(x)
        x = functional.relu(self.bottleneck(x))
        for up, drop in zip(self.up, self.drop, strict=True):
            x = torch.cat([drop(functional.relu(up(x))), features.pop()], dim=1)  # the skip comes last
        return torch.tanh(self.last(x))


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are this U-Net's, every one of them."""
    try:
        found = _read_structure(weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(matches=True, why=f"U-Net of {_DOWNS + 2} levels, features {found.down_widths[0]}")


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights)
    state = weights.tensors
    mode = choose_norm("batch", choices.norm, default=_DEFAULT_NORM)
    choose_activation(choices, "tanh")
    native_size = choose_free_size(choices, multiple=_MULTIPLE, smallest=_MULTIPLE)
    first = build_convolution(state, "initial_down.0", stride=2, padding=1, padding_mode="reflect")
    downs = [NormalisedConvolution(first, nn.Identity())]
    for level in range(1, _DOWNS + 1):
        prefix = f"down{level}.conv"
        down = build_convolution(state, f"{prefix}.0", stride=2, padding=1, padding_mode="reflect")
        downs.append(normalised(state, down, f"{prefix}.1", mode))
    ups, drops = [], []
    for level in range(1, _UPS + 1):
        ups.append(normalised(state, build_transposed(state, f"up{level}.conv.0"), f"up{level}.conv.1", mode))
        drop: nn.Module = nn.Identity()
        if choices.dropout_seed is not None and level <= _DROPPED_UPS:
            side = native_size * 2**level // _MULTIPLE
            shape = (found.up_widths[level - 1], side, side)
            drop = FixedDropout(shape, rate=_DROPOUT_RATE, seed=choices.dropout_seed, layer=level)
        drops.append(drop)
    module = ReflectedUNet(
        downs,
        build_convolution(state, "bottleneck.0", stride=2, padding=1),
        ups,
        drops,
        build_transposed(state, "final_up.0"),
    )
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode or "none",
        facts={
            "features": found.down_widths[0],
            "down_widths": [*found.down_widths, found.bottleneck_width],
            "up_widths": list(found.up_widths),
        },
        dropout=dropout_state(choices),
    )


def _read_structure(weights: Weights) -> _Structure:
    require_torch(weights)
    reading = Reading(weights.shapes)
    input_channels, width = reading.convolution("initial_down.0", kernel=4)
    down_widths = [width]
    for level in range(1, _DOWNS + 1):
        prefix = f"down{level}.conv"
        _, width = reading.convolution(f"{prefix}.0", kernel=4, inputs=width, norm=f"{prefix}.1", bias=False)
        down_widths.append(width)
    _, bottleneck_width = reading.convolution("bottleneck.0", kernel=4, inputs=width)
    before, up_widths = bottleneck_width, []
    for level in range(1, _UPS + 1):
        prefix = f"up{level}.conv"
        _, width = reading.convolution(
            f"{prefix}.0", kernel=4, inputs=before, transposed=True, norm=f"{prefix}.1", bias=False
        )
        up_widths.append(width)
        before = width + down_widths[-level]
    _, output_channels = reading.convolution("final_up.0", kernel=4, inputs=before, transposed=True)
    reading.finish()
    kind = read_norm_kind(weights.shapes, reading.norms, if_nothing_stored="none")
    if kind != "batch":
        raise StructureMismatch(f"its normalisation is of kind {kind!r}; the reference has batch normalisation")
    return _Structure(input_channels, output_channels, tuple(down_widths), bottleneck_width, tuple(up_widths))


FAMILY = Family(
    name="aladdin_unet",
    title="Aladdin Persson's Machine-Learning-Collection, pix2pix",
    recognised_by="`initial_down.0`, `down1.conv.0` to `down6`, `bottleneck.0`, `up1.conv.0` to `up7`, `final_up.0`",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="running: its author paints in evaluation mode",
    dropout="drops half after up1, up2 and up3 in training; its author paints without",
    native_size="256, or any multiple of it",
    exact="widths, channels, biases",
    assumed="reflection padding in all halvings but the bottleneck, as published; dark lines in RGB",
    source="https://github.com/aladdinpersson/Machine-Learning-Collection ML/Pytorch/GANs/Pix2Pix/generator_model.py",
)
