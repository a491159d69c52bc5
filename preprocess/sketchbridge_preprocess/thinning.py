"""Reduces strokes to their centre lines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_NEIGHBOUR_WEIGHTS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)  # P9 P2 P3 / P8 . P4 / P7 P6 P5


def thin(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Centre lines, one pixel wide, of the strokes in `mask`.

    mask: (H, W) uint8 of 0 and 1; not modified. Connected strokes stay connected. Returns (H, W) uint8 of 0 and 1.
    Source: Zhang and Suen, "A fast parallel algorithm for thinning digital patterns", CACM 1984; the deletion rule of
    each half-step is a table over the 256 possible neighbourhoods.
    """
    thinned = mask.copy()
    while True:
        before = np.count_nonzero(thinned)
        for deletable in _DELETABLE:
            neighbourhood = cv2.filter2D(thinned, cv2.CV_8U, _NEIGHBOUR_WEIGHTS, borderType=cv2.BORDER_CONSTANT)
            thinned &= np.asarray(cv2.LUT(np.asarray(neighbourhood, np.uint8), deletable), np.uint8)
        if np.count_nonzero(thinned) == before:
            return thinned


def _deletion_table(half_step: int) -> NDArray[np.uint8]:
    """(256,) uint8: 0 where a pixel with these neighbours is deleted in this half-step, 1 where it stays."""
    keep = np.ones(256, np.uint8)
    for code in range(256):
        p = [code >> bit & 1 for bit in range(8)]  # P2 to P9, clockwise from north
        rises = sum(p[i] == 0 and p[(i + 1) % 8] == 1 for i in range(8))
        north, east, south, west = p[0], p[2], p[4], p[6]
        if half_step == 0:
            on_border = north * east * south == 0 and east * south * west == 0
        else:
            on_border = north * east * west == 0 and north * south * west == 0
        if 2 <= sum(p) <= 6 and rises == 1 and on_border:  # conditions (a) and (b) of the paper
            keep[code] = 0
    return keep


_DELETABLE = (_deletion_table(0), _deletion_table(1))
