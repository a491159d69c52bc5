"""What a step minimises, beside the L1 distance of painting and photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sketchbridge_training.settings import GanLoss


def judging_loss(kind: GanLoss, on_photo: Tensor, on_painting: Tensor) -> Tensor:
    """What the discriminator minimises: telling photos (high) from paintings (low); a scalar, the mean of both halves.

    on_photo, on_painting: its verdicts, any equal shape, float. A discriminator that can't tell is at ln 2 = 0.69 for
    `bce`, 0.25 for `lsgan` and 1 for `hinge`.
    """
    real, fake = on_photo.float(), on_painting.float()
    if kind == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    return 0.5 * (_distance(kind, real, 1.0) + _distance(kind, fake, 0.0))


def fooling_loss(kind: GanLoss, on_painting: Tensor) -> Tensor:
    """What the generator minimises: verdicts on its paintings that are unlike those on photos; a scalar."""
    fake = on_painting.float()
    return -fake.mean() if kind == "hinge" else _distance(kind, fake, 1.0)


def feature_loss(of_photo: Sequence[Tensor], of_painting: Sequence[Tensor]) -> Tensor:
    """Mean L1 distance of the discriminator's features, averaged over its layers; the photos' are taken as constants.

    Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018,
    section 3.3.
    """
    pairs = zip(of_photo, of_painting, strict=True)
    return torch.stack([functional.l1_loss(fake.float(), real.detach().float()) for real, fake in pairs]).mean()


def _distance(kind: GanLoss, verdicts: Tensor, target: float) -> Tensor:
    wanted = torch.full_like(verdicts, target)
    if kind == "lsgan":
        return functional.mse_loss(verdicts, wanted)
    return functional.binary_cross_entropy_with_logits(verdicts, wanted)
