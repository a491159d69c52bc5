"""More networks that torch checkpoints come from, with their own key names.

Like those in conftest.py they are written from their repositories' descriptions, apart from the exporter's code.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from tests.export.conftest import BATCH, NormFactory


def _no_norm(_: int) -> nn.Module:
    return nn.Identity()


NO_NORM: NormFactory = _no_norm


class ResnetBlock(nn.Module):
    """pytorch-CycleGAN-and-pix2pix's and pix2pixHD's; padding "reflect" or "zero"."""

    def __init__(self, width: int, *, norm: NormFactory, bias: bool, dropout: bool, padding: str) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for half in range(2):
            if padding == "reflect":
                steps.append(nn.ReflectionPad2d(1))
            steps += [nn.Conv2d(width, width, 3, padding=int(padding == "zero"), bias=bias), norm(width)]
            if half == 0:
                steps.append(nn.ReLU(True))
                if dropout:
                    steps.append(nn.Dropout(0.5))
        self.conv_block = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.conv_block(x)
        return result


def _binomial(channels: int, taps: list[float], gain: float) -> torch.Tensor:
    row = torch.tensor(taps)
    kernel = row[:, None] * row[None, :]
    return (gain * kernel / kernel.sum())[None, None].repeat(channels, 1, 1, 1)


class Downsample(nn.Module):
    """CUT's: blur with 1 2 1, keep every second pixel."""

    filt: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial(channels, [1.0, 2.0, 1.0], 1.0))
        self.pad = nn.ReflectionPad2d((1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])


class Upsample(nn.Module):
    """CUT's: put zeros between, blur with 1 3 3 1."""

    filt: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial(channels, [1.0, 3.0, 3.0, 1.0], 4.0))
        self.pad = nn.ReplicationPad2d((1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=2, groups=x.shape[1])
        return y[:, :, 1:, 1:][:, :, :-1, :-1]


class ResnetGenerator(nn.Module):
    """pytorch-CycleGAN-and-pix2pix's; with `antialias` CUT's."""

    def __init__(
        self,
        *,
        ngf: int,
        blocks: int,
        norm: NormFactory = BATCH,
        channels: tuple[int, int] = (3, 3),
        dropout: bool = False,
        padding: str = "reflect",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        bias = norm not in (BATCH, NO_NORM)
        steps: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], ngf, 7, bias=bias), norm(ngf)]
        steps.append(nn.ReLU(True))
        for width in (ngf, 2 * ngf):
            stride = 1 if antialias else 2
            steps += [nn.Conv2d(width, 2 * width, 3, stride, 1, bias=bias), norm(2 * width), nn.ReLU(True)]
            if antialias:
                steps.append(Downsample(2 * width))
        for _ in range(blocks):
            steps.append(ResnetBlock(4 * ngf, norm=norm, bias=bias, dropout=dropout, padding=padding))
        for width in (4 * ngf, 2 * ngf):
            if antialias:
                steps += [Upsample(width), nn.Conv2d(width, width // 2, 3, 1, 1, bias=bias)]
            else:
                steps.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=bias))
            steps += [norm(width // 2), nn.ReLU(True)]
        steps += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, channels[1], 7), nn.Tanh()]
        self.model = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result


def _hd_steps(channels: tuple[int, int], ngf: int, downs: int, blocks: int, norm: NormFactory) -> list[nn.Module]:
    steps: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], ngf, 7), norm(ngf), nn.ReLU(True)]
    for level in range(downs):
        width = ngf * 2**level
        steps += [nn.Conv2d(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU(True)]
    for _ in range(blocks):
        steps.append(ResnetBlock(ngf * 2**downs, norm=norm, bias=True, dropout=False, padding="reflect"))
    for level in range(downs, 0, -1):
        width = ngf * 2**level
        steps.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1))
        steps += [norm(width // 2), nn.ReLU(True)]
    return [*steps, nn.ReflectionPad2d(3), nn.Conv2d(ngf, channels[1], 7), nn.Tanh()]


class GlobalGenerator(nn.Module):
    """pix2pixHD's; with no blocks it is pix2pixHD's feature encoder."""

    def __init__(
        self, *, ngf: int, downs: int, blocks: int, norm: NormFactory, channels: tuple[int, int] = (3, 3)
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(*_hd_steps(channels, ngf, downs, blocks, norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result


class LocalEnhancer(nn.Module):
    """pix2pixHD's, with any number of enhancers."""

    def __init__(
        self,
        *,
        ngf: int,
        downs: int,
        blocks: int,
        enhancers: int,
        local_blocks: int,
        norm: NormFactory,
        channels: tuple[int, int] = (3, 3),
    ) -> None:
        super().__init__()
        self.enhancers = enhancers
        self.model = nn.Sequential(*_hd_steps(channels, ngf * 2**enhancers, downs, blocks, norm)[:-3])
        for number in range(1, enhancers + 1):
            width = ngf * 2 ** (enhancers - number)
            before = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], width, 7), norm(width), nn.ReLU(True)]
            before += [nn.Conv2d(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU(True)]
            after: list[nn.Module] = [
                ResnetBlock(2 * width, norm=norm, bias=True, dropout=False, padding="reflect")
                for _ in range(local_blocks)
            ]
            after += [nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1), norm(width), nn.ReLU(True)]
            if number == enhancers:
                after += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, channels[1], 7), nn.Tanh()]
            self.add_module(f"model{number}_1", nn.Sequential(*before))
            self.add_module(f"model{number}_2", nn.Sequential(*after))
        self.downsample = nn.AvgPool2d(3, stride=2, padding=(1, 1), count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pyramid = [x]
        for _ in range(self.enhancers):
            pyramid.append(self.downsample(pyramid[-1]))
        y: torch.Tensor = self.model(pyramid[-1])
        for number in range(1, self.enhancers + 1):
            before = self.get_submodule(f"model{number}_1")
            after = self.get_submodule(f"model{number}_2")
            y = after(before(pyramid[self.enhancers - number]) + y)
        return y


class AladdinBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, down: bool, dropout: bool = False) -> None:
        super().__init__()
        convolution = (
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False, padding_mode="reflect")
            if down
            else nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
        )
        self.conv = nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2) if down else nn.ReLU())
        self.use_dropout = dropout
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.dropout(x) if self.use_dropout else x


