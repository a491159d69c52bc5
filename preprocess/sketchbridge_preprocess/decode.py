"""Bytes to pixels: every accepted file becomes upright (H, W, 3) uint8 RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess.checks import Image
from sketchbridge_preprocess.errors import ImageTooLarge, InvalidImage
from sketchbridge_preprocess.fit import Size
from sketchbridge_preprocess.header import ImageHeader, read_header


@dataclass(frozen=True)
class Limits:
    """What one picture may cost. Checked against the header, before any pixel is decoded.

    max_bytes: size of the file. Raise it together with the message limits of the server and its callers.
    max_pixels: width x height. 50 million pixels are 150 MB once decoded.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = Limits()

_LONGEST_SIDE = 1_000_000  # libpng's own limit

Samples = NDArray[np.integer[Any]]
"""(H, W) or (H, W, C) as OpenCV decodes it: uint8 or uint16, BGR or BGRA."""

_BAND_ROWS = 64

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS, enough: Size | None = None) -> Image:
    """Decode a PNG, JPEG, WebP or BMP file.

    data: the whole file. Gray becomes three equal channels, 16-bit samples are rounded to 8, alpha is blended over
    white, Exif orientation is applied, CMYK JPEG is converted without a colour profile, and of an animation the first
    frame is taken. enough: a size in pixels that the caller will shrink the picture to; a JPEG at least twice as large
    on both sides is then decoded at 1/2, 1/4 or 1/8, which saves most of the work and keeps twice the pixels needed.

    Returns (H, W, 3) uint8 RGB in [0, 255], never aliasing `data`.
    Raises ImageTooLarge, UnsupportedFormat, TruncatedImage, or InvalidImage if the decoder finds it damaged.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The picture has {len(data):,} bytes; at most {limits.max_bytes:,} are taken. "
            "Scale it down or compress it."
        )
    header = read_header(data)
    if header.width * header.height > limits.max_pixels:
        raise ImageTooLarge(
            f"The picture is {header.width}x{header.height} = {header.width * header.height:,} pixels; "
            f"at most {limits.max_pixels:,} are taken. Scale it down."
        )
    if max(header.width, header.height) > _LONGEST_SIDE:
        raise ImageTooLarge(
            f"The picture is {header.width}x{header.height} pixels; no side may be over {_LONGEST_SIDE:,}. Crop it."
        )
    pixels = _decode_pixels(data, header, enough)
    return _orient(_to_rgb(pixels, header), header.orientation)


def _decode_pixels(data: bytes, header: ImageHeader, enough: Size | None) -> Samples:
    if header.format == "jpeg":
        flags = _REDUCED[_reduction(header, enough)] | cv2.IMREAD_IGNORE_ORIENTATION
    else:
        flags = cv2.IMREAD_UNCHANGED  # keeps alpha and 16 bits; it never applies the orientation
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as exc:
        raise _damaged(header) from exc
    if pixels is None:
        raise _damaged(header)
    return np.asarray(pixels)


def _damaged(header: ImageHeader) -> InvalidImage:
    return InvalidImage(
        f"The {header.format.upper()} ({header.width}x{header.height} by its header) is damaged and can't be decoded. "
        "Save it again."
    )


def _reduction(header: ImageHeader, enough: Size | None) -> int:
    if enough is None:
        return 1
    longest_needed, shortest = max(enough.width, enough.height), min(header.width, header.height)
    return next((n for n in (8, 4, 2) if shortest >= 2 * n * longest_needed), 1)


def _to_rgb(pixels: Samples, header: ImageHeader) -> Image:
    """(H, W, 3) uint8 RGB, converted in bands so that the wide intermediate numbers never exist for a whole picture."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 4 and header.format == "bmp" and not pixels[:, :, 3].any():
        pixels = pixels[:, :, :3]  # 32-bit bitmaps often leave the fourth byte unused
    if pixels.dtype == np.uint8 and channels == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, pixels.shape[0], _BAND_ROWS):
        rgb[top : top + _BAND_ROWS] = _band_to_rgb(pixels[top : top + _BAND_ROWS])
    return rgb


def _band_to_rgb(band: Samples) -> Image:
    if band.dtype == np.uint16:
        band = (band.astype(np.uint32) + 128) // 257  # 65535 = 255 * 257
    if band.ndim == 2:
        band = band[:, :, None]
    color = band[:, :, 2::-1] if band.shape[2] > 1 else np.repeat(band, 3, axis=2)  # (H, W, 3) RGB
    if band.shape[2] == 4:
        alpha = band[:, :, 3:].astype(np.uint16)  # (H, W, 1)
        color = (color.astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
    return color.astype(np.uint8)


def _orient(image: Image, orientation: int) -> Image:
    """Turn stored pixels upright (Exif 2.32, table of orientations)."""
    if orientation >= 5:  # 5 to 8 are transposed
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
