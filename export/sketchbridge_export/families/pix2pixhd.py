"""pix2pixHD's generators: `GlobalGenerator` (`--netG global`) and `LocalEnhancer` (`--netG local`).

The global generator is the ResNet generator of pytorch-CycleGAN-and-pix2pix with another number of halvings, a bias in
every convolution, and no dropout. With two halvings the two are the same network, which is left to that family.

A local enhancer runs the global generator, without its last convolution, on the picture at half the size and adds what
comes out to its own first features. Several can be stacked: `model1_*` is the innermost.
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
    State,
    Weights,
)
from sketchbridge_export.families.junyanz_resnet import (
    BlockLayout,
    Trunk,
    build_blocks,
    build_last,
    build_trunk,
    read_block,
    read_block_layout,
    read_trunk,
)
from sketchbridge_export.families.layers import (
    NormKind,
    Reading,
    StructureMismatch,
    build_convolution,
    build_transposed,
    choose_activation,
    choose_free_size,
    choose_norm,
    normalised,
    read_norm_kind,
    refuse_dropout,
    require_torch,
)

_DEFAULT_NORM: NormMode = "instance"
_TWIN_HALVINGS = 2  # with so many it is junyanz_resnet's network


@dataclass(frozen=True)
class _Enhancer:
    """Names of a local enhancer's parts."""

    before: str  # model<n>_1
    after: str  # model<n>_2
    blocks: tuple[str, ...]
    layout: BlockLayout


@dataclass(frozen=True)
class _Structure:
    trunk: Trunk
    enhancers: tuple[_Enhancer, ...]
    last: str
    output_channels: int
    ngf: int
    norm_kind: NormKind


