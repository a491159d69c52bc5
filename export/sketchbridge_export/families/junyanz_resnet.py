"""ResNet generators as trained by pytorch-CycleGAN-and-pix2pix (`--netG resnet_9blocks`, `resnet_6blocks`) and CUT.

One list of numbered steps: a 7 x 7 convolution, two halvings, residual blocks, two doublings, a 7 x 7 convolution.
Steps without weights take numbers too, and so the numbering tells what weights don't: inside a block it is 1 and 5 with
reflection padding, 1 and 6 with dropout, 0 and 3 or 4 with zero padding.

CUT halves and doubles with blurring filters unless told not to. They are stored, and the stored ones are used.

Which statistics? The reference paints in training mode with one picture at a time, so batch normalisation takes each
picture's own: the default is "instance".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
from sketchbridge_export.families.layers import (
    FixedDropout,
    NormalisedConvolution,
    NormKind,
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
    refuse_dropout,
    require_torch,
)

_DEFAULT_NORM: NormMode = "instance"
_HALVINGS = 2
_DROPOUT_RATE = 0.5


@dataclass(frozen=True)
class BlockLayout:
    """Where a residual block has its two convolutions, and what their numbers say of the steps between."""

    first: int
    second: int
    padding: Literal["reflect", "zeros"]
    dropout: bool


BLOCK_LAYOUTS = (
    BlockLayout(1, 5, "reflect", dropout=False),
    BlockLayout(1, 6, "reflect", dropout=True),
    BlockLayout(0, 3, "zeros", dropout=False),
    BlockLayout(0, 4, "zeros", dropout=True),
)


@dataclass(frozen=True)
class Trunk:
    """Names of everything but the last convolution: prefixes, each convolution's normalisation being one step later.

    blur_down, blur_up: names of the filters after each halving and before each doubling; None where it has none.
    """

    first: str
    downs: tuple[str, ...]
    blocks: tuple[str, ...]
    layout: BlockLayout
    ups: tuple[str, ...]
    blur_down: tuple[str | None, ...]
    blur_up: tuple[str | None, ...]
    input_channels: int
    ngf: int
    next_step: int


@dataclass(frozen=True)
class _Structure:
    trunk: Trunk
    last: str
    output_channels: int
    norm_kind: NormKind


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> the same shape."""

    def __init__(self, first: NormalisedConvolution, second: NormalisedConvolution, drop: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.drop = first, second, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        result: torch.Tensor = x + self.second(self.drop(functional.relu(self.first(x))))
        return result


class BlurAndHalve(nn.Module):
    """CUT's `Downsample`: (N, C, H, W) -> (N, C, H / 2, W / 2). kernel: (C, 1, 3, 3)."""

    kernel: torch.Tensor

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.kernel, stride=2, groups=self.kernel.shape[0])


