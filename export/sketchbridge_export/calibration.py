"""Pictures that show a quantiser what a generator will be sent: sketches made of a folder, or of the shipped drawings.

A generator that is served sees what `decode` and `sketch` make of callers' files, so the same functions make these.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.parity_pictures import Pictures, picture_files, textures
from sketchbridge_export.shipped import drawings
from sketchbridge_preprocess import (
    INTERFACE_SIDE_PX,
    SKETCH_METHODS,
    Image,
    PreprocessError,
    RequestOptions,
    Size,
    decode,
    draw_photo,
    fit,
    lines_for_model,
    sketch_for_model,
    to_gray,
)

MAX_FILES = 128  # each is painted for every network that is tried; for the shipped generator 9 did nearly as well
_PAPER_LEVELS = 24  # how far paper may differ from its own level: grain, shadows, JPEG
_PAPER_SHARE = 0.6  # of a drawing at least
_STROKE_PX = 9  # in a picture of 256 pixels no pen is as wide
_WIDE_SHARE = 0.3  # of the ink, at most: blots and crossings
_SHIFTS = ((6, -8), (-24, 16), (20, -28))
_TEXTURES_SEED = 21


def calibration_pictures(folder: Path | None) -> Pictures:
    """(P, 256, 256, 3) uint8 RGB, the same on every call.

    folder: with photos or drawings; what is mostly paper is a drawing, and taken as one, while a photo is drawn with
    each sketch method in turn. At most 128 files are read, evenly spread over the folder by name. None takes the
    drawings that the package ships, shifted, mirrored and with other pens: few shapes, all of them shoes, so a folder
    of pictures like those that callers will send is safer. (The shipped shoes generator did equally well on both.)

    Coloured textures are always among them, since a generator can also be sent arrays that nobody redrew. None of the
    pictures that artefacts are compared on is: a quantiser must not be judged on what it was fitted to.
    Raises OptionInvalid if the folder has no picture or one that can't be decoded.
    """
    return np.concatenate([textures(_TEXTURES_SEED), _augmented() if folder is None else _read(folder)])


def looks_drawn(image: Image) -> bool:
    """Whether a picture is paper of one level with strokes on it. image: (H, W) or (H, W, 3) uint8.

    A photo of a thing before a plain wall has paper too, but what stands out from it is no strokes.
    """
    small = fit(to_gray(image), Size(INTERFACE_SIDE_PX, INTERFACE_SIDE_PX), mode="crop").image
    levels = np.bincount(small.ravel(), minlength=256)
    near = np.convolve(levels, np.ones(2 * _PAPER_LEVELS + 1, levels.dtype), mode="same")
    paper = int(near.argmax())
    ink = (np.abs(small.astype(np.int16) - paper) > _PAPER_LEVELS).astype(np.uint8)
    wide = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((_STROKE_PX, _STROKE_PX), np.uint8))
    return bool(ink.mean() <= 1 - _PAPER_SHARE and wide.sum() <= _WIDE_SHARE * ink.sum())


def _read(folder: Path) -> Pictures:
    paths = picture_files(folder)
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(len(paths), MAX_FILES)).astype(int)]
    pictures = []
    for number, path in enumerate(chosen):
        try:
            pictures.append(_as_sketch(path.read_bytes(), number))
        except (PreprocessError, OSError) as exc:  # noqa: PERF203 - the message names the file
            raise OptionInvalid(f"`{path}` can't be calibrated on: {exc}") from exc
    return np.stack(pictures)


def _as_sketch(data: bytes, number: int) -> Image:
    if looks_drawn(decode(data)):
        return sketch_for_model(data, RequestOptions())
    method = tuple(SKETCH_METHODS)[number % len(SKETCH_METHODS)]
    options = RequestOptions(method=method)
    return lines_for_model(draw_photo(data, options), options)


def _augmented() -> Pictures:
    pictures = []
    for path in sorted(drawings().glob("*.png")):
        lines = sketch_for_model(path.read_bytes(), RequestOptions())
        for pen in (lines, cv2.erode(lines, np.ones((2, 2), np.uint8)), cv2.GaussianBlur(lines, (3, 3), 0)):
            drawn = np.asarray(pen, np.uint8)
            for shift in _SHIFTS:
                pictures += [_shifted(drawn, shift), _shifted(drawn[:, ::-1], shift)]
    return np.stack(pictures)


def _shifted(picture: Image, shift: tuple[int, int]) -> Image:
    """Moved right and down by `shift` pixels; what comes in is paper."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    size = (INTERFACE_SIDE_PX, INTERFACE_SIDE_PX)
    moved = cv2.warpAffine(np.ascontiguousarray(picture), matrix, size, borderValue=(255, 255, 255))
    return np.asarray(moved, np.uint8)
