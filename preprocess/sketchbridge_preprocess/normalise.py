"""Any pen on any paper becomes the line drawing a generator was trained on.

A generator has seen lines of one width, one darkness, one polarity. People bring ballpoint on a photographed page,
chalk on a board, a fat marker, white on black, gray pencil, a screenshot. The steps, each a function below:

  paper     estimate the paper's colour everywhere (shadows and yellowing included)
  ink       how far each pixel is from its paper, in any direction of colour: so the polarity never has to be guessed
  strokes   two thresholds with hysteresis, specks dropped, filled areas replaced by their outlines
  centre    scale to the target size and thin to centre lines
  draw      draw the centre lines with the wanted width and darkness
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess.checks import Image, check_choice, check_image, check_range
from sketchbridge_preprocess.fit import Placement, Size, place
from sketchbridge_preprocess.thinning import thin

POLARITIES = ("dark_on_light", "light_on_dark")

_WORKING_SIDE_PX = 512  # strokes are found at this scale: twice the usual target, so that a hairline survives
_FAINTEST_INK = 14.0  # grey levels; what differs less from its paper is texture, JPEG noise or dust
_SPECK_PX = 8  # connected strokes with fewer pixels than this, at working scale, are dirt


def normalise_sketch(
    image: Image,
    size: Size,
    *,
    mode: str = "letterbox",
    line_width_px: float = 1.9,
    darkness: int = 255,
    polarity: str = "dark_on_light",
) -> Image:
    """Redraw any line drawing with even lines on even paper, at `size`.

    image: (H, W) or (H, W, 3) RGB uint8, any ink on any paper; not modified. mode: how it is fitted, see `fit`.
    line_width_px: full width at half height of the drawn lines, 0.8 to 8 target pixels. darkness: ink against paper, 1
    to 255 grey levels. polarity: "dark_on_light" or "light_on_dark".

    Returns (size.height, size.width) uint8. A picture without ink (an even surface) gives empty paper. Shading becomes
    lines and filled areas become outlines. Running it on its own result changes little.
    Raises InvalidImage or InvalidOption.
    """
    check_image(image)
    check_range("line_width_px", line_width_px, 0.8, 8)
    check_range("darkness", darkness, 1, 255)
    check_choice("polarity", polarity, POLARITIES)
    placement = place(Size(image.shape[1], image.shape[0]), size, mode=mode)
    strokes = find_strokes(_to_working_scale(image))
    lines = _ink(_onto_canvas(strokes, placement), line_width_px, darkness)
    return lines if polarity == "light_on_dark" else np.asarray(255 - lines, np.uint8)


def draw_strokes(strokes: NDArray[np.bool_], *, line_width_px: float = 1.9) -> Image:
    """Redraw strokes that are known, with the pen of `normalise_sketch`: its last two steps, centre and draw.

    strokes: (H, W) bool, True on ink; not modified. line_width_px: as there. Returns (H, W) uint8 in [0, 255], dark
    lines on white. Raises InvalidOption.
    """
    check_range("line_width_px", line_width_px, 0.8, 8)
    return np.asarray(255 - _ink(strokes.astype(np.uint8), line_width_px, 255), np.uint8)


def find_strokes(image: Image) -> NDArray[np.uint8]:
    """Mask of the pen strokes in a drawing: (H, W) uint8 of 0 and 1, filled areas as outlines, specks dropped.

    image: (H, W) or (H, W, 3) uint8, best with sides of a few hundred pixels.
    """
    contrast = _ink_contrast(image)
    pixels_up_to = np.cumsum(np.bincount(contrast.ravel(), minlength=256))  # by contrast
    strongest = int(np.searchsorted(pixels_up_to, 0.995 * contrast.size))
    darkest = max(strongest, 0.5 * int(contrast.max()))  # a few thin lines are less than 0.5 % of the pixels
    if darkest < _FAINTEST_INK:
        return np.zeros(contrast.shape, np.uint8)
    clear = max(_FAINTEST_INK, 0.42 * darkest)
    faint = max(0.6 * _FAINTEST_INK, 0.18 * darkest)
    return _outline_filled_areas(_hysteresis(contrast, faint, clear))


def _to_working_scale(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _WORKING_SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _ink_contrast(image: Image) -> NDArray[np.uint8]:
    """(H, W) uint8: the largest channel difference between each pixel and its paper, in grey levels."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    window = min(41, max(small.shape[0], small.shape[1])) | 1
    paper = cv2.GaussianBlur(cv2.medianBlur(small, window), (0, 0), 4)
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    channels = cv2.split(cv2.absdiff(image, paper))
    return np.asarray(functools.reduce(cv2.max, channels), np.uint8)  # many times faster than .max(axis=2)


