"""Differentiable augmentation of what the discriminator sees.

Paintings and photos are changed alike, so the generator is not asked to paint the changes; yet a discriminator that
never sees a photo twice the same way can't learn a few hundred of them by heart.

Source: Zhao, Liu, Lin, Zhu and Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020. Their
ranges are used: brightness +-0.5, saturation x [0, 2], contrast x [0.5, 1.5], shifts of an eighth of a side, and a hole
of half a side. Drawing and picture are moved and holed together, because the discriminator judges how they fit;
only the picture's colours are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn import functional

from sketchbridge_training.settings import Augmentation

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def draw_augment(policy: Collection[Augmentation], *, batch: int, side: int, random: torch.Generator) -> Augment:
    """A random change for each of `batch` pairs, to be applied to the photos and the paintings of one step.

    The result takes a (drawings, pictures) pair of (batch, 3, side, side) floats in [-1, 1] and returns such a pair, of
    which values may leave the range; it has no chance left in it. random: a generator on the CPU.
    """
    if not policy:
        return lambda drawings, pictures: (drawings, pictures)
    brightness, saturation, contrast = torch.rand(3, batch, 1, 1, 1, generator=random)
    reach = round(side / 8)
    corners = torch.randint(0, 2 * reach + 1, (batch, 2), generator=random).tolist()
    holes = torch.randint(0, side, (batch, 2), generator=random).tolist()
    half = side // 4
    kept = torch.ones(batch, 1, side, side)
    for number, (row, column) in enumerate(holes):
        kept[number, :, max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0

    def move(images: Tensor) -> Tensor:
        padded = functional.pad(images, (reach,) * 4)
        cuts = [
            image[:, top : top + side, left : left + side] for image, (top, left) in zip(padded, corners, strict=True)
        ]
        return torch.stack(cuts)

    def augment(drawings: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        if "colour" in policy:
            pictures = _recolour(pictures, *(c.to(pictures.device) for c in (brightness, saturation, contrast)))
        if "translation" in policy:
            drawings, pictures = move(drawings), move(pictures)
        if "cutout" in policy:
            mask = kept.to(pictures.device)
            drawings, pictures = drawings * mask, pictures * mask
        return drawings, pictures

    return augment


def _recolour(pictures: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    pictures = pictures + (brightness - 0.5)
    gray = pictures.mean(dim=1, keepdim=True)
    pictures = (pictures - gray) * (2 * saturation) + gray
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    return (pictures - mean) * (contrast + 0.5) + mean
