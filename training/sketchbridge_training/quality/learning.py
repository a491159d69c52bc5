"""Teaches the classifier on the real training photos of all domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sketchbridge_preprocess import Size
from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.photos import load_photo
from sketchbridge_training.quality.classifier import SIDE_PX, Classes, Classifier, shrink, to_batch
from sketchbridge_training.quality.domains import Domain

_STORED_PX = SIDE_PX + 16  # room to crop from
_UNKNOWN = -100  # what cross_entropy leaves out


@dataclass(frozen=True)
class LearningSettings:
    """How the classifier learns. The same settings, photos and torch give the same classifier on one machine.

    epochs: passes over all photos; the first `small_epochs` see them at 96 pixels, which is twice as fast.
    batch_size, learning_rate (the peak of one cycle), weight_decay, label_smoothing: of AdamW and the cross entropy.
    attribute_weight: of the attribute heads' losses against the domain head's. seed: of weights, order, augmentation.
    """

    epochs: int = 26
    small_epochs: int = 14
    batch_size: int = 48
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    attribute_weight: float = 1.0
    seed: int = 1


def classes_of(domains: Sequence[Domain]) -> Classes:
    """The questions these photos can teach. Raises DataInvalid if there are fewer than two domains."""
    if len(domains) < 2:
        raise DataInvalid(
            f"There is only the domain {', '.join(f'`{domain.name}`' for domain in domains)}; a classifier needs at "
            "least two to tell apart. Put a folder of photos of something else beside it; no generator is needed for "
            "that one."
        )
    labels = {
        domain.name: tuple(sorted({photo.attribute for photo in domain.training if photo.attribute}))
        for domain in domains
    }
    return Classes(
        tuple(domain.name for domain in domains), {name: some for name, some in labels.items() if len(some) > 1}
    )


def learning_steps(domains: Sequence[Domain], settings: LearningSettings) -> int:
    """How many steps `learn` takes."""
    return settings.epochs * _steps_per_epoch(sum(len(domain.training) for domain in domains), settings)


def learn(
    domains: Sequence[Domain],
    settings: LearningSettings,
    *,
    step_done: Callable[[], object] = lambda: None,
) -> Classifier:
    """A classifier taught on the training photos of `domains`, and on nothing else.

    A domain with few photos is drawn more often than its share. step_done: called `learning_steps` times.
    Raises DataInvalid if a photo can't be read, or there are too few domains.
    """
    classes = classes_of(domains)
    pictures, targets = _load(domains, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        classifier: Classifier = Classifier(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _descend(classifier, pictures, targets, settings, step_done)
    return classifier.eval()


def _load(domains: Sequence[Domain], classes: Classes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(N, 144, 144, 3) pictures and (N, 1 + attributes) class numbers: the domain's, then each attribute head's."""
    pictures: list[npt.NDArray[np.uint8]] = []
    targets: list[list[int]] = []
    for number, domain in enumerate(domains):
        for photo in domain.training:
            pictures.append(shrink(load_photo(photo.path, Size(256, 256)), _STORED_PX))
            targets.append(
                [number]
                + [
                    labels.index(photo.attribute) if name == domain.name and photo.attribute in labels else _UNKNOWN
                    for name, labels in classes.attributes.items()
                ]
            )
    return np.stack(pictures), np.asarray(targets, np.int64)


def _descend(
    classifier: Classifier,
    pictures: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    settings: LearningSettings,
    step_done: Callable[[], object],
) -> None:
    per_epoch = _steps_per_epoch(len(pictures), settings)
    steps = settings.epochs * per_epoch
    optimiser = torch.optim.AdamW(
        classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=steps + 1, pct_start=0.15
    )
    chances = _chances(targets[:, 0])
    classifier.train()
    for step in range(steps):
        random = np.random.default_rng([settings.seed, step])
        chosen = random.choice(len(pictures), size=min(settings.batch_size, len(pictures)), p=chances)
        side_px = 96 if step < settings.small_epochs * per_epoch else SIDE_PX
        batch = _augment(pictures[chosen], side_px, random)
        with torch.autocast("cpu", torch.bfloat16):
            features = classifier(batch)
        loss = _loss(classifier, features.float(), torch.from_numpy(targets[chosen]), settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        step_done()


def _steps_per_epoch(photos: int, settings: LearningSettings) -> int:
    return max(1, photos // settings.batch_size)


def _chances(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of each photo to be drawn: between a fair share of its domain and a fair share of all photos."""
    weights = np.bincount(numbers)[numbers] ** -0.5
    return np.asarray(weights / weights.sum(), np.float64)


def _loss(classifier: Classifier, features: Tensor, targets: Tensor, settings: LearningSettings) -> Tensor:
    dropped = classifier.drop(features)
    smoothing = settings.label_smoothing
    loss = nn.functional.cross_entropy(classifier.domain_head(dropped), targets[:, 0], label_smoothing=smoothing)
    for column, head in enumerate(classifier.attribute_heads.values(), start=1):
        known = targets[:, column] != _UNKNOWN
        if known.any():
            share = known.float().mean()
            loss = loss + settings.attribute_weight * share * nn.functional.cross_entropy(
                head(dropped[known]), targets[known, column], label_smoothing=smoothing
            )
    return loss


def _augment(pictures: npt.NDArray[np.uint8], side_px: int, random: np.random.Generator) -> Tensor:
    """(N, 3, side_px, side_px): mirrored, turned, scaled, shifted, blurred, and in other light and colour."""
    count = len(pictures)
    batch = to_batch(pictures)
    angle = random.uniform(-0.2, 0.2, count)
    across = random.choice([-1.0, 1.0], count)
    scale = random.uniform(0.65, 1.0, count)  # of the picture that is seen
    room = 1 - scale
    turn = np.stack(
        [
            np.stack([across * scale * np.cos(angle), -scale * np.sin(angle), random.uniform(-1, 1, count) * room], 1),
            np.stack([across * scale * np.sin(angle), scale * np.cos(angle), random.uniform(-1, 1, count) * room], 1),
        ],
        1,
    )  # (N, 2, 3)
    grid = nn.functional.affine_grid(
        torch.from_numpy(turn.astype(np.float32)), [count, 3, side_px, side_px], align_corners=False
    )
    moved = nn.functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)
    if random.random() < 0.25:  # what is blurred is still what it is
        small = nn.functional.avg_pool2d(moved, 2)
        moved = nn.functional.interpolate(small, size=(side_px, side_px), mode="bilinear", align_corners=False)
    shape = (count, 3, 1, 1)
    contrast = torch.from_numpy(random.uniform(0.75, 1.3, (count, 1, 1, 1)).astype(np.float32))
    tint = torch.from_numpy(random.uniform(-0.12, 0.12, shape).astype(np.float32))
    light = torch.from_numpy(random.uniform(-0.15, 0.15, (count, 1, 1, 1)).astype(np.float32))
    return (moved * contrast + tint + light).clamp(-1, 1).contiguous(memory_format=torch.channels_last)
