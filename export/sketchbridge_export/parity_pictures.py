"""Pictures to compare an artefact with its checkpoint on: drawn here, or read from a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_preprocess import INTERFACE_SIDE_PX, PreprocessError, Size, decode, fit

MAX_PICTURES = 32  # each is painted four times; a comparison is to take seconds
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_STROKES = (3, 8, 16, 32, 64)
_TEXTURES = 3

Pictures = NDArray[np.uint8]


def draw_pictures() -> Pictures:
    """(8, 256, 256, 3) uint8 RGB, the same on every call.

    Five line drawings, dark on white, from a few strokes to a crowded sheet, and three coloured textures with the
    falling spectrum of photographs, which reach values that drawings don't.
    """
    numbers = np.random.default_rng(20)
    drawings = [_drawing(numbers, strokes=strokes) for strokes in _STROKES]
    return np.stack(drawings + [_texture(numbers) for _ in range(_TEXTURES)])


def read_pictures(folder: Path) -> Pictures:
    """(P, 256, 256, 3) uint8 RGB: the folder's pictures by name, letterboxed; the first 32 if there are more.

    Raises OptionInvalid if the folder has no picture or one that can't be decoded.
    """
    if not folder.is_dir():
        raise OptionInvalid(f"`{folder}` is not a folder of pictures.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)[:MAX_PICTURES]
    if not paths:
        raise OptionInvalid(f"`{folder}` has no pictures; these are read: {', '.join(_SUFFIXES)}.")
    pictures = []
    for path in paths:
        try:
            picture = fit(decode(path.read_bytes()), Size(INTERFACE_SIDE_PX, INTERFACE_SIDE_PX), mode="letterbox").image
        except (PreprocessError, OSError) as exc:
            raise OptionInvalid(f"`{path}` can't be compared on: {exc}") from exc
        pictures.append(picture)
    return np.stack(pictures)


def _drawing(numbers: np.random.Generator, *, strokes: int) -> Pictures:
    sheet = np.full((INTERFACE_SIDE_PX, INTERFACE_SIDE_PX), 255, np.uint8)
    for _ in range(strokes):
        ink, width = int(numbers.integers(0, 90)), int(numbers.integers(1, 4))
        corners = numbers.integers(10, INTERFACE_SIDE_PX - 10, (4, 2)).astype(np.float64)
        t = np.linspace(0.0, 1.0, 40)[:, None]
        curve = (  # cubic Bezier
            (1 - t) ** 3 * corners[0]
            + 3 * (1 - t) ** 2 * t * corners[1]
            + 3 * (1 - t) * t**2 * corners[2]
            + t**3 * corners[3]
        )
        cv2.polylines(
            sheet, [curve.round().astype(np.int32)], isClosed=False, color=(ink,), thickness=width, lineType=cv2.LINE_AA
        )
    center = (int(numbers.integers(80, 176)), int(numbers.integers(80, 176)))
    axes = (int(numbers.integers(20, 70)), int(numbers.integers(20, 70)))
    cv2.ellipse(sheet, center, axes, float(numbers.uniform(0, 180)), 0.0, 360.0, (20,), 2, cv2.LINE_AA)
    return np.repeat(sheet[:, :, None], 3, axis=2)


def _texture(numbers: np.random.Generator) -> Pictures:
    noise = np.fft.fft2(numbers.standard_normal((3, INTERFACE_SIDE_PX, INTERFACE_SIDE_PX)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(INTERFACE_SIDE_PX), np.fft.fftfreq(INTERFACE_SIDE_PX)))
    smooth = np.fft.ifft2(noise / np.maximum(frequency, 1 / INTERFACE_SIDE_PX)).real.transpose(1, 2, 0)  # 1/f
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.asarray(np.clip(128 + 55 * smooth, 0, 255), np.uint8)
