"""Pictures become an endless, repeatable stream of (sketch, photo) pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sketchbridge_preprocess import Image
from sketchbridge_training.sources import Source


class PairStream(Dataset[tuple[Tensor, Tensor]]):
    """Pair number i of an endless stream, the same for the same seed whatever was read before.

    Every epoch visits each picture once in a new order; flips, shifts and drawings are drawn from (seed, i). So a run
    that stops after pair i and resumes sees the pairs an uninterrupted run sees.
    A pair is two (3, S, S) float32 tensors in [-1, 1], RGB: the sketch (three equal channels and dark lines, unless the
    source has drawings of another kind), the photo.
    """

    def __init__(self, source: Source, *, seed: int) -> None:
        """Source: of at least one picture. seed: at least 0."""
        self._source = source
        self._seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pair number `index`, from 0 on. Raises DataInvalid, naming the file, if a picture can't be read."""
        epoch, position = divmod(index, len(self._source))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._source))
        sketch, photo = self._source.pair(int(order[position]), np.random.default_rng([self._seed, 1, index]))
        return to_tensor(sketch), to_tensor(photo)


def to_tensor(image: Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] from (H, W) or (H, W, 3) uint8 in [0, 255]; a copy. Gray fills three channels."""
    planes = np.stack([image] * 3) if image.ndim == 2 else np.array(image.transpose(2, 0, 1), order="C")
    return torch.from_numpy(planes).float().div_(127.5).sub_(1.0)


def to_image(tensor: Tensor) -> Image:
    """(H, W, 3) uint8 in [0, 255] from a (3, H, W) float tensor in [-1, 1]; values outside are clipped. A copy."""
    levels = tensor.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
