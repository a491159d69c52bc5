"""The losses against closed forms, and the augmentation against what it says it does."""

from __future__ import annotations

import math

import pytest
import torch

from sketchbridge_training.diff_augment import draw_augment
from sketchbridge_training.losses import feature_loss, fooling_loss, judging_loss
from sketchbridge_training.settings import AUGMENTATIONS, GAN_LOSSES, Augmentation, GanLoss


@pytest.mark.parametrize(("kind", "expected"), [("bce", math.log(2)), ("lsgan", 0.25), ("hinge", 1.0)])
def test_a_discriminator_that_cannot_tell_is_where_the_documentation_says(kind: GanLoss, expected: float) -> None:
    undecided = torch.full((2, 1, 4, 4), 0.5 if kind == "lsgan" else 0.0)
    assert float(judging_loss(kind, undecided, undecided)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_what_one_network_wants_the_other_does_not(kind: GanLoss) -> None:
    high, low = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -2.0)
    assert judging_loss(kind, high, low) < judging_loss(kind, low, high)
    assert fooling_loss(kind, torch.ones(3)) < fooling_loss(kind, -torch.ones(3))


def test_feature_loss_is_the_mean_over_layers_of_mean_distances_and_leaves_the_photos_alone() -> None:
    real = [torch.zeros(1, 2, 4, 4, requires_grad=True), torch.zeros(1, 4, 2, 2, requires_grad=True)]
    fake = [torch.full((1, 2, 4, 4), 3.0, requires_grad=True), torch.full((1, 4, 2, 2), -1.0, requires_grad=True)]
    loss = feature_loss(real, fake)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx((3 + 1) / 2)
    assert all(tensor.grad is None for tensor in real)
    assert all(tensor.grad is not None for tensor in fake)


def test_without_a_policy_nothing_is_changed() -> None:
    pair = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    augment = draw_augment((), batch=2, side=32, random=torch.Generator())
    assert all(torch.equal(one, other) for one, other in zip(augment(*pair), pair, strict=True))


def test_drawings_and_pictures_are_moved_and_holed_together_and_alike_each_time() -> None:
    same = torch.rand(3, 3, 32, 32) + 1
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        augment = draw_augment(("translation", "cutout"), batch=3, side=32, random=random)
        drawings, pictures = augment(same, same)
        assert torch.equal(drawings, pictures)
        assert torch.equal(augment(same, same)[0], drawings)
        assert 0 < int((drawings == 0).sum()) < drawings.numel()


def test_a_translation_moves_by_an_eighth_of_a_side_at_most() -> None:
    policy: tuple[Augmentation, ...] = ("translation",)
    dot = torch.zeros(1, 3, 32, 32)
    dot[:, :, 16, 16] = 1
    reached = set()
    for seed in range(200):
        random = torch.Generator().manual_seed(seed)
        moved, _ = draw_augment(policy, batch=1, side=32, random=random)(dot, dot)
        ((row, column),) = moved[0, 0].nonzero().tolist()
        reached |= {row - 16, column - 16}
    assert reached == set(range(-4, 5))


def test_colours_change_in_the_picture_only_and_gradients_pass_through_everything() -> None:
    drawings, pictures = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32, requires_grad=True)
    random = torch.Generator().manual_seed(1)
    policy: tuple[Augmentation, ...] = ("colour",)
    colour = draw_augment(policy, batch=2, side=32, random=random)
    kept, changed = colour(drawings, pictures)
    assert torch.equal(kept, drawings)
    assert not torch.allclose(changed, pictures)
    everything = draw_augment(AUGMENTATIONS, batch=2, side=32, random=random)
    everything(drawings, pictures)[1].sum().backward()  # type: ignore[no-untyped-call]
    assert pictures.grad is not None
    assert int((pictures.grad != 0).sum()) > 0
