"""A folder of photos becomes an endless, repeatable stream of (sketch, photo) pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sketchbridge_preprocess import (
    DEFAULT_LIMITS,
    Image,
    ImageTooLarge,
    PreprocessError,
    Size,
    decode,
    fit,
    read_header,
)
from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import DataInvalid

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VALIDATION_SHARE = 20  # one photo in twenty is held out
LEAST_PHOTOS = 12


def find_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos directly in `folder`, each sorted by name.

    Which side a photo is on depends on its name alone, so adding photos never moves one across. Only in a small folder,
    where no name happens to be held out, the first photo stands in until one is; a photo that was trained on is never
    held out later because others were added.
    Raises DataInvalid if the folder is missing or has fewer than 12 photos.
    """
    if not folder.is_dir():
        raise DataInvalid(f"`{folder}` is not a folder. Give one that holds the photos to train on.")
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(photos) < LEAST_PHOTOS:
        raise DataInvalid(
            f"`{folder}` holds {len(photos)} photos ({', '.join(sorted(SUFFIXES))}, not in folders within it); "
            f"at least {LEAST_PHOTOS} are needed."
        )
    held_out = [path for path in photos if _digest(path.name) % VALIDATION_SHARE == 0] or photos[:1]
    chosen = set(held_out)
    return [path for path in photos if path not in chosen], held_out


def check_photos(photos: Sequence[Path]) -> None:
    """Read every file's header, without decoding it: a missing end is found at the start, not hours into a run.

    Raises DataInvalid, saying how many files can't be used and why the first can't.
    """
    unusable = [(path, why) for path in photos if (why := _why_unusable(path))]
    if unusable:
        path, why = unusable[0]
        others = f" {len(unusable) - 1} more of {len(photos)} can't be used either." if len(unusable) > 1 else ""
        raise DataInvalid(f"`{path}` can't be used: {why}{others} Mend or remove them, then start again.")


def _why_unusable(path: Path) -> str | None:
    try:
        data = path.read_bytes()
        header = read_header(data)
        pixels = header.width * header.height
        if len(data) > DEFAULT_LIMITS.max_bytes or pixels > DEFAULT_LIMITS.max_pixels:
            raise ImageTooLarge(
                f"It has {len(data):,} bytes and {pixels:,} pixels; at most {DEFAULT_LIMITS.max_bytes:,} bytes and "
                f"{DEFAULT_LIMITS.max_pixels:,} pixels are taken."
            )
    except (PreprocessError, OSError) as exc:
        return str(exc)
    return None


def load_photo(path: Path, size: Size) -> Image:
    """(size.height, size.width, 3) uint8 RGB in [0, 255], centre-cropped.

    Raises DataInvalid, naming the file, if it can't be read or decoded.
    """
    try:
        return fit(decode(path.read_bytes(), enough=size), size, mode="crop").image
    except (PreprocessError, OSError) as exc:
        raise DataInvalid(f"`{path}` can't be used: {exc}") from exc


class PairStream(Dataset[tuple[Tensor, Tensor]]):
    """Pair number i of an endless stream, the same for the same seed whatever was read before.

    Every epoch visits each photo once in a new order; flips, shifts and drawings are drawn from (seed, i). So a run
    that stops after pair i and resumes sees the pairs an uninterrupted run sees.
    A pair is two (3, S, S) float32 tensors in [-1, 1], RGB: the sketch (three equal channels, dark lines), the photo.
    """

    def __init__(self, photos: Sequence[Path], *, size: Size, seed: int) -> None:
        """Photos: at least one file. size: of the pairs, in pixels. seed: at least 0."""
        self._photos = photos
        self._size = size
        self._seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pair number `index`, from 0 on. Raises DataInvalid, naming the file, if its photo can't be read."""
        epoch, position = divmod(index, len(self._photos))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._photos))
        random = np.random.default_rng([self._seed, 1, index])
        photo = _vary(load_photo(self._photos[order[position]], self._size), random)
        return to_tensor(draw(photo, random)), to_tensor(photo)


def to_tensor(image: Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] from (H, W) or (H, W, 3) uint8 in [0, 255]; a copy. Gray fills three channels."""
    rgb = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float().div_(127.5).sub_(1.0)


def to_image(tensor: Tensor) -> Image:
    """(H, W, 3) uint8 in [0, 255] from a (3, H, W) float tensor in [-1, 1]; values outside are clipped. A copy."""
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
