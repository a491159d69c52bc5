"""Makes a drawing of a photo as a person or an edge detector might, never the same twice.

A generator that has only seen one edge detector paints well from that detector and badly from a pen. So four drawings
in ten are what the server draws of a photo; each other one is drawn by a random method with random thresholds,
redrawn with the pen that every input gets, and then changed as people draw: see handwork.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess import Image, Size, canny, dodge, draw_strokes, laplacian, normalise_sketch, xdog
from sketchbridge_training.handwork import change, erase_outside, ink


def draw(photo: Image, random: np.random.Generator, *, subject: NDArray[np.bool_] | None = None) -> Image:
    """A random line drawing of `photo`.

    photo: (H, W, 3) uint8 RGB in [0, 255], best near 256 x 256; not modified. random: the only source of chance, so the
    same state gives the same drawing. subject: (H, W) bool, the part of the photo that alone is to be drawn, see
    `find_subject`; None for all of it. Returns (H, W) uint8 in [0, 255], dark lines on white; blank only if the photo
    has no edges to speak of. Raises InvalidImage from sketchbridge_preprocess for another shape or dtype.
    """
    if random.random() < _SERVED_SHARE:
        lines = _draw_as_served(photo, exactly=bool(random.random() < 0.5))
        if ink(lines) >= _LEAST_INK:
            return lines if subject is None else erase_outside(lines, subject)
    method = _METHODS[int(np.searchsorted(_CHANCES, random.random(), side="right"))]
    line_width_px = random.uniform(1.6, 2.2)
    lines = _redraw(method(photo, random), line_width_px)
    if ink(lines) < _LEAST_INK:  # thresholds too high for a pale photo
        faint = canny(photo, low_threshold=10, high_threshold=30, blur_sigma=1.5)
        lines = max(lines, _redraw(faint, line_width_px), key=ink)
    if ink(lines) == 0:  # edges between colours of one brightness, or a few levels high
        channels = [np.asarray(channel, np.uint8) for channel in cv2.split(photo)]
        faintest = np.min([canny(c, low_threshold=5, high_threshold=15, blur_sigma=2) for c in channels], axis=0)
        lines = _redraw(faintest, line_width_px)
    if subject is not None:
        lines = erase_outside(lines, subject)
    return change(lines, random, line_width_px=line_width_px)


def _draw_as_served(photo: Image, *, exactly: bool) -> Image:
    """What the server draws of a photo and redraws; if not exactly, then all but the same in a sixth of the time."""
    edges = canny(photo)
    if exactly:
        return normalise_sketch(edges, Size(photo.shape[1], photo.shape[0]))
    return _redraw(edges, _SERVED_LINE_WIDTH_PX)


_SERVED_SHARE = 0.4
_SERVED_LINE_WIDTH_PX = 1.9  # the default of normalise_sketch
_LEAST_INK = 0.015  # of the pixels: about the outline of a shoe


def _redraw(drawing: Image, line_width_px: float) -> Image:
    """With the pen that every input gets."""
    tones = np.bincount(drawing.ravel(), minlength=256)
    if tones[0] + tones[255] == drawing.size:
        return draw_strokes(drawing == 0, line_width_px=line_width_px)
    return normalise_sketch(drawing, Size(drawing.shape[1], drawing.shape[0]), line_width_px=line_width_px)


def _draw_canny(photo: Image, random: np.random.Generator) -> Image:
    high = float(np.exp(random.uniform(np.log(25), np.log(250))))
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
    ground = np.median(border, axis=0)
    if np.median(np.abs(border - ground).max(axis=1)) > _EVEN_GROUND:
        return _draw_contours(photo, random)  # a meadow has no silhouette
    strongest = canny(photo, low_threshold=40, high_threshold=random.uniform(60, 200), blur_sigma=random.uniform(2, 4))
    strongest = _simplified(strongest, random) if random.random() < 0.5 else strongest
    difference = cv2.absdiff(photo, np.broadcast_to(ground, photo.shape).astype(np.uint8))
    distance = cv2.max(cv2.max(difference[:, :, 0], difference[:, :, 1]), difference[:, :, 2])
    inside = cv2.morphologyEx(
        (np.asarray(distance) > random.uniform(16, 40)).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines = np.full(photo.shape[:2], 255, np.uint8)
    cv2.drawContours(lines, [c for c in contours if len(c) > 40], -1, (0,), 2)
    cv2.rectangle(lines, (0, 0), (lines.shape[1] - 1, lines.shape[0] - 1), (255,), 5)  # a frame is no part of the thing
    return np.minimum(lines, strongest)


def _draw_contours(photo: Image, random: np.random.Generator) -> Image:
    """A few long lines, drawn from memory: the strongest edges of a much blurred photo, their corners cut."""
    high = float(np.exp(random.uniform(np.log(30), np.log(110))))
    edges = canny(photo, low_threshold=0.4 * high, high_threshold=high, blur_sigma=random.uniform(2, 4.5))
    return _simplified(edges, random)


def _simplified(edges: Image, random: np.random.Generator) -> Image:
    """The longest lines of a black on white edge map, each by few points, smoothly joined."""
    contours, _ = cv2.findContours(255 - edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = sorted(contours, key=len, reverse=True)[: int(random.integers(6, 30))]
    tolerance_px = random.uniform(0.8, 2.8)
    lines = np.full(edges.shape, 255, np.uint8)
    curves = [
        _rounded(cv2.approxPolyDP(contour, tolerance_px, closed=True)) for contour in longest if len(contour) > 16
    ]
    cv2.polylines(lines, curves, isClosed=True, color=(0,), thickness=2, shift=_SHIFT)
    return lines


_SHIFT = 4  # binary places of a coordinate after the point, as OpenCV draws it


def _rounded(polygon: NDArray[Any]) -> NDArray[np.int32]:
    """(N, 1, 2) corners, each cut twice, in sixteenths of a pixel.

    Source: Chaikin, "An algorithm for high-speed curve generation", Computer Graphics and Image Processing 1974.
    """
    points = polygon.reshape(-1, 2).astype(np.float32)
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return np.asarray(np.rint(points * 2**_SHIFT), np.int32)[:, None]


_EVEN_GROUND = 24  # grey levels that half of the border may differ from its median

_METHODS: Sequence[Callable[[Image, np.random.Generator], Image]] = (
    _draw_canny,
    _draw_xdog,
    _draw_laplacian,
    _draw_dodge,
    _draw_outline,
    _draw_contours,
)
_CHANCES = np.cumsum([0.42, 0.12, 0.06, 0.08, 0.15, 0.17])[:-1]
