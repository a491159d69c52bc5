"""The served steps as functions of one request: the models of the repository call these, and so do the tests.

image_for_model    bytes -> (256, 256, 3): the picture as it is, fitted
sketch_for_model   bytes -> (256, 256, 3): the drawing, redrawn with the lines a generator knows
draw_photo         bytes -> (H, W): a photo's sketch
lines_for_model    (H, W) or (H, W, 3) drawing -> (256, 256, 3)
to_wire            pixels -> bytes in the format asked for
"""

from __future__ import annotations

import base64
import binascii

import cv2
import numpy as np

from sketchbridge_preprocess.checks import Image
from sketchbridge_preprocess.decode import DEFAULT_LIMITS, Limits, decode
from sketchbridge_preprocess.encode import encode
from sketchbridge_preprocess.errors import ImageTooLarge, InvalidImage
from sketchbridge_preprocess.fit import Size, fit
from sketchbridge_preprocess.normalise import normalise_sketch
from sketchbridge_preprocess.options import RequestOptions
from sketchbridge_preprocess.sketch import sketch

INTERFACE_SIDE_PX = 256
"""Side of the square pictures that models exchange. Each generator resizes to its own size inside its graph."""

_INTERFACE = Size(INTERFACE_SIDE_PX, INTERFACE_SIDE_PX)
_SKETCH_SOURCE = Size(2 * INTERFACE_SIDE_PX, 2 * INTERFACE_SIDE_PX)  # lines are found at twice the size they are drawn


def image_for_model(data: bytes, options: RequestOptions, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """(256, 256, 3) uint8 RGB: the decoded picture, fitted. Raises InvalidImage and its kinds."""
    image = decode(from_wire(data, limits), limits=limits, enough=_INTERFACE)
    return fit(image, _INTERFACE, mode=options.fit).image


def sketch_for_model(data: bytes, options: RequestOptions, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """(256, 256, 3) uint8, three equal channels, dark lines on white. Raises InvalidImage and its kinds."""
    image = decode(from_wire(data, limits), limits=limits, enough=_SKETCH_SOURCE)
    return lines_for_model(image, options)


def lines_for_model(image: Image, options: RequestOptions) -> Image:
    """(256, 256, 3) uint8 from a decoded drawing: redrawn, or only fitted if `options.normalise` is "off"."""
    if options.normalise == "off":
        lines = fit(image, _INTERFACE, mode=options.fit).image
    else:
        lines = normalise_sketch(image, _INTERFACE, mode=options.fit)
    return lines if lines.ndim == 3 else np.repeat(lines[:, :, None], 3, axis=2)


def draw_photo(data: bytes, options: RequestOptions, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """(H, W) uint8, dark lines on white, no side over `options.max_side_px`. Raises InvalidImage and its kinds."""
    side = options.max_side_px
    image = decode(from_wire(data, limits), limits=limits, enough=Size(side, side))
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return sketch(image, method=options.method, **options.method_parameters)


def to_wire(image: Image, options: RequestOptions) -> bytes:
    """Encode pixels as the caller asked: PNG, JPEG or WebP, as bytes or as base64 text (RFC 4648)."""
    data = encode(image, output_format=options.output_format, quality=options.quality)
    return base64.b64encode(data) if options.output_encoding == "base64" else data


def from_wire(data: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The file itself, from raw bytes or from base64 text, with or without a `data:image/...;base64,` prefix.

    No accepted file begins like base64 text, so the caller need not say which it is. White space in it is ignored.
    Raises ImageTooLarge before decoding text that is too long, InvalidImage if the text is no base64.
    """
    is_url = data.startswith(b"data:")
    if not is_url and not data.startswith(_BASE64_BEGINNINGS):
        return data
    if len(data) > limits.max_bytes * 3 // 2:
        raise ImageTooLarge(
            f"The picture has {len(data):,} characters of base64; at most {limits.max_bytes:,} bytes are taken. "
            "Scale it down or compress it."
        )
    if is_url:
        beginning, separator, data = data.partition(b";base64,")
        if not separator or len(beginning) > 100:
            raise InvalidImage("The data URL is not base64. Expected `data:image/png;base64,...`.")
    try:
        return base64.b64decode(data.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error as exc:
        raise InvalidImage(f"The picture looks like base64 text, but is none: {exc}. Send it whole.") from exc


_BASE64_BEGINNINGS = (b"iVBORw0KGgo", b"/9j/", b"UklGR", b"Qk")  # PNG, JPEG, RIFF (WebP), BMP
