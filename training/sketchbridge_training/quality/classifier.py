"""A small convolutional network that tells the domains apart, and the kinds within a domain.

It is the judge of the report and the space its distances are measured in, so it sees only real photos in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sketchbridge_preprocess import Image

SIDE_PX = 128
JUDGED_PX = 144
"""It is asked at a larger side than it is taught at: the crops it learns from show things 1.2 times as large. Source:
Touvron, Vedaldi, Douze and Jegou, "Fixing the train-test resolution discrepancy", NeurIPS 2019."""
FEATURES = 256


@dataclass(frozen=True)
class Classes:
    """What the heads tell apart. attributes: by domain, for those that have any."""

    domains: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Judgement:
    """What the classifier says of N pictures.

    domains: N names. attributes: by domain, N labels each, whatever the domain of the picture. features: (N, 256)
    float32, the layer all heads read.
    """

    domains: list[str]
    attributes: Mapping[str, list[str]]
    features: npt.NDArray[np.float32]


class Classifier(nn.Module):
    """A residual network of three halvings after the first, and one linear head for each question.

    forward: (N, 3, S, S) float in [-1, 1], S a multiple of 16, SIDE_PX to JUDGED_PX -> (N, 256) features.
    Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the average pooling
    in the shortcuts of He et al., "Bag of Tricks", CVPR 2019.
    """

    def __init__(self, classes: Classes) -> None:
        """Fresh weights from torch's random numbers; seed them first."""
        super().__init__()
        self.classes = classes
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            _Halving(32, 64),
            _Halving(64, 128),
            _Halving(128, FEATURES),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.drop = nn.Dropout(0.3)
        self.domain_head = nn.Linear(FEATURES, len(classes.domains))
        self.attribute_heads = nn.ModuleDict(
            {domain: nn.Linear(FEATURES, len(labels)) for domain, labels in classes.attributes.items()}
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """The features; see the class."""
        features: Tensor = self.body(pictures)
        return features


class _Halving(nn.Module):
    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.straight = nn.Sequential(
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide))

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.straight(features) + self.shortcut(features))


def shrink(image: Image, side_px: int) -> Image:
    """(side_px, side_px, 3) uint8 from a square (S, S, 3) uint8 picture, averaged where it is made smaller."""
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)


def to_batch(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """(N, 3, S, S) float32 in [-1, 1], channels last in memory, from (N, S, S, 3) uint8."""
    batch = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return batch.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def judge(classifier: Classifier, pictures: Sequence[Image], *, batch_size: int = 32) -> Judgement:
    """What the classifier says of square RGB uint8 pictures, at least one; it is put into evaluation mode.

    In float32, so that the figures do not depend on whether the processor has bfloat16.
    """
    classifier.eval()
    small = np.stack([shrink(picture, JUDGED_PX) for picture in pictures])  # (N, S, S, 3)
    features = torch.cat(
        [classifier(to_batch(small[start : start + batch_size])) for start in range(0, len(small), batch_size)]
    )
    classes = classifier.classes

    def chosen(head: nn.Module, labels: Sequence[str]) -> list[str]:
        return [labels[index] for index in head(features).argmax(dim=1).tolist()]

    return Judgement(
        chosen(classifier.domain_head, classes.domains),
        {name: chosen(classifier.attribute_heads[name], labels) for name, labels in classes.attributes.items()},
        features.numpy(),
    )
