"""A white sheet that is drawn on stroke by stroke, as a hand does."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sketchbridge_client.errors import InvalidArgument

_MAX_SIZE_PX = 4096
_FARTHEST_PX = 100_000  # of a point; Pillow fails on numbers that are no 32-bit integers
_PAPER, _INK = 255, 0  # gray levels

Points = Sequence[tuple[float, float]] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points, each (x, y) in pixels."""

    points: list[tuple[float, float]]
    width_px: int


class Canvas:
    """A white square with black strokes, and what is needed to take the last one off. It has no lock."""

    def __init__(self, size_px: int) -> None:
        if isinstance(size_px, bool) or not isinstance(size_px, int) or not 1 <= size_px <= _MAX_SIZE_PX:
            raise InvalidArgument(f"`size_px` is {size_px!r}; expected a whole number from 1 to {_MAX_SIZE_PX}.")
        self._image = Image.new("L", (size_px, size_px), _PAPER)
        self._strokes: list[Stroke] = []

    def copy(self) -> Image.Image:
        """The canvas as it is now: mode L."""
        return self._image.copy()

    def draw(self, stroke: Stroke) -> None:
        """Add a stroke."""
        self._strokes.append(stroke)
        self._ink(stroke)

    def undo(self) -> bool:
        """Take the last stroke off; False if there was none."""
        if not self._strokes:
            return False
        self._strokes.pop()
        self._wipe()
        for stroke in self._strokes:
            self._ink(stroke)
        return True

    def clear(self) -> None:
        """Take everything off."""
        self._strokes.clear()
        self._wipe()

    def _wipe(self) -> None:
        self._image.paste(_PAPER, (0, 0, *self._image.size))

    def _ink(self, stroke: Stroke) -> None:
        draw = ImageDraw.Draw(self._image)
        if len(stroke.points) > 1:
            draw.line(stroke.points, fill=_INK, width=stroke.width_px, joint="curve")
        for x, y in (stroke.points[0], stroke.points[-1]):
            left, top = (round(value - (stroke.width_px - 1) / 2) for value in (x, y))
            box = (left, top, left + stroke.width_px - 1, top + stroke.width_px - 1)  # Pillow includes both edges
            if stroke.width_px < 3:  # Pillow draws nothing of so small an ellipse
                draw.rectangle(box, fill=_INK)
            else:
                draw.ellipse(box, fill=_INK)


def checked_points(points: Points) -> list[tuple[float, float]]:
    """The points of a stroke, at least one. Raises InvalidArgument."""
    try:
        array = np.asarray(points, dtype=np.float64)  # (N, 2)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument(f"`points` cannot be read: {exc}. Expected (x, y) pairs of numbers.") from exc
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise InvalidArgument(f"`points` has the shape {array.shape}; expected (N, 2): at least one pair (x, y).")
    if not (np.abs(array) <= _FARTHEST_PX).all():  # nor is NaN
        raise InvalidArgument(f"`points` has numbers that are not within {_FARTHEST_PX} of 0. Leave those points out.")
    return [(x, y) for x, y in array.tolist()]


def checked_width_px(width_px: object) -> int:
    """The width of a stroke in whole pixels. Raises InvalidArgument."""
    if isinstance(width_px, bool) or not isinstance(width_px, numbers.Real) or not _is_width(width_px):
        raise InvalidArgument(f"`width_px` is {width_px!r}; expected above 0 and up to {_MAX_SIZE_PX} pixels.")
    return max(1, round(float(width_px)))


def _is_width(number: numbers.Real) -> bool:
    return not number <= 0 and number <= _MAX_SIZE_PX  # as it is: a float cannot hold every number
