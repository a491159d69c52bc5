"""Makes a drawing of a photo as a person or an edge detector might, never the same twice.

A generator that has only seen one edge detector paints well from that detector and badly from a pen. So each pair draws
its photo by a random method with random thresholds, redraws it with the pen every input gets (`normalise_sketch`),
and then leaves out what people leave out: short details, stretches of line, and straightness.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from sketchbridge_preprocess import Image, Size, canny, dodge, laplacian, normalise_sketch, xdog


def draw(photo: Image, random: np.random.Generator) -> Image:
    """A random line drawing of `photo`.

    photo: (H, W, 3) uint8 RGB in [0, 255], best near 256 x 256; not modified. random: the only source of chance, so the
    same state gives the same drawing. Returns (H, W) uint8 in [0, 255], dark lines on white; blank only if the photo
    has no edges to speak of. Raises InvalidImage from sketchbridge_preprocess for another shape or dtype.
    """
    method = _METHODS[random.choice(len(_METHODS), p=_WEIGHTS)]
    size = Size(photo.shape[1], photo.shape[0])
    line_width_px = random.uniform(1.6, 2.2)
    lines = normalise_sketch(method(photo, random), size, line_width_px=line_width_px)
    if _ink(lines) < _LEAST_INK:  # thresholds too high for a pale photo
        faint = canny(photo, low_threshold=10, high_threshold=30, blur_sigma=1.5)
        lines = max(lines, normalise_sketch(faint, size, line_width_px=line_width_px), key=_ink)
    if _ink(lines) == 0:  # edges between colours of one brightness, or a few levels high
        channels = [np.asarray(channel, np.uint8) for channel in cv2.split(photo)]
        faintest = np.min([canny(c, low_threshold=5, high_threshold=15, blur_sigma=2) for c in channels], axis=0)
        lines = normalise_sketch(faintest, size, line_width_px=line_width_px)
    if random.random() < 0.5:
        lines = _leave_out_details(lines, random)
    if random.random() < 0.4:
        lines = _leave_gaps(lines, random)
    if random.random() < 0.5:
        lines = _wobble(lines, random)
    return lines


def _ink(lines: Image) -> float:
    """Share of the pixels that are inked."""
    return float(np.mean(lines < 128))


def _draw_canny(photo: Image, random: np.random.Generator) -> Image:
    high = float(np.exp(random.uniform(np.log(60), np.log(320))))
    return canny(
        photo, low_threshold=high * random.uniform(0.3, 0.6), high_threshold=high, blur_sigma=random.uniform(0.7, 2.6)
    )


def _draw_xdog(photo: Image, random: np.random.Generator) -> Image:
    return xdog(
        photo, sigma=random.uniform(0.8, 1.8), sharpness=random.uniform(12, 30), epsilon=random.uniform(0.02, 0.2)
    )


def _draw_laplacian(photo: Image, random: np.random.Generator) -> Image:
    return laplacian(photo, blur_sigma=random.uniform(1.5, 2.5), floor=random.uniform(5, 12))


def _draw_dodge(photo: Image, random: np.random.Generator) -> Image:
    return dodge(photo, blur_sigma=random.uniform(3, 10))


def _draw_outline(photo: Image, random: np.random.Generator) -> Image:
    """The silhouette against the border's colour, with only the strongest lines inside: what a child draws first."""
    border = np.concatenate([photo[0], photo[-1], photo[:, 0], photo[:, -1]])
    distance = np.abs(photo.astype(np.int16) - np.median(border, axis=0)).max(axis=2)
    inside = cv2.morphologyEx(
        (distance > random.uniform(16, 40)).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines = np.full(photo.shape[:2], 255, np.uint8)
    cv2.drawContours(lines, [c for c in contours if len(c) > 40], -1, (0,), 2)
    strongest = canny(photo, low_threshold=40, high_threshold=random.uniform(60, 200), blur_sigma=random.uniform(2, 4))
    return np.minimum(lines, strongest)


_METHODS: tuple[Callable[[Image, np.random.Generator], Image], ...] = (
    _draw_canny,
    _draw_xdog,
    _draw_laplacian,
    _draw_dodge,
    _draw_outline,
)
_WEIGHTS = (0.5, 0.14, 0.06, 0.1, 0.2)

_LEAST_INK = 0.015  # of the pixels: about the outline of a shoe


def _leave_out_details(lines: Image, random: np.random.Generator) -> Image:
    """Drop connected lines at random, short ones more often than long ones."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats((lines < 128).astype(np.uint8), connectivity=8)
    typical = random.uniform(8, 50)  # pixels
    drop = random.random(count) < np.exp(-statistics[:, cv2.CC_STAT_AREA] / typical)
    drop[0] = False
    if statistics[drop, cv2.CC_STAT_AREA].sum() > 0.4 * statistics[1:, cv2.CC_STAT_AREA].sum():
        return lines  # too little would be left to tell what it is
    gone = cv2.dilate(drop[labels].astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.where(gone == 1, 255, lines).astype(np.uint8)


def _leave_gaps(lines: Image, random: np.random.Generator) -> Image:
    result = lines.copy()
    height, width = lines.shape
    for _ in range(random.integers(1, 12)):
        centre = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(result, centre, int(random.integers(3, 14)), (255,), -1)
    return result if _ink(result) > 0.5 * _ink(lines) else lines  # a small drawing would be gone


def _wobble(lines: Image, random: np.random.Generator) -> Image:
    """Move the lines by a smooth random field of a pixel or two: nobody's hand is straight."""
    height, width = lines.shape
    strength, scale = random.uniform(0.5, 2.5), random.uniform(8, 24)
    field = random.standard_normal((2, height, width)).astype(np.float32)
    dx, dy = (cv2.GaussianBlur(axis, (0, 0), scale) for axis in field)
    dx, dy = (axis * strength / max(float(axis.std()), 1e-6) for axis in (dx, dy))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(lines, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(255,))
    return np.asarray(moved, np.uint8)
