"""What makes a person's drawing of an edge map: left out, broken off, crooked, gone over twice, with a thick pen.

All take and return (H, W) uint8 drawings, dark lines on white; none modifies its argument.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess import Image, Size, draw_strokes, normalise_sketch


def change(lines: Image, random: np.random.Generator, *, line_width_px: float) -> Image:
    """Some of the changes below, at random. line_width_px: of the lines, for those that are drawn again."""
    if random.random() < 0.5:
        lines = leave_out_details(lines, random)
    if random.random() < 0.4:
        lines = leave_gaps(lines, random)
    if random.random() < 0.12:
        lines = leave_out_region(lines, random)
    twice = random.random() < 0.15
    if twice:
        lines = np.minimum(wobble(lines, random, strength_px=1), wobble(lines, random, strength_px=1))
    if random.random() < 0.5:
        lines = wobble(lines, random, strength_px=random.uniform(0.5, 2.5))
    if random.random() < (0.6 if twice else 0.2):
        lines = draw_thick(lines, random, line_width_px=line_width_px)
    return lines


def ink(lines: Image) -> float:
    """Share of the pixels that are inked, in [0, 1]."""
    return float(np.mean(lines < 128))


def leave_out_details(lines: Image, random: np.random.Generator) -> Image:
    """Drop connected lines at random, short ones more often than long ones."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats((lines < 128).astype(np.uint8), connectivity=8)
    typical = random.uniform(8, 50)  # pixels
    drop = random.random(count) < np.exp(-statistics[:, cv2.CC_STAT_AREA] / typical)
    drop[0] = False
    if statistics[drop, cv2.CC_STAT_AREA].sum() > 0.4 * statistics[1:, cv2.CC_STAT_AREA].sum():
        return lines  # too little would be left to tell what it is
    gone = cv2.dilate(drop.astype(np.uint8).take(labels), np.ones((3, 3), np.uint8))
    return np.where(gone == 1, 255, lines).astype(np.uint8)


def leave_gaps(lines: Image, random: np.random.Generator) -> Image:
    """Rub out up to eleven discs of up to 13 pixels radius, unless half of the lines would go."""
    result = lines.copy()
    height, width = lines.shape
    for _ in range(random.integers(1, 12)):
        centre = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(result, centre, int(random.integers(3, 14)), (255,), -1)
    return result if ink(result) > 0.5 * ink(lines) else lines  # a small drawing would be gone


def leave_out_region(lines: Image, random: np.random.Generator) -> Image:
    """Leave one side of the sheet empty, up to a straight or a round border, unless half of the lines would go."""
    height, width = lines.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    along = ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)).astype(np.float32)
    across = ((y / height - 0.5) * np.cos(angle) - (x / width - 0.5) * np.sin(angle)).astype(np.float32)
    empty = along + random.uniform(-1.5, 1.5) * across**2 > random.uniform(0.1, 0.4)
    result = np.where(empty, 255, lines).astype(np.uint8)
    return result if ink(result) > 0.5 * ink(lines) else lines


def erase_outside(lines: Image, subject: NDArray[np.bool_]) -> Image:
    """Keep the lines in and around `subject`, (H, W) bool, unless three quarters would go.

    What lies up to 3 % of the side outside it stays: a mask is seldom exact, and its outline must not go.
    """
    side = 2 * round(0.03 * max(lines.shape)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    near = cv2.dilate(subject.astype(np.uint8), disc)
    result = np.where(near > 0, lines, 255).astype(np.uint8)
    return result if ink(result) > 0.25 * ink(lines) else lines


def wobble(lines: Image, random: np.random.Generator, *, strength_px: float) -> Image:
    """Move the lines by a smooth random field: nobody's hand is straight. strength_px: its standard deviation."""
    height, width = lines.shape
    scale_px = random.uniform(8, 24)
    noise = random.standard_normal((height // 4 + 2, width // 4 + 2, 2), np.float32)  # it is smooth: a quarter will do
    field = np.asarray(cv2.GaussianBlur(noise, (0, 0), scale_px / 4), np.float32)
    field *= strength_px / np.maximum(field.std(axis=(0, 1)), 1e-6)
    places = np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    places[:, :, 0] += np.arange(width, dtype=np.float32)
    places[:, :, 1] += np.arange(height, dtype=np.float32)[:, None]
    x, y = np.ascontiguousarray(places[:, :, 0]), np.ascontiguousarray(places[:, :, 1])
    moved = cv2.remap(lines, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(255,))
    return np.asarray(moved, np.uint8)


def draw_thick(lines: Image, random: np.random.Generator, *, line_width_px: float) -> Image:
    """Gone over with a pen of 3 to 8 pixels, then redrawn: near lines have run together.

    A third is redrawn just as the server redraws it, which makes outlines of what is much thicker than the pen.
    """
    side = int(random.integers(2, 8))
    if ink(lines) * side > _MOST_THICK_INK:  # fur under a thick pen is a black sheet
        return lines
    thick = np.asarray(cv2.erode(lines, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.uint8)
    if random.random() < 1 / 3:
        return normalise_sketch(thick, Size(lines.shape[1], lines.shape[0]), line_width_px=line_width_px)
    return draw_strokes(thick < 128, line_width_px=line_width_px)


_MOST_THICK_INK = 0.5  # times the pixels: ink share of the drawing, times the width of the pen
