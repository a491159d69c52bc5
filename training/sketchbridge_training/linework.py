"""Tells line drawings from other pictures that a data set may pair with photos: label maps, masks, other photos."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sketchbridge_preprocess import Image


def are_line_drawings(pictures: Sequence[Image]) -> bool:
    """Whether most of `pictures`, (H, W, 3) uint8 RGB each, are thin lines without colour on even paper."""
    return sum(_is_line_drawing(picture) for picture in pictures) > 0.5 * len(pictures)


def _is_line_drawing(picture: Image) -> bool:
    levels = picture.astype(np.int16)
    colour = levels.max(axis=2) - levels.min(axis=2)
    if np.mean(colour > _MOST_COLOUR) > 0.02:
        return False
    gray = levels.mean(axis=2)
    paper = float(np.median(gray))
    ink = np.abs(gray - paper) > _LEAST_CONTRAST
    if 80 < paper < 150 or not 0 < ink.mean() < _MOST_INK:
        return False
    side = max(3, round(0.05 * min(ink.shape)) | 1)
    thick = cv2.morphologyEx(ink.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    return bool(thick.sum() < 0.3 * ink.sum())  # a few filled areas are no harm


_MOST_COLOUR = 40  # grey levels between the channels of a pixel: yellowed paper has less
_LEAST_CONTRAST = 40  # grey levels between pencil and paper
_MOST_INK = 0.35  # of the pixels
