"""Reduces strokes to their centre lines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_NEIGHBOUR_WEIGHTS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)  # P9 P2 P3 / P8 . P4 / P7 P6 P5


def thin(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Centre lines, one pixel wide, of the strokes in `mask`.

    mask: (H, W) uint8 of 0 and 1; not modified. Connected strokes stay connected and none vanishes. Returns (H, W)
    uint8 of 0 and 1.
    Source: Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 1989, algorithm A1; the deletion
    rule of each half-step is a table over the 256 possible neighbourhoods. (The better known rule of Zhang and Suen
    erases diagonals two pixels wide.)
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
        p2, p3, p4, p5, p6, p7, p8, p9 = (code >> bit & 1 for bit in range(8))  # clockwise from north
        pieces = (~p2 & (p3 | p4)) + (~p4 & (p5 | p6)) + (~p6 & (p7 | p8)) + (~p8 & (p9 | p2))
        pairs = min((p9 | p2) + (p3 | p4) + (p5 | p6) + (p7 | p8), (p2 | p3) + (p4 | p5) + (p6 | p7) + (p8 | p9))
        inside = (p6 | p7 | (1 - p9)) & p8 if half_step == 0 else (p2 | p3 | (1 - p5)) & p4
        if pieces == 1 and 2 <= pairs <= 3 and inside == 0:
            keep[code] = 0
    return keep


_DELETABLE = (_deletion_table(0), _deletion_table(1))
