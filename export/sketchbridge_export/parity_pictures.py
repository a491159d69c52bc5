"""Pictures to compare an artefact with its checkpoint on: those that the package ships, or a folder of your own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.shipped import drawings
from sketchbridge_preprocess import INTERFACE_SIDE_PX, PreprocessError, RequestOptions, sketch_for_model

MAX_PICTURES = 32  # each is painted four times; a comparison is to take seconds
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_TEXTURES = 3
_TEXTURES_SEED = 20

Pictures = NDArray[np.uint8]


def shipped_pictures() -> Pictures:
    """(P, 256, 256, 3) uint8 RGB, the same on every call.

    The hand-drawn sketches as the server feeds them, and three coloured textures with the falling spectrum of
    photographs, which reach values that drawings don't and tell red from blue.
    """
    return np.concatenate([read_pictures(drawings()), textures(_TEXTURES_SEED)])


def textures(seed: int) -> Pictures:
    """(3, 256, 256, 3) uint8 RGB: coloured noise with the falling spectrum of photographs, the same for one seed."""
    numbers = np.random.default_rng(seed)
    return np.stack([_texture(numbers) for _ in range(_TEXTURES)])


def read_pictures(folder: Path) -> Pictures:
    """(P, 256, 256, 3) uint8 RGB: the folder's drawings by name, redrawn as the server does; the first 32 if more.

    Of a single drawing the mirror image is taken too. Raises OptionInvalid if the folder has no picture or one that
    can't be decoded.
    """
    pictures = []
    for path in picture_files(folder)[:MAX_PICTURES]:
        try:
            picture = sketch_for_model(path.read_bytes(), RequestOptions())
        except (PreprocessError, OSError) as exc:
            raise OptionInvalid(f"`{path}` can't be compared on: {exc}") from exc
        pictures.append(picture)
    if len(pictures) == 1:  # or nothing would show whether pictures in a batch mix
        pictures.append(pictures[0][:, ::-1])
    return np.stack(pictures)


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder, by name. Raises OptionInvalid if there are none."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as exc:
        raise OptionInvalid(f"`{folder}` is not a folder of pictures: {exc.strerror}.") from exc
    if not paths:
        raise OptionInvalid(f"`{folder}` has no pictures; these are read: {', '.join(_SUFFIXES)}.")
    return paths


def _texture(numbers: np.random.Generator) -> Pictures:
    noise = np.fft.fft2(numbers.standard_normal((3, INTERFACE_SIDE_PX, INTERFACE_SIDE_PX)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(INTERFACE_SIDE_PX), np.fft.fftfreq(INTERFACE_SIDE_PX)))
    smooth = np.fft.ifft2(noise / np.maximum(frequency, 1 / INTERFACE_SIDE_PX)).real.transpose(1, 2, 0)  # 1/f
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.asarray(np.clip(128 + 55 * smooth, 0, 255), np.uint8)