class EnhancedGenerator(nn.Module):
    """(N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1].

    before, after: what each enhancer does to its picture, and to the sum of that and what the level below painted.
    """

    def __init__(self, trunk: nn.Module, before: Sequence[nn.Module], after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.before = nn.ModuleList(before)
        self.after = nn.ModuleList(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        pictures = [x]
        for _ in self.before:
            pictures.append(
                functional.avg_pool2d(pictures[-1], 3, stride=2, padding=1, count_include_pad=False)
            )  # (N, C, H / 2, W / 2)
        y: torch.Tensor = self.trunk(pictures.pop())
        for before, after in zip(self.before, self.after, strict=True):
            y = after(before(pictures.pop()) + y)
        return y


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a generator's, every one of them."""
    try:
        found = _read_structure(weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    kind = f"LocalEnhancer with {len(found.enhancers)} enhancers" if found.enhancers else "GlobalGenerator"
    return Recognition(
        matches=True,
        why=f"{kind}, {len(found.trunk.downs)} halvings, {len(found.trunk.blocks)} blocks, ngf {found.ngf}, "
        f"{found.trunk.input_channels} input channels, norm {found.norm_kind}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights)
    trunk, state = found.trunk, weights.tensors
    mode = choose_norm(found.norm_kind, choices.norm, default=_DEFAULT_NORM)
    refuse_dropout(choices)
    choose_activation(choices, "tanh")
    halvings = len(trunk.downs) + len(found.enhancers)
    native_size = choose_free_size(choices, multiple=2**halvings, smallest=max(16, 2 * 2**halvings))
    steps = build_trunk(state, trunk, mode, [nn.Identity() for _ in trunk.blocks])
    last = build_last(state, found.last)
    if found.enhancers:
        before = [_before(state, enhancer, mode) for enhancer in found.enhancers]
        after = [_after(state, enhancer, mode) for enhancer in found.enhancers]
        after[-1].extend(last)
        module: nn.Module = EnhancedGenerator(nn.Sequential(*steps), before, after)
    else:
        module = nn.Sequential(*steps, *last)
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=trunk.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode or "none",
        facts={
            "halvings": len(trunk.downs),
            "blocks": len(trunk.blocks),
            "ngf": found.ngf,
            "input_channels": trunk.input_channels,
            "norm_kind": found.norm_kind,
            "enhancers": len(found.enhancers),
            "enhancer_blocks": [len(enhancer.blocks) for enhancer in found.enhancers],
        },
    )


def _before(state: State, enhancer: _Enhancer, mode: NormMode | None) -> nn.Sequential:
    first = build_convolution(state, f"{enhancer.before}.1", padding=3, padding_mode="reflect")
    halve = build_convolution(state, f"{enhancer.before}.4", stride=2, padding=1)
    return nn.Sequential(
        normalised(state, first, f"{enhancer.before}.2", mode),
        nn.ReLU(),
        normalised(state, halve, f"{enhancer.before}.5", mode),
        nn.ReLU(),
    )


def _after(state: State, enhancer: _Enhancer, mode: NormMode | None) -> nn.Sequential:
    step = len(enhancer.blocks)
    double = build_transposed(state, f"{enhancer.after}.{step}", output_padding=1)
    return nn.Sequential(
        *build_blocks(state, enhancer.blocks, enhancer.layout, mode, [nn.Identity() for _ in enhancer.blocks]),
        normalised(state, double, f"{enhancer.after}.{step + 1}", mode),
        nn.ReLU(),
    )


def _read_structure(weights: Weights) -> _Structure:
    require_torch(weights)
    reading = Reading(weights.shapes)
    trunk = read_trunk(reading, "model")
    if not trunk.downs:
        raise StructureMismatch("it never halves the picture")
    if any((*trunk.blur_down, *trunk.blur_up)):
        raise StructureMismatch("it has antialiasing filters")
    width, last = trunk.ngf, f"model.{trunk.next_step + 1}"
    enhancers: list[_Enhancer] = []
    while any(key.startswith(f"model{len(enhancers) + 1}_") for key in weights.shapes):
        enhancer = _read_enhancer(reading, len(enhancers) + 1, trunk.input_channels, width)
        enhancers.append(enhancer)
        width //= 2
        last = f"{enhancer.after}.{len(enhancer.blocks) + 4}"
    if not enhancers and len(trunk.downs) == _TWIN_HALVINGS:
        raise StructureMismatch(f"it halves {_TWIN_HALVINGS} times: the same network as pytorch-CycleGAN-and-pix2pix's")
    _, output_channels = reading.convolution(last, kernel=7, inputs=width, bias=True)
    reading.finish()
    if reading.normalised_biases != {True}:
        raise StructureMismatch("a convolution without a bias has no place in it")
    if any(layout.padding != "reflect" or layout.dropout for layout in (trunk.layout, *(e.layout for e in enhancers))):
        raise StructureMismatch("its residual blocks are numbered as with zero padding or dropout")
    kind = read_norm_kind(weights.shapes, reading.norms, if_nothing_stored="instance")
    return _Structure(trunk, tuple(enhancers), last, output_channels, width, kind)


def _read_enhancer(reading: Reading, number: int, input_channels: int, width: int) -> _Enhancer:
    """width: of the features that it is to be added to; its own first convolution has half as many."""
    before, after = f"model{number}_1", f"model{number}_2"
    reading.convolution(f"{before}.1", kernel=7, inputs=input_channels, outputs=width // 2, norm=f"{before}.2")
    reading.convolution(f"{before}.4", kernel=3, inputs=width // 2, outputs=width, norm=f"{before}.5")
    layout = read_block_layout(reading, f"{after}.0")
    blocks: list[str] = []
    while any(key.startswith(f"{after}.{len(blocks)}.conv_block.") for key in reading.shapes):
        read_block(reading, f"{after}.{len(blocks)}", layout, width)
        blocks.append(f"{after}.{len(blocks)}")
    step = len(blocks)
    reading.convolution(
        f"{after}.{step}", kernel=3, inputs=width, outputs=width // 2, transposed=True, norm=f"{after}.{step + 1}"
    )
    return _Enhancer(before, after, tuple(blocks), layout)


FAMILY = Family(
    name="pix2pixhd",
    title="pix2pixHD, GlobalGenerator and LocalEnhancer",
    recognised_by="`model.1` 7 x 7, `model.N.conv_block.1` and `.5`, not two halvings; `model1_1` and `model1_2`",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: what it is trained with unless told otherwise, and what batch normalisation does in its test mode",
    dropout="none",
    native_size="256, or any multiple of 2 ** (halvings + enhancers)",
    exact="halvings, blocks, local enhancers, widths, channels, kind of normalisation",
    assumed="dark lines in RGB; a network for label maps has more input channels than 3 and can't be served",
    source="https://github.com/NVIDIA/pix2pixHD models/networks.py, GlobalGenerator and LocalEnhancer",
)
