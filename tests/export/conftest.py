"""The networks that checkpoints come from, with their own key names: the oracle of these tests.

They are written from their repositories' descriptions, apart from the exporter's, in-place activations included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

NormFactory = Callable[[int], nn.Module]
Pictures = NDArray[np.uint8]

BATCH: NormFactory = nn.BatchNorm2d
INSTANCE: NormFactory = partial(nn.InstanceNorm2d, affine=False)
INSTANCE_AFFINE: NormFactory = partial(nn.InstanceNorm2d, affine=True)


class Level(nn.Module):
    """One level of the pix2pix U-Net, holding the next level inside; its keys are `model.<step>.<...>`."""

    def __init__(
        self, outer: int, inner: int, *, norm: NormFactory, bias: bool, inside: nn.Module | None, dropout: bool = False
    ) -> None:
        super().__init__()
        ends = 1 if inside is None else 2
        steps: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
        if inside is not None:
            steps += [norm(inner), inside]
        steps += [nn.ReLU(inplace=True), nn.ConvTranspose2d(inner * ends, outer, 4, 2, 1, bias=bias), norm(outer)]
        if dropout:
            steps.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.model(x)], 1)  # the first step has changed x by the time it is concatenated


class Outermost(nn.Module):
    def __init__(self, channels: tuple[int, int], width: int, *, bias: bool, inside: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels[0], width, 4, 2, 1, bias=bias),
            inside,
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, channels[1], 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result


class Pix2PixUNet(nn.Module):
    def __init__(
        self,
        *,
        downs: int,
        ngf: int,
        norm: NormFactory = BATCH,
        channels: tuple[int, int] = (3, 3),
        dropout: bool = True,
    ) -> None:
        super().__init__()
        bias = norm is not BATCH
        widest = 8 * ngf
        inside = Level(widest, widest, norm=norm, bias=bias, inside=None)
        for _ in range(downs - 5):
            inside = Level(widest, widest, norm=norm, bias=bias, inside=inside, dropout=dropout)
        for factor in (4, 2, 1):
            inside = Level(factor * ngf, 2 * factor * ngf, norm=norm, bias=bias, inside=inside)
        self.model = Outermost(channels, ngf, bias=bias, inside=inside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class RenderXUNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.encoder = nn.ModuleList(_block(a, b) for a, b in zip(inputs, widths, strict=True))
        self.bottleneck = _block(widths[-1], bottleneck)
        self.decoder = nn.ModuleList()
        for below, width in zip((bottleneck, *widths[:0:-1]), widths[::-1], strict=True):
            self.decoder.append(nn.ConvTranspose2d(below, width, 4, 2, 1, output_padding=1))
            self.decoder.append(_block(2 * width, width))
        self.final_layer = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for index in range(0, len(self.decoder), 2):
            x = self.decoder[index](x)
            skip = skips.pop()
            x = nn.functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = self.decoder[index + 1](torch.cat((x, skip), 1))
        return torch.tanh(self.final_layer(x))


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give it weights that keep signals alive through all levels, and statistics and biases other than the initial."""
    numbers = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=numbers) * (high - low) + low)

    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = part.weight[0].numel() if isinstance(part, nn.Conv2d) else 4 * part.weight.shape[0]
                part.weight.copy_(torch.randn(part.weight.shape, generator=numbers) * (2 / fan_in) ** 0.5)
                if part.bias is not None:
                    uniform(part.bias, -0.2, 0.2)
            elif isinstance(part, nn.BatchNorm2d | nn.InstanceNorm2d):
                if part.affine:
                    uniform(part.weight, 0.5, 1.5)
                    uniform(part.bias, -0.3, 0.3)
                if part.running_mean is not None and part.running_var is not None:
                    uniform(part.running_mean, -0.3, 0.3)
                    uniform(part.running_var, 0.5, 2.0)
    return network


def use_own_statistics(network: nn.Module) -> nn.Module:
    """A copy that paints as the pix2pix reference does: normalisation in training mode, but no dropout."""
    network = copy.deepcopy(network).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
    return network


def paint(network: nn.Module, pictures: Pictures, *, size: int = 256) -> Pictures:
    """Each picture alone through the bare network: (P, 256, 256, 3) uint8 RGB -> the same."""
    gray = next(iter(network.parameters())).shape[1] == 1
    painted = []
    for picture in pictures:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        if gray:
            assert (picture == picture[..., :1]).all(), "the oracle leaves colour to other tests"
            x = x[:, :1]
        x = (x / 255 - 0.5) / 0.5
        x = nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        with torch.no_grad():
            y = network(x)
        y = nn.functional.interpolate(y, size=(256, 256), mode="bilinear", align_corners=False)
        levels = ((y + 1) / 2 * 255).round().clamp(0, 255).expand(1, 3, 256, 256)
        painted.append(levels[0].permute(1, 2, 0).numpy().astype(np.uint8))
    return np.stack(painted)


@pytest.fixture(scope="session")
def small_unet() -> nn.Module:
    """unet_256 with ngf 4 and batch normalisation."""
    return randomise(Pix2PixUNet(downs=8, ngf=4))


@pytest.fixture(scope="session")
def small_checkpoint(small_unet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of small_unet, as the reference saves them."""
    path = tmp_path_factory.mktemp("checkpoint") / "latest_net_G.pth"
    torch.save(small_unet.state_dict(), path)
    return path