class DoubleAndBlur(nn.Module):
    """CUT's `Upsample`: (N, C, H, W) -> (N, C, 2 H, 2 W). kernel: (C, 1, 4, 4)."""

    kernel: torch.Tensor

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        # The filter's padding is 1, CUT's own 1 more, and the third cuts off what CUT cuts off afterwards.
        return functional.conv_transpose2d(padded, self.kernel, stride=2, padding=3, groups=self.kernel.shape[0])


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a generator's, every one of them."""
    try:
        found = _read_structure(weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    trunk = found.trunk
    return Recognition(
        matches=True,
        why=f"ResNet generator of {len(trunk.blocks)} blocks, ngf {trunk.ngf}, norm {found.norm_kind}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights)
    trunk, state = found.trunk, weights.tensors
    mode = choose_norm(found.norm_kind, choices.norm, default=_DEFAULT_NORM)
    choose_activation(choices, "tanh")
    native_size = choose_free_size(choices, multiple=2**_HALVINGS, smallest=4 * 2**_HALVINGS)
    drops: list[nn.Module] = [nn.Identity() for _ in trunk.blocks]
    if not trunk.layout.dropout:
        refuse_dropout(choices)
    elif choices.dropout_seed is not None:
        side = native_size // 2**_HALVINGS
        shape = (trunk.ngf * 2**_HALVINGS, side, side)
        drops = [
            FixedDropout(shape, rate=_DROPOUT_RATE, seed=choices.dropout_seed, layer=index)
            for index in range(len(trunk.blocks))
        ]
    module = nn.Sequential(*build_trunk(state, trunk, mode, drops), *build_last(state, found.last))
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=trunk.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode or "none",
        facts={
            "blocks": len(trunk.blocks),
            "ngf": trunk.ngf,
            "norm_kind": found.norm_kind,
            "block_padding": trunk.layout.padding,
            "antialiased": "yes" if any((*trunk.blur_down, *trunk.blur_up)) else "no",
        },
        dropout=dropout_state(choices) if trunk.layout.dropout else "none",
    )


def build_trunk(state: State, trunk: Trunk, mode: NormMode | None, drops: Sequence[nn.Module]) -> list[nn.Module]:
    """Its steps: (N, input_channels, H, W) -> (N, ngf, H, W). drops: one a block."""
    first = build_convolution(state, trunk.first, padding=3, padding_mode="reflect")
    steps: list[nn.Module] = [normalised(state, first, _following(trunk.first), mode), nn.ReLU()]
    for down, blur in zip(trunk.downs, trunk.blur_down, strict=True):
        convolution = build_convolution(state, down, stride=2 if blur is None else 1, padding=1)
        steps += [normalised(state, convolution, _following(down), mode), nn.ReLU()]
        if blur is not None:
            steps.append(BlurAndHalve(state[blur].float()))
    steps += build_blocks(state, trunk.blocks, trunk.layout, mode, drops)
    for up, blur in zip(trunk.ups, trunk.blur_up, strict=True):
        if blur is not None:
            steps += [DoubleAndBlur(state[blur].float())]
            doubled: nn.Conv2d | nn.ConvTranspose2d = build_convolution(state, up, padding=1)
        else:
            doubled = build_transposed(state, up, output_padding=1)
        steps += [normalised(state, doubled, _following(up), mode), nn.ReLU()]
    return steps


def build_blocks(
    state: State, prefixes: Sequence[str], layout: BlockLayout, mode: NormMode | None, drops: Sequence[nn.Module]
) -> list[nn.Module]:
    """The residual blocks under `prefixes`, with what each drops between its convolutions."""
    blocks: list[nn.Module] = []
    for prefix, drop in zip(prefixes, drops, strict=True):
        halves = []
        for index in (layout.first, layout.second):
            name = f"{prefix}.conv_block.{index}"
            convolution = build_convolution(state, name, padding=1, padding_mode=layout.padding)
            halves.append(normalised(state, convolution, _following(name), mode))
        blocks.append(ResidualBlock(halves[0], halves[1], drop))
    return blocks


def build_last(state: State, prefix: str) -> list[nn.Module]:
    """The last convolution and its tanh."""
    return [build_convolution(state, prefix, padding=3, padding_mode="reflect"), nn.Tanh()]


def read_trunk(reading: Reading, prefix: str) -> Trunk:
    """Names of the trunk's parts among the steps `prefix.N`; raises StructureMismatch."""
    shapes = reading.shapes

    def name(step: int) -> str:
        return f"{prefix}.{step}"

    def convolve(step: int, *, kernel: int, inputs: int | None = None, outputs: int | None = None) -> tuple[int, int]:
        return reading.convolution(name(step), kernel=kernel, inputs=inputs, outputs=outputs, norm=name(step + 1))

    input_channels, ngf = convolve(1, kernel=7)
    step, width = 4, ngf
    downs, blur_down = [], []
    while shapes.get(f"{name(step)}.weight", ())[:2] == (2 * width, width):
        convolve(step, kernel=3, inputs=width, outputs=2 * width)
        width *= 2
        downs.append(name(step))
        step += 3
        blur = _filter(reading, name(step), width, 3)
        blur_down.append(blur)
        step += blur is not None
    layout = read_block_layout(reading, name(step))
    blocks = []
    while any(key.startswith(f"{name(step)}.conv_block.") for key in shapes):
        read_block(reading, name(step), layout, width)
        blocks.append(name(step))
        step += 1
    ups, blur_up = [], []
    for _ in downs:
        blur = _filter(reading, name(step), width, 4)
        blur_up.append(blur)
        step += blur is not None
        reading.convolution(
            name(step), kernel=3, inputs=width, outputs=width // 2, transposed=blur is None, norm=name(step + 1)
        )
        width //= 2
        ups.append(name(step))
        step += 3
    return Trunk(
        first=name(1),
        downs=tuple(downs),
        blocks=tuple(blocks),
        layout=layout,
        ups=tuple(ups),
        blur_down=tuple(blur_down),
        blur_up=tuple(blur_up),
        input_channels=input_channels,
        ngf=ngf,
        next_step=step,
    )


def read_block_layout(reading: Reading, prefix: str) -> BlockLayout:
    """Which layout the residual block under `prefix` has; raises StructureMismatch."""
    indices = [index for index in range(8) if len(reading.shapes.get(f"{prefix}.conv_block.{index}.weight", ())) == 4]
    for layout in BLOCK_LAYOUTS:
        if indices == [layout.first, layout.second]:
            return layout
    if not indices:
        raise StructureMismatch(f"`{prefix}.conv_block` is missing: no residual block follows its halvings")
    raise StructureMismatch(f"`{prefix}.conv_block` has its convolutions at {indices}, which no known block has")


def read_block(reading: Reading, prefix: str, layout: BlockLayout, width: int) -> None:
    """Check one residual block; raises StructureMismatch."""
    for index in (layout.first, layout.second):
        name = f"{prefix}.conv_block.{index}"
        reading.convolution(name, kernel=3, inputs=width, outputs=width, norm=_following(name))


def _filter(reading: Reading, prefix: str, channels: int, size: int) -> str | None:
    name = f"{prefix}.filt"
    if name not in reading.shapes:
        return None
    reading.buffer(name, (channels, 1, size, size))
    return name


def _following(prefix: str) -> str:
    parent, _, step = prefix.rpartition(".")
    return f"{parent}.{int(step) + 1}"


def _read_structure(weights: Weights) -> _Structure:
    require_torch(weights)
    reading = Reading(weights.shapes)
    trunk = read_trunk(reading, "model")
    if len(trunk.downs) != _HALVINGS:
        raise StructureMismatch(f"it halves {len(trunk.downs)} times; the reference does {_HALVINGS} times")
    last = f"model.{trunk.next_step + 1}"
    _, output_channels = reading.convolution(last, kernel=7, inputs=trunk.ngf)
    reading.finish()
    if len(reading.normalised_biases) > 1:
        raise StructureMismatch("some of its convolutions have a bias and some have none")
    # Nothing stored is either instance normalisation without parameters or none at all. The reference gives its
    # convolutions a bias in the first case only.
    kind = read_norm_kind(
        weights.shapes, reading.norms, if_nothing_stored="instance" if True in reading.normalised_biases else "none"
    )
    return _Structure(trunk, last, output_channels, kind)


FAMILY = Family(
    name="junyanz_resnet",
    title="pytorch-CycleGAN-and-pix2pix, resnet_6blocks and resnet_9blocks; CycleGAN, CUT and FastCUT",
    recognised_by="`model.1` 7 x 7, `model.N.conv_block.1` and `.5` (`.6` with dropout), two halvings",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: the reference paints with each picture's own statistics",
    dropout="where the numbering shows it (`conv_block.6`), the reference drops half in each block, at test time too",
    native_size="256, or any multiple of 4 from 16",
    exact="blocks, widths, channels, kind of normalisation, biases, dropout, antialiasing filters",
    assumed="reflection and not replication padding (both have the same numbering), dark lines in RGB",
    source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix and "
    "https://github.com/taesungp/contrastive-unpaired-translation models/networks.py, ResnetGenerator",
)
