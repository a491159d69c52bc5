"""Drawings that are bound to go wrong, painted on purpose: a gallery of successes would not be honest."""

from __future__ import annotations

import cv2
import numpy as np

from sketchbridge_preprocess import Image
from sketchbridge_training.quality.generator import Generator
from sketchbridge_training.quality.sheets import Cell


def failures(generator: Generator, *, own: Image, foreign: Image, foreign_name: str, seed: int) -> list[Cell]:
    """Six drawings and what is painted from them.

    own: (256, 256, 3) uint8, a drawing of the generator's domain. foreign: the same of the domain `foreign_name`.
    """
    drawings = {
        "blank page": np.full_like(own, 255),
        "scribble": scribble(seed),
        f"a drawing of {foreign_name}": foreign,
        "upside down": np.ascontiguousarray(own[::-1, ::-1]),
        "half the lines erased": erase_half(own, seed),
        "white on black, sent raw": np.asarray(255 - own, np.uint8),
    }
    return [Cell((drawing, generator.paint(drawing)), caption) for caption, drawing in drawings.items()]


def scribble(seed: int) -> Image:
    """(256, 256, 3) uint8: one smooth aimless line, two pixels wide."""
    random = np.random.default_rng(seed)
    corners = random.uniform(30, 226, (14, 2))
    along = np.linspace(0, len(corners) - 1, 600)
    path = np.stack([np.interp(along, np.arange(len(corners)), corners[:, axis]) for axis in range(2)], axis=1)
    smooth = cv2.GaussianBlur(path, (1, 61), 0, sigmaY=14, borderType=cv2.BORDER_REPLICATE)
    page = np.full((256, 256, 3), 255, np.uint8)
    cv2.polylines(page, [np.rint(smooth).astype(np.int32)], isClosed=False, color=(0, 0, 0), thickness=2)
    return page


def erase_half(drawing: Image, seed: int) -> Image:
    """A copy with squares of 32 pixels wiped clean, in random order, until half of the ink is gone.

    drawing: (H, W, 3) uint8, dark on white.
    """
    random = np.random.default_rng(seed)
    height, width = drawing.shape[:2]
    squares = [(top, left) for top in range(0, height, 32) for left in range(0, width, 32)]
    wiped = drawing.copy()
    ink = int((drawing < 128).sum())
    for number in random.permutation(len(squares)):
        if int((wiped < 128).sum()) <= ink / 2:
            break
        top, left = squares[number]
        wiped[top : top + 32, left : left + 32] = 255
    return wiped
