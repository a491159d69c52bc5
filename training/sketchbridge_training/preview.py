"""The contact sheet a run is looked at by: the same drawings every time, painted by what it has learnt so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from sketchbridge_preprocess import Image
from sketchbridge_training.drawings import read_drawings
from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.photos import SUFFIXES
from sketchbridge_training.sources import Source

_COLUMNS = 10
_SCALE = 0.6
_STREAM = 2  # of random numbers; 0 and 1 are the pairs'


def load_drawings(folder: Path) -> list[Image]:
    """The first ten drawings of a folder, by name; see `read_drawings`. Raises DataInvalid, also if there is none."""
    drawings = list(read_drawings(folder, most=_COLUMNS).values())
    if not drawings:
        raise DataInvalid(f"`{folder}` holds no drawings ({', '.join(sorted(SUFFIXES))}).")
    return drawings


def held_out_pairs(source: Source, *, seed: int) -> list[tuple[Image, Image]]:
    """(drawing, photo) of the first ten held-out pictures, the same for the same seed; both (S, S, 3) uint8."""
    pairs = [
        source.plain(number, np.random.default_rng([seed, _STREAM, number]))
        for number in range(min(len(source), _COLUMNS))
    ]
    return [(as_colour(sketch), photo) for sketch, photo in pairs]


def make_sheet(
    pairs: Sequence[tuple[Image, Image]], drawings: Sequence[Image], paint: Callable[[Image], Image]
) -> Image:
    """Rows of drawings, paintings and photos; below, if there are any, drawings without a photo and their paintings.

    paint: (S, S, 3) uint8 -> the same. Returns uint8 RGB, each picture at 0.6 of its size.
    """
    rows = [[sketch for sketch, _ in pairs], [paint(sketch) for sketch, _ in pairs], [photo for _, photo in pairs]]
    if drawings:
        rows += [list(drawings), [paint(drawing) for drawing in drawings]]
    columns = max(len(row) for row in rows)
    blank = np.full_like(rows[0][0], 255)
    sheet = np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])
    return np.asarray(cv2.resize(sheet, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_AREA), np.uint8)


def as_colour(sketch: Image) -> Image:
    """(H, W, 3) uint8 from (H, W) or (H, W, 3)."""
    return np.repeat(sketch[:, :, None], 3, axis=2) if sketch.ndim == 2 else sketch
