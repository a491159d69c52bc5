"""fastai 2's DynamicUnet around a ResNet, with its own key names: the oracle of test_fastai_unet.

Written from the structure that fastai documents, apart from the exporter's: hooks, numbered layers and all. Compared
once with fastai 2.8.12 itself: the same names, shapes and outputs for each of the kinds below.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import interpolate, softmax
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

Norm = Literal["batch", "instance", "weight", "spectral"] | None


@dataclass(frozen=True)
class Kind:
    """norm: fastai's norm_type. relu_first: its bn_1st=False. modern: weight norm as a parametrization."""

    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    widths: tuple[int, int, int, int] = (8, 8, 16, 24)
    stem: int = 8
    bottleneck: bool = False
    channels: tuple[int, int] = (3, 3)
    norm: Norm = None
    relu_first: bool = False
    self_attention: bool = False
    last_cross: bool = True
    modern: bool = False


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu(y)
        return result


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu(y)
        return result


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def body(kind: Kind) -> nn.Sequential:
    """torchvision's ResNet without its last two children."""
    layers: list[nn.Module] = [
        nn.Conv2d(kind.channels[0], kind.stem, 7, 2, 3, bias=False),
        nn.BatchNorm2d(kind.stem),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = kind.stem
    for stage, (blocks, width) in enumerate(zip(kind.blocks, kind.widths, strict=True)):
        stages = []
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            stages.append((Bottleneck if kind.bottleneck else BasicBlock)(inputs, width, stride))
            inputs = width
        layers.append(nn.Sequential(*stages))
    return nn.Sequential(*layers)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Sequential(spectral_norm(nn.Conv1d(channels, outputs, 1, bias=False)))
            for outputs in (channels // 8, channels // 8, channels)
        )
        self.gamma = nn.Parameter(torch.tensor([0.7]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.view(*x.shape[:2], -1)
        f, g, h = self.query(flat), self.key(flat), self.value(flat)
        beta = softmax(torch.bmm(f.transpose(1, 2), g), dim=1)
        return (self.gamma * torch.bmm(h, beta) + flat).view(*x.shape)


def conv_layer(
    kind: Kind, inputs: int, outputs: int, *, size: int = 3, relu: bool = True, attention: bool = False
) -> nn.Sequential:
    normalised = kind.norm in ("batch", "instance")
    conv: nn.Module = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=not normalised)
    if kind.norm == "weight" and kind.modern:
        conv = parametrizations.weight_norm(conv)
    elif kind.norm == "weight":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have the other one; fastai has this
            conv = weight_norm(conv)
    elif kind.norm == "spectral":
        conv = parametrizations.spectral_norm(conv) if kind.modern else spectral_norm(conv)
    rest: list[nn.Module] = []
    if normalised:
        rest.append(nn.BatchNorm2d(outputs) if kind.norm == "batch" else nn.InstanceNorm2d(outputs, affine=True))
    if relu:
        rest.insert(0 if kind.relu_first else len(rest), nn.ReLU())
    return nn.Sequential(conv, *rest, *([Attention(outputs)] if attention else []))


def shuffle(kind: Kind, inputs: int, outputs: int, *, blur: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [conv_layer(_default_place(kind), inputs, outputs * 4, size=1), nn.PixelShuffle(2)]
    if blur:
        layers += [nn.ReplicationPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, stride=1)]
    return nn.Sequential(*layers)


def _default_place(kind: Kind) -> Kind:
    """fastai hands bn_1st to all layers but these."""
    return Kind(norm=kind.norm, modern=kind.modern)


class UnetBlock(nn.Module):
    stored: torch.Tensor

    def __init__(self, kind: Kind, below: int, skip: int, hooked: nn.Module, *, last: bool, attention: bool) -> None:
        super().__init__()
        hooked.register_forward_hook(self._store)
        self.shuf = shuffle(kind, below, below // 2)
        self.bn = nn.BatchNorm2d(skip)
        joined = below // 2 + skip
        self.width = joined // 2 if last else joined
        self.conv1 = conv_layer(kind, joined, self.width)
        self.conv2 = conv_layer(kind, self.width, self.width, attention=attention)
        self.relu = nn.ReLU()

    def _store(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self.stored = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = self.shuf(x)
        if self.stored.shape[-2:] != up.shape[-2:]:
            up = interpolate(up, self.stored.shape[-2:], mode="nearest")
        result: torch.Tensor = self.conv2(self.conv1(self.relu(torch.cat([up, self.bn(self.stored)], dim=1))))
        return result


class ResBlock(nn.Module):
    def __init__(self, kind: Kind, channels: int) -> None:
        super().__init__()
        self.convpath = nn.Sequential(
            conv_layer(kind, channels, channels), conv_layer(kind, channels, channels, relu=False)
        )
        self.idpath = nn.Sequential()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act(self.convpath(x) + self.idpath(x))
        return result


class Resize(nn.Module):
    """Stands where fastai resizes to the network's input, which the network itself does here."""


class Merge(nn.Module):
    """Stands where fastai concatenates the network's input, which the network itself does here."""


class DynamicUnet(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        encoder = body(kind)
        width = kind.widths[-1]
        layers: list[nn.Module] = [
            encoder,
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Sequential(conv_layer(kind, width, 2 * width), conv_layer(kind, 2 * width, width)),
        ]
        for number, (index, skip) in enumerate(
            ((6, kind.widths[2]), (5, kind.widths[1]), (4, kind.widths[0]), (2, kind.stem))
        ):
            attention = kind.self_attention and number == 1
            block = UnetBlock(kind, width, skip, encoder[index], last=number == 3, attention=attention)
            layers.append(block)
            width = block.width
        layers += [shuffle(kind, width, width), Resize()]
        if kind.last_cross:
            width += kind.channels[0]
            layers += [Merge(), ResBlock(kind, width)]
        layers.append(conv_layer(kind, width, kind.channels[1], size=1, relu=False))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        original = x
        for layer in self.layers:
            if isinstance(layer, Resize):
                if x.shape[-2:] != original.shape[-2:]:
                    x = interpolate(x, original.shape[-2:], mode="nearest")
            elif isinstance(layer, Merge):
                x = torch.cat([x, original], dim=1)
            else:
                x = layer(x)
        return x