class AladdinGenerator(nn.Module):
    def __init__(self, *, features: int, channels: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        widest = 8 * features
        widths = [features, 2 * features, 4 * features, widest, widest, widest, widest]
        self.initial_down = nn.Sequential(
            nn.Conv2d(channels[0], features, 4, 2, 1, padding_mode="reflect"), nn.LeakyReLU(0.2)
        )
        for level in range(1, 7):
            self.add_module(f"down{level}", AladdinBlock(widths[level - 1], widths[level], down=True))
        self.bottleneck = nn.Sequential(nn.Conv2d(widest, widest, 4, 2, 1), nn.ReLU())
        inputs = widest
        for level in range(1, 8):
            width = widths[7 - level]
            self.add_module(f"up{level}", AladdinBlock(inputs, width, down=False, dropout=level <= 3))
            inputs = 2 * width
        self.final_up = nn.Sequential(nn.ConvTranspose2d(inputs, channels[1], 4, 2, 1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.initial_down(x)]
        for level in range(1, 7):
            features.append(self.get_submodule(f"down{level}")(features[-1]))
        y = self.get_submodule("up1")(self.bottleneck(features[-1]))
        for level in range(2, 8):
            y = self.get_submodule(f"up{level}")(torch.cat([y, features.pop()], 1))
        result: torch.Tensor = self.final_up(torch.cat([y, features.pop()], 1))
        return result


class UNetDown(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, normalize: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)]
        if normalize:
            steps.append(nn.InstanceNorm2d(outputs))
        steps.append(nn.LeakyReLU(0.2))
        if dropout:
            steps.append(nn.Dropout(dropout))
        self.model = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result


class UNetUp(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        steps: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        if dropout:
            steps.append(nn.Dropout(dropout))
        self.model = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.model(x), skip), 1)


class GeneratorUNet(nn.Module):
    """eriklindernoren's."""

    def __init__(self, *, width: int, channels: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, *[8 * width] * 5]
        inputs = channels[0]
        for level, outputs in enumerate(widths, start=1):
            down = UNetDown(inputs, outputs, normalize=level not in (1, 8), dropout=0.5 if level >= 4 else 0.0)
            self.add_module(f"down{level}", down)
            inputs = outputs
        for level in range(1, 8):
            outputs = widths[7 - level]
            self.add_module(f"up{level}", UNetUp(inputs, outputs, dropout=0.5 if level <= 4 else 0.0))
            inputs = 2 * outputs
        self.final = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.ZeroPad2d((1, 0, 1, 0)),
            nn.Conv2d(inputs, channels[1], 4, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        for level in range(1, 9):
            x = self.get_submodule(f"down{level}")(x)
            features.append(x)
        features.pop()
        for level in range(1, 8):
            x = self.get_submodule(f"up{level}")(x, features.pop())
        result: torch.Tensor = self.final(x)
        return result


class Plain(nn.Module):
    """A generator that is one list of steps, under a name of its author's choosing."""

    def __init__(self, name: str, *steps: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Sequential(*steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.get_submodule(self.name)(x)
        return result


class EncoderDecoder(nn.Module):
    def __init__(self, encoder: list[nn.Module], decoder: list[nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.decoder(self.encoder(x))
        return result


def encoding_steps(*widths: int, norm: bool = True, slope: float = 0.2) -> list[nn.Module]:
    """Halvings from widths[0] channels to widths[-1]; the first has no norm, as in DCGAN and pix2pix."""
    steps: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        steps.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm or index == 0))
        if norm and index > 0:
            steps.append(nn.BatchNorm2d(outputs))
        steps.append(nn.LeakyReLU(slope, inplace=True))
    return steps


def decoding_steps(*widths: int, norm: bool = True, dropout: int = 0, last: nn.Module | None = None) -> list[nn.Module]:
    """Doublings from widths[0] channels to widths[-1]. dropout: how many of them drop half before their ReLU."""
    steps: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        final = index == len(widths) - 2
        steps.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=final or not norm))
        if final:
            steps.append(last or nn.Tanh())
            continue
        if norm:
            steps.append(nn.BatchNorm2d(outputs))
        if index < dropout:
            steps.append(nn.Dropout(0.5))
        steps.append(nn.ReLU(inplace=True))
    return steps


class PatchDiscriminator(nn.Module):
    """pix2pix's; without a condition it takes three channels, as CycleGAN's does."""

    def __init__(self, *, inputs: int, ndf: int) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(inputs, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for width, stride in ((ndf, 2), (2 * ndf, 2), (4 * ndf, 1)):
            steps += [nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False), nn.BatchNorm2d(2 * width)]
            steps.append(nn.LeakyReLU(0.2, True))
        self.model = nn.Sequential(*steps, nn.Conv2d(8 * ndf, 1, 4, 1, 1))


class LatentGenerator(nn.Module):
    """DCGAN's."""

    def __init__(self, *, latent: int, ngf: int) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.ConvTranspose2d(latent, 8 * ngf, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * ngf)]
        self.main = nn.Sequential(*steps, nn.ReLU(True), *decoding_steps(8 * ngf, 4 * ngf, 2 * ngf, ngf, 3))
