"""Brings a picture to a size, and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sketchbridge_preprocess.checks import Image, check_choice, check_image, check_range
from sketchbridge_preprocess.errors import InvalidImage, InvalidOption

FIT_MODES = ("letterbox", "crop", "stretch")


@dataclass(frozen=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InvalidOption(f"A size of {self.width}x{self.height} has no pixels; both sides must be at least 1.")


@dataclass(frozen=True)
class Placement:
    """Where a source picture lies on the canvas it was fitted to; what `unfit` needs to bring it back.

    source: size before. canvas: size after. scaled: size of the source once scaled. left, top: where the scaled source
    begins on the canvas, in pixels; negative where it was cropped.
    So x_canvas = x_source * scaled.width / source.width + left.
    """

    source: Size
    canvas: Size
    scaled: Size
    left: int
    top: int


@dataclass(frozen=True)
class Fitted:
    """A picture on its canvas, and how it got there."""

    image: Image
    placement: Placement


def place(source: Size, canvas: Size, *, mode: str = "letterbox") -> Placement:
    """Decide where a picture of size `source` goes on `canvas`; see `fit` for the modes."""
    check_choice("fit", mode, FIT_MODES)
    if mode == "stretch":
        return Placement(source, canvas, canvas, 0, 0)
    ratios = (canvas.width / source.width, canvas.height / source.height)
    scale = min(ratios) if mode == "letterbox" else max(ratios)
    scaled = Size(max(1, round(source.width * scale)), max(1, round(source.height * scale)))
    if mode == "letterbox":  # rounding must not push it over the edge, nor leave a crop short of it
        scaled = Size(min(scaled.width, canvas.width), min(scaled.height, canvas.height))
    else:
        scaled = Size(max(scaled.width, canvas.width), max(scaled.height, canvas.height))
    return Placement(source, canvas, scaled, (canvas.width - scaled.width) // 2, (canvas.height - scaled.height) // 2)


def fit(image: Image, size: Size, *, mode: str = "letterbox", fill: int = 255) -> Fitted:
    """Scale a picture to `size`.

    image: (H, W) or (H, W, 3) uint8; not modified. mode: "letterbox" keeps all of it and its aspect ratio and pads with
    `fill` (0 to 255; white paper by default); "crop" keeps the aspect ratio and cuts the longer side at both ends;
    "stretch" changes the aspect ratio. Shrinks by area averaging, enlarges bilinearly.

    Returns the (size.height, size.width[, 3]) uint8 picture, never aliasing `image`, and its placement.
    Raises InvalidImage or InvalidOption.
    """
    check_image(image)
    check_range("fill", fill, 0, 255)
    placement = place(Size(image.shape[1], image.shape[0]), size, mode=mode)
    if mode == "crop":
        image = _crop_source(image, placement)
        return Fitted(_resize(image, size), placement)
    scaled = _resize(image, placement.scaled)
    canvas = np.full((size.height, size.width, *image.shape[2:]), fill, np.uint8)
    canvas[
        placement.top : placement.top + scaled.shape[0],
        placement.left : placement.left + scaled.shape[1],
    ] = scaled
    return Fitted(canvas, placement)


def unfit(image: Image, placement: Placement, *, fill: int = 255) -> Image:
    """Undo `fit`: bring a picture of the canvas's size back to the source's frame.

    image: (placement.canvas.height, placement.canvas.width[, 3]) uint8, usually what a model painted there.
    Padding is cut away; what a crop had cut off is `fill`. Returns (source.height, source.width[, 3]) uint8.
    Raises InvalidImage if `image` has not the canvas's size.
    """
    check_image(image)
    canvas = placement.canvas
    if image.shape[:2] != (canvas.height, canvas.width):
        raise InvalidImage(
            f"`image` is {image.shape[1]}x{image.shape[0]}; the placement is for {canvas.width}x{canvas.height}. "
            "Resize it to the canvas first."
        )
    source, scaled = placement.source, placement.scaled
    left, top = max(placement.left, 0), max(placement.top, 0)
    visible = image[top : top + scaled.height, left : left + scaled.width]
    if placement.left >= 0 and placement.top >= 0:
        return _resize(visible, source)
    x0, y0, width, height = _source_window(placement)
    result = np.full((source.height, source.width, *image.shape[2:]), fill, np.uint8)
    result[y0 : y0 + height, x0 : x0 + width] = _resize(visible, Size(width, height))
    return result


def _source_window(placement: Placement) -> tuple[int, int, int, int]:
    """The part of the source that a crop shows: left, top, width, height in source pixels."""
    source, canvas, scaled = placement.source, placement.canvas, placement.scaled
    width = max(1, round(source.width * canvas.width / scaled.width))
    height = max(1, round(source.height * canvas.height / scaled.height))
    return (source.width - width) // 2, (source.height - height) // 2, width, height


def _crop_source(image: Image, placement: Placement) -> Image:
    """Cut before scaling: a 1 x 10,000 strip cropped to a square never becomes 256 x 2,560,000."""
    x0, y0, width, height = _source_window(placement)
    return image[y0 : y0 + height, x0 : x0 + width]


def _resize(image: Image, size: Size) -> Image:
    if image.shape[:2] == (size.height, size.width):
        return image.copy()
    smaller = (min(size.width, image.shape[1]), min(size.height, image.shape[0]))
    averaged = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)  # per axis: only what shrinks
    return np.asarray(cv2.resize(averaged, (size.width, size.height), interpolation=cv2.INTER_LINEAR), np.uint8)
