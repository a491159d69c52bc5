"""The two networks of pix2pix: a U-Net that paints and a PatchGAN that judges.

Source: Isola, Zhu, Zhou and Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
appendix 6.1. Parameter names follow the layout that pytorch-CycleGAN-and-pix2pix made common
(`model.model.1.model...`), so that a checkpoint trained here is exported by the same family as anybody's.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sketchbridge_training.settings import check_count


class _Skip(nn.Module):
    """One level of the U: halve, go deeper, double, and put the input beside the result."""

    def __init__(self, outer: int, inner: int, deeper: nn.Module | None, *, dropout: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.LeakyReLU(0.2),
            nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=False),
        ]
        if deeper is not None:
            layers += [nn.BatchNorm2d(inner), deeper]
        layers += [
            nn.ReLU(),
            nn.ConvTranspose2d(inner if deeper is None else 2 * inner, outer, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),
        ]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, cast("Tensor", self.model(features))], dim=1)


class _Outermost(nn.Module):
    def __init__(self, channels: int, width: int, deeper: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False),
            deeper,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.model(image))


class UNetGenerator(nn.Module):
    """U-Net of `levels` halvings with `ngf` features in the first and at most 8 * ngf.

    forward: (N, 3, S, S) float in [-1, 1] -> the same shape and range; S a multiple of 2**levels (256 for 8 levels).
    The `levels` - 5 full-width levels above the deepest have dropout 0.5 on the way up in training, as in the paper.
    """

    def __init__(self, *, ngf: int = 64, levels: int = 8) -> None:
        """ngf: at least 1. levels: at least 5. Raises OptionInvalid."""
        super().__init__()
        check_count("ngf", ngf, least=1)
        check_count("levels", levels, least=5)
        block: nn.Module = _Skip(8 * ngf, 8 * ngf, None, dropout=False)
        for _ in range(levels - 5):
            block = _Skip(8 * ngf, 8 * ngf, block, dropout=True)
        for factor in (4, 2, 1):
            block = _Skip(factor * ngf, 2 * factor * ngf, block, dropout=False)
        self.model = _Outermost(3, ngf, block)
        self.apply(_initialise)

    def forward(self, sketch: Tensor) -> Tensor:
        """Paint; shapes and ranges as in the class. Raises RuntimeError from torch for other sizes."""
        return cast("Tensor", self.model(sketch))


class PatchDiscriminator(nn.Module):
    """The 70x70 PatchGAN: judges every patch of a (sketch, photo) pair.

    forward: two (N, 3, S, S) floats in [-1, 1] -> (N, 1, S/8 - 2, S/8 - 2) verdicts, higher for real, and the features
    of the four layers before them: ndf to 8 * ndf channels, sides S/2, S/4, S/8 and S/8 - 1.
    """

    def __init__(self, *, ndf: int = 64, spectral_norm: bool = False) -> None:
        """ndf: features in the first layer, at least 1. spectral_norm: in place of batch normalisation.

        Raises OptionInvalid.
        """
        super().__init__()
        check_count("ndf", ndf, least=1)
        blocks = [nn.Sequential(nn.Conv2d(6, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2))]
        for factor, stride in ((1, 2), (2, 2), (4, 1)):
            convolution = nn.Conv2d(factor * ndf, 2 * factor * ndf, 4, stride=stride, padding=1, bias=spectral_norm)
            norm = nn.Identity() if spectral_norm else nn.BatchNorm2d(2 * factor * ndf)
            blocks.append(nn.Sequential(convolution, norm, nn.LeakyReLU(0.2)))
        self.blocks = nn.ModuleList(blocks)
        self.verdict = nn.Conv2d(8 * ndf, 1, 4, padding=1)
        self.apply(_initialise)
        if spectral_norm:
            for module in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                nn.utils.parametrizations.spectral_norm(module)

    def forward(self, sketch: Tensor, photo: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge; shapes and ranges as in the class."""
        features: list[Tensor] = []
        current = torch.cat([sketch, photo], dim=1)
        for block in self.blocks:
            current = block(current)
            features.append(current)
        return cast("Tensor", self.verdict(current)), features


def _initialise(module: nn.Module) -> None:
    """Gaussian weights of deviation 0.02, as in section 3.3 of the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
