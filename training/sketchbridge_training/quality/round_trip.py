"""Whether a painting keeps the lines it was made from: draw it again and compare the drawings."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sketchbridge_preprocess import Image, RequestOptions, draw_photo, encode, lines_for_model
from sketchbridge_training.errors import DataInvalid

TOLERANCE_PX = 2.0


@dataclass(frozen=True)
class EdgeMatch:
    """All in [0, 1]. precision: of the second drawing's ink that lies near the first's; recall: the other way round.

    f1: their harmonic mean; 1 for two empty drawings, 0 where one alone is empty.
    """

    precision: float
    recall: float
    f1: float


def served_lines(photo: Image, *, method: str = "canny", **parameters: float) -> Image:
    """(256, 256, 3) uint8, dark on white: what the served `sketch` step hands to a generator for this photo.

    photo: (H, W, 3) RGB uint8. method, parameters: as in a request.
    """
    options = RequestOptions(method=method, method_parameters=parameters)
    return lines_for_model(draw_photo(encode(photo, output_format="png"), options), options)


def edge_match(first: Image, second: Image, *, tolerance_px: float = TOLERANCE_PX) -> EdgeMatch:
    """Compare the ink of two drawings, (H, W) or (H, W, 3) uint8, dark on white, of one size.

    A pixel darker than middle gray is ink. It is found if the other drawing has ink within `tolerance_px`, by the
    Euclidean distance transform, so that many pixels may be found by one: lines, not pixels, are matched.
    Raises DataInvalid if the sizes differ.
    """
    one, other = _ink(first), _ink(second)
    if one.shape != other.shape:
        raise DataInvalid(f"Drawings are {first.shape} and {second.shape}; expected two of one size.")
    if not one.any() and not other.any():
        return EdgeMatch(1.0, 1.0, 1.0)
    if not one.any() or not other.any():
        return EdgeMatch(0.0, 0.0, 0.0)
    precision = _share_near(other, one, tolerance_px)
    recall = _share_near(one, other, tolerance_px)
    total = precision + recall
    return EdgeMatch(precision, recall, 2 * precision * recall / total if total else 0.0)


def _ink(drawing: Image) -> npt.NDArray[np.bool_]:
    gray = drawing if drawing.ndim == 2 else drawing.min(axis=2)
    return np.asarray(gray < 128, np.bool_)


def _share_near(ink: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_], tolerance_px: float) -> float:
    distance_px = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((np.asarray(distance_px)[ink] <= tolerance_px + 1e-3).mean())