def _hysteresis(contrast: NDArray[np.uint8], faint: float, clear: float) -> NDArray[np.uint8]:
    """Keep faint pixels only where they touch clear ones: a pencil line may fade, the paper's grain may not.

    Connected pixels fewer than a speck are dropped.
    """
    candidates = (contrast >= faint).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(candidates, connectivity=8)
    has_clear = np.zeros(count, bool)
    has_clear[labels[contrast >= clear]] = True
    keep = has_clear & (statistics[:, cv2.CC_STAT_AREA] >= _SPECK_PX)
    keep[0] = False  # the paper
    return keep.astype(np.uint8).take(np.asarray(labels, np.int32))


def _outline_filled_areas(strokes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace areas much thicker than the pen by their outlines, as an edge map would show them."""
    depth = np.asarray(cv2.distanceTransform(strokes, cv2.DIST_L2, 3), np.float32)
    radius = max(7, round(2.5 * _pen_radius(depth)))
    if float(depth.max()) <= radius:
        return strokes
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    filled = cv2.morphologyEx(strokes, cv2.MORPH_OPEN, disc)
    inside = cv2.erode(filled, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=[0])
    return np.where(inside > 0, 0, strokes).astype(np.uint8)


def _pen_radius(depth: NDArray[np.float32]) -> float:
    """Median half width of the strokes in pixels, from their distance transform; 0 without strokes."""
    ridge = depth[(depth > 0) & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-3)]
    return float(np.median(ridge)) if ridge.size else 0.0


def _onto_canvas(strokes: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Scale the stroke mask to where `placement` puts it; strokes thinner than a target pixel are widened."""
    canvas, scaled = placement.canvas, placement.scaled
    height, width = strokes.shape
    shrink = max(height / scaled.height, width / scaled.width)
    pen_width = 2 * _pen_radius(np.asarray(cv2.distanceTransform(strokes, cv2.DIST_L2, 3), np.float32)) - 1
    if pen_width < shrink:
        side = 1 + int(np.ceil(shrink - pen_width))
        strokes = np.asarray(cv2.dilate(strokes, np.ones((side, side), np.uint8)), np.uint8)
    x0, y0 = max(-placement.left, 0), max(-placement.top, 0)  # what a crop cuts off, in scaled pixels
    across, down = width / scaled.width, height / scaled.height
    visible = Size(min(scaled.width - x0, canvas.width), min(scaled.height - y0, canvas.height))
    cut = strokes[
        int(y0 * down) : max(int(y0 * down) + 1, round((y0 + visible.height) * down)),
        int(x0 * across) : max(int(x0 * across) + 1, round((x0 + visible.width) * across)),
    ]
    interpolation = cv2.INTER_AREA if shrink > 1 else cv2.INTER_LINEAR
    soft = cv2.resize(cut * 255, (visible.width, visible.height), interpolation=interpolation)
    result = np.zeros((canvas.height, canvas.width), np.uint8)
    left, top = max(placement.left, 0), max(placement.top, 0)
    result[top : top + visible.height, left : left + visible.width] = np.asarray(soft) > 127  # half
    return result


def _ink(strokes: NDArray[np.uint8], line_width_px: float, darkness: int) -> NDArray[np.uint8]:
    """How dark each pixel is drawn, in [0, darkness], from a mask of 0 and 1."""
    return np.asarray(np.rint(_draw(thin(strokes), line_width_px) * darkness), np.uint8)


def _draw(centre_lines: NDArray[np.uint8], line_width_px: float) -> NDArray[np.float32]:
    """Lines of that full width at half height, (H, W) float32 in [0, 1], with smooth flanks.

    A straight line blurred by a Gaussian peaks at 1 / (sigma sqrt(2 pi)); the gain undoes that, with a fifth more so
    that diagonals, whose pixels lie farther apart, are dark too.
    """
    sigma = line_width_px / 2.355
    blurred = cv2.GaussianBlur(centre_lines.astype(np.float32), (0, 0), sigma)
    return np.asarray(np.clip(blurred * (1.2 * sigma * np.sqrt(2 * np.pi)), 0, 1), np.float32)
