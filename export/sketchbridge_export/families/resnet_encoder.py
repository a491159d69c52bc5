"""torchvision's ResNets without their classifier, as encoders of U-Nets: what smp.Unet and fastai's DynamicUnet share.

Block kinds, block counts, widths and groups are read from the shapes, so every ResNet, Wide ResNet and ResNeXt of
torchvision's is taken. Where a stage shrinks the picture is not in the weights: torchvision does it in the first 3 x 3
convolution of the second, third and fourth stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import NormMode, Shapes, State
from sketchbridge_export.families.layers import (
    NORM_SUFFIXES,
    NormalisedConvolution,
    StructureMismatch,
    build_norm,
    convolution_weights,
    norm_keys,
    norm_tensor_names,
    require_shape,
)

BATCH_NORM_KEYS = frozenset(NORM_SUFFIXES[:4])
DEEPEST = 5  # times that a ResNet halves its picture

_WIDTHS_BASIC = (64, 64, 128, 256, 512)
_WIDTHS_BOTTLENECK = (64, 256, 512, 1024, 2048)
# Bottlenecks?, blocks a stage, groups, first inner width -> torchvision's name. For people only.
_TITLES: dict[tuple[bool, tuple[int, ...], int, int], str] = {
    (False, (2, 2, 2, 2), 1, 64): "resnet18",
    (False, (3, 4, 6, 3), 1, 64): "resnet34",
    (True, (3, 4, 6, 3), 1, 64): "resnet50",
    (True, (3, 4, 23, 3), 1, 64): "resnet101",
    (True, (3, 8, 36, 3), 1, 64): "resnet152",
    (True, (3, 4, 6, 3), 1, 128): "wide_resnet50_2",
    (True, (3, 4, 23, 3), 1, 128): "wide_resnet101_2",
    (True, (3, 4, 6, 3), 32, 128): "resnext50_32x4d",
    (True, (3, 4, 23, 3), 32, 256): "resnext101_32x8d",
}


@dataclass(frozen=True)
class EncoderNames:
    """What a code base calls the parts of its ResNet, without the trailing `.weight`; inside stages all agree."""

    stem: str
    stem_norm: str
    stages: tuple[str, str, str, str]


@dataclass(frozen=True)
class EncoderStructure:
    """A ResNet as its shapes tell it.

    blocks: their number in each of the four stages. widths: channels after the stem and after each stage.
    groups: of the bottlenecks' 3 x 3 convolutions. title: torchvision's name where it has one.
    """

    names: EncoderNames
    bottleneck: bool
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    groups: int
    input_channels: int
    title: str


class ResidualBlock(nn.Module):
    """Convolutions with ReLU between them, whose result is added to the block's input before the last ReLU."""

    def __init__(self, path: Sequence[NormalisedConvolution], shortcut: nn.Module) -> None:
        super().__init__()
        self.path = nn.ModuleList(path)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        y = x
        for convolution in list(self.path)[:-1]:
            y = functional.relu(convolution(y))
        return functional.relu(self.path[-1](y) + self.shortcut(x))


