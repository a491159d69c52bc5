"""A folder of photos becomes an endless, repeatable stream of (sketch, photo) pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sketchbridge_preprocess import Image, PreprocessError, Size, decode, fit
from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import DataInvalid

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VALIDATION_SHARE = 20  # one photo in twenty is held out


def find_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and validation photos in `folder`, each sorted by name.

    Which side a photo is on depends on its name alone, so adding photos never moves one across.
    Raises DataInvalid if the folder is missing or has fewer than 12 photos.
    """
    if not folder.is_dir():
        raise DataInvalid(f"`{folder}` is not a folder. Give one that holds the photos to train on.")
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(photos) < 12:
        raise DataInvalid(
            f"`{folder}` holds {len(photos)} photos ({', '.join(sorted(SUFFIXES))}); at least 12 are needed."
        )
    held_out = [path for path in photos if _digest(path.name) % VALIDATION_SHARE == 0]
    held_out = held_out or photos[:1]
    chosen = set(held_out)
    return [path for path in photos if path not in chosen], held_out


def load_photo(path: Path, size: Size) -> Image:
    """(size.height, size.width, 3) uint8 RGB, centre-cropped. Raises DataInvalid naming the file."""
    try:
        return fit(decode(path.read_bytes()), size, mode="crop").image
    except PreprocessError as exc:
        raise DataInvalid(f"`{path}` can't be used: {exc}") from exc


class PairStream(Dataset[tuple[Tensor, Tensor]]):
    """Pair number i of an endless stream, the same for the same seed whatever was read before.

    Every epoch visits each photo once in a new order; flips, shifts and drawings are drawn from (seed, i). So a run
    that stops after pair i and resumes sees the pairs an uninterrupted run sees.
    A pair is two (3, S, S) float32 tensors in [-1, 1], RGB: the sketch (three equal channels, dark lines), the photo.
    """

    def __init__(self, photos: list[Path], *, size: Size, seed: int) -> None:
        self._photos = photos
        self._size = size
        self._seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(index, len(self._photos))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._photos))
        random = np.random.default_rng([self._seed, 1, index])
        photo = _vary(load_photo(self._photos[order[position]], self._size), random)
        return to_tensor(draw(photo, random)), to_tensor(photo)


def to_tensor(image: Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] from (H, W) or (H, W, 3) uint8."""
    rgb = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float().div_(127.5).sub_(1.0)


def to_image(tensor: Tensor) -> Image:
    """(H, W, 3) uint8 from a (3, H, W) float tensor in [-1, 1]; values outside are clipped."""
    levels = tensor.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _vary(photo: Image, random: np.random.Generator) -> Image:
    """Mirror, turn by up to 8 degrees, scale by 0.85 to 1.08, shift by up to 5 %; the border's colour fills."""
    height, width = photo.shape[:2]
    if random.random() < 0.5:
        photo = np.ascontiguousarray(photo[:, ::-1])
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-8, 8), random.uniform(0.85, 1.08))
    turn = turn + np.array([[0, 0, random.uniform(-0.05, 0.05) * width], [0, 0, random.uniform(-0.05, 0.05) * height]])
    border = np.median(np.concatenate([photo[0], photo[-1], photo[:, 0], photo[:, -1]]), axis=0).tolist()
    moved = cv2.warpAffine(photo, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=border)
    return np.asarray(moved, np.uint8)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
