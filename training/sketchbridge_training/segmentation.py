"""Finds the thing in the middle of a photo, so that a drawing can leave out what surrounds it.

People draw the bird, not the branches behind it. A generator that has only seen drawings with everything in them paints
such a drawing on nothing. Where the thing is found, some drawings lose their lines outside it; the photo keeps all.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess import Image, PreprocessError, decode, encode

_WORKING_SIDE_PX = 128
_MARGIN = 0.08  # of the side: the frame around the middle that is taken for background
_ROUNDS = 4
_LEAST_AREA, _MOST_AREA = 0.08, 0.92  # of the photo
_MOST_BORDER = 0.6  # of the photo's edge that the thing may touch


def find_subject(photo: Image) -> NDArray[np.bool_] | None:
    """Where the thing in the middle of `photo` is, or None if what was found can't be it.

    photo: (H, W, 3) uint8 RGB; not modified. Returns (H, W) bool, one connected area without holes. None if it covers
    less than 8 % or more than 92 % of the photo, or more than 60 % of its edge. The same photo gives the same mask.
    Source: Rother, Kolmogorov and Blake, "GrabCut", SIGGRAPH 2004, by OpenCV, on 128 pixels from a central rectangle.
    """
    height, width = photo.shape[:2]
    scale = _WORKING_SIDE_PX / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.cvtColor(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    labels = np.zeros(small.shape[:2], np.uint8)
    across, down = round(_MARGIN * size[0]), round(_MARGIN * size[1])
    rectangle = (across, down, size[0] - 2 * across, size[1] - 2 * down)
    cv2.setRNGSeed(1)  # the colour models start from a random clustering
    try:
        cv2.grabCut(small, labels, rectangle, np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # all of one colour: no two colour models can be told apart
        return None
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    subject = _middle_area(np.asarray(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8))
    edge = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    if not _LEAST_AREA <= subject.mean() <= _MOST_AREA or edge.mean() > _MOST_BORDER:
        return None
    return np.asarray(cv2.resize(subject * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127, np.bool_)


def _middle_area(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The connected area with the most pixels, those near the middle counting most, its holes filled."""
    count, labels = cv2.connectedComponents(found, connectivity=4)
    if count < 2:
        return np.zeros_like(found)
    height, width = found.shape
    y, x = np.mgrid[:height, :width]
    nearness = np.exp(-2 * (((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2) / 0.35**2)
    weights = np.bincount(labels.ravel(), nearness.ravel())
    weights[0] = 0
    area = (labels == int(np.argmax(weights))).astype(np.uint8)
    outlines, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(area, outlines, -1, (1,), cv2.FILLED), np.uint8)


class Masks:
    """Finds subjects and keeps them, in memory and, if there is a folder for it, from run to run.

    A mask is kept by what the photo holds, as a PNG of one bit a pixel; an empty one stands for None. Several processes
    may use one folder. A copy sent to another process begins with nothing in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Folder: made when the first mask is written; None for no folder."""
        self._folder = folder
        self._found: dict[str, NDArray[np.uint8] | None] = {}

    def find(self, photo: Image) -> NDArray[np.bool_] | None:
        """`find_subject` of `photo`, which takes some 60 ms the first time. Raises OSError if it can't be kept."""
        name = hashlib.sha256(photo.tobytes()).hexdigest()[:24] + f"_{photo.shape[1]}x{photo.shape[0]}.png"
        if name not in self._found:
            self._found[name] = self._read_or_find(photo, None if self._folder is None else self._folder / name)
        bits = self._found[name]
        if bits is None:
            return None
        height, width = photo.shape[:2]
        return np.unpackbits(bits, axis=1, count=width).reshape(height, width).astype(np.bool_)

    def _read_or_find(self, photo: Image, path: Path | None) -> NDArray[np.uint8] | None:
        kept = None if path is None else _read_mask(path)
        if kept is None or kept.shape != photo.shape[:2]:
            subject = find_subject(photo)
            kept = np.zeros(photo.shape[:2], np.bool_) if subject is None else subject
            if path is not None:
                _write_mask(path, kept)
        return np.packbits(kept, axis=1) if kept.any() else None

    def __getstate__(self) -> tuple[Path | None]:
        return (self._folder,)

    def __setstate__(self, state: tuple[Path | None]) -> None:
        (self._folder,), self._found = state, {}


def _read_mask(path: Path) -> NDArray[np.bool_] | None:
    """None if there is none, or none that can be read: then it is found again."""
    try:
        return decode(path.read_bytes())[:, :, 0] > 127
    except (OSError, PreprocessError):
        return None


def _write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode(mask.astype(np.uint8) * np.uint8(255)))
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