class ResNetEncoder(nn.Module):
    """(N, C, H, W) -> what the stem and the stages make of it, halved each time: the stem's first."""

    def __init__(self, stem: NormalisedConvolution, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """See the class."""
        features = [functional.relu(self.stem(x))]
        x = functional.max_pool2d(features[0], 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def read_encoder(shapes: Shapes, names: EncoderNames) -> tuple[EncoderStructure, set[str]]:
    """The ResNet under `names`, and the names of its tensors. Raises StructureMismatch if that is no ResNet."""
    stem = require_shape(shapes, f"{names.stem}.weight", {2: 7, 3: 7})
    widths = [stem[0]]
    explained = {f"{names.stem}.weight"} | _batch_norm_names(shapes, names.stem_norm, stem[0])
    bottleneck = f"{names.stages[0]}.0.conv3.weight" in shapes
    blocks: list[int] = []
    for index, stage in enumerate(names.stages):
        block = 0
        while block == 0 or f"{stage}.{block}.conv1.weight" in shapes:
            first = block == 0
            shrinks = first and index > 0
            width, found = _read_block(shapes, f"{stage}.{block}", widths[-1], bottleneck=bottleneck, shrinks=shrinks)
            if first:
                widths.append(width)
            elif width != widths[-1]:
                raise StructureMismatch(f"`{stage}.{block}` has {width} channels in a stage of {widths[-1]}")
            explained |= found
            block += 1
        blocks.append(block)
    inner = shapes[f"{names.stages[0]}.0.conv2.weight"]
    groups = inner[0] // inner[1] if bottleneck else 1
    usual = tuple(widths) == (_WIDTHS_BOTTLENECK if bottleneck else _WIDTHS_BASIC)
    title = _TITLES.get((bottleneck, tuple(blocks), groups, inner[0])) if usual else None
    if title is None:
        title = f"ResNet of {'-'.join(map(str, blocks))} {'bottleneck' if bottleneck else 'basic'} blocks"
    structure = EncoderStructure(names, bottleneck, tuple(blocks), tuple(widths), groups, stem[1], title)
    return structure, explained


def build_encoder(state: State, found: EncoderStructure, mode: NormMode, *, stages: int = 4) -> ResNetEncoder:
    """The encoder with these weights and only the first of its stages, `stages` many."""
    names = found.names
    kept = []
    for index, stage in enumerate(names.stages[:stages]):
        blocks = [
            _build_block(state, f"{stage}.{block}", found, mode, stride=2 if index > 0 and block == 0 else 1)
            for block in range(found.blocks[index])
        ]
        kept.append(nn.Sequential(*blocks))
    return ResNetEncoder(build_normalised(state, names.stem, names.stem_norm, mode, stride=2), kept)


def build_normalised(
    state: State, name: str, norm: str | None, mode: NormMode, *, stride: int = 1, groups: int = 1
) -> NormalisedConvolution:
    """The convolution called `name`, padded to keep the picture's size, with the normalisation called `norm`.

    A normalisation without running statistics takes each picture's own, whatever `mode` says.
    """
    own = convolution_weights(state, name)
    outputs, inputs, kernel = own["weight"].shape[:3]
    convolution = nn.Conv2d(
        inputs * groups, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias="bias" in own
    )
    convolution.load_state_dict(own)
    if norm is None:
        return NormalisedConvolution(convolution, nn.Identity())
    if f"{norm}.running_mean" not in state:
        mode = "instance"
    return NormalisedConvolution(convolution, build_norm(state, norm, outputs, mode))


def require_filled(shapes: Shapes) -> None:
    """Raise StructureMismatch if a tensor has an axis of length 0: nothing could be read from its other axes."""
    for key, shape in shapes.items():
        if 0 in shape:
            raise StructureMismatch(f"`{key}` is {shape}: it holds no values")


def smallest_side(depth: int, mode: NormMode) -> int:
    """The least side in pixels that a network halving it `depth` times paints.

    Normalising with a picture's own statistics needs more than one value a channel: 2 x 2 pixels in the deepest level.
    """
    deepest_side = 2 if mode == "instance" else 1
    return deepest_side << depth


def _read_block(shapes: Shapes, name: str, inputs: int, *, bottleneck: bool, shrinks: bool) -> tuple[int, set[str]]:
    """The width of the block's result, and the names of its tensors."""
    if bottleneck:
        inner = require_shape(shapes, f"{name}.conv1.weight", {1: inputs, 2: 1, 3: 1})[0]
        grouped = require_shape(shapes, f"{name}.conv2.weight", {0: inner, 2: 3, 3: 3})[1]
        if inner % grouped:
            raise StructureMismatch(f"`{name}.conv2.weight` has {grouped} inputs, which don't divide {inner} channels")
        width = require_shape(shapes, f"{name}.conv3.weight", {1: inner, 2: 1, 3: 1})[0]
        steps = [(1, inner), (2, inner), (3, width)]
    else:
        width = require_shape(shapes, f"{name}.conv1.weight", {1: inputs, 2: 3, 3: 3})[0]
        require_shape(shapes, f"{name}.conv2.weight", {0: width, 1: width, 2: 3, 3: 3})
        steps = [(1, width), (2, width)]
    explained = {f"{name}.conv{step}.weight" for step, _ in steps}
    for step, channels in steps:
        explained |= _batch_norm_names(shapes, f"{name}.bn{step}", channels)
    if shrinks or width != inputs:
        require_shape(shapes, f"{name}.downsample.0.weight", {0: width, 1: inputs, 2: 1, 3: 1})
        explained |= {f"{name}.downsample.0.weight"} | _batch_norm_names(shapes, f"{name}.downsample.1", width)
    return width, explained


def _batch_norm_names(shapes: Shapes, name: str, channels: int) -> set[str]:
    stored = norm_keys(shapes, name)
    if stored != BATCH_NORM_KEYS:
        raise StructureMismatch(f"`{name}` holds {sorted(stored)}, not what a ResNet's batch normalisation does")
    return norm_tensor_names(shapes, name, channels)


def _build_block(state: State, name: str, found: EncoderStructure, mode: NormMode, *, stride: int) -> ResidualBlock:
    shrinking = 2 if found.bottleneck else 1  # the number of the first 3 x 3 convolution
    path = []
    for step in (1, 2, 3) if found.bottleneck else (1, 2):
        shape = state[f"{name}.conv{step}.weight"].shape
        path.append(
            build_normalised(
                state,
                f"{name}.conv{step}",
                f"{name}.bn{step}",
                mode,
                stride=stride if step == shrinking else 1,
                groups=shape[0] // shape[1] if found.bottleneck and step == 2 else 1,
            )
        )
    shortcut: nn.Module = nn.Identity()
    if f"{name}.downsample.0.weight" in state:
        shortcut = build_normalised(state, f"{name}.downsample.0", f"{name}.downsample.1", mode, stride=stride)
    return ResidualBlock(path, shortcut)
