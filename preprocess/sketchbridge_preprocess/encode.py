"""Pixels to bytes."""

from __future__ import annotations

import cv2

from sketchbridge_preprocess.checks import Image, check_choice, check_image, check_whole
from sketchbridge_preprocess.errors import InvalidImage

OUTPUT_FORMATS = ("png", "jpeg", "webp")
_LONGEST_SIDE = {"png": 1_000_000, "jpeg": 65_535, "webp": 16_383}


def encode(image: Image, *, output_format: str = "png", quality: int = 90) -> bytes:
    """Encode a picture.

    image: (H, W) gray or (H, W, 3) RGB uint8. output_format: "png" (lossless, fast compression level), "jpeg" or
    "webp". quality: 1 (smallest) to 100 (best), for JPEG and WebP; WebP at 100 is still lossy here.

    Raises InvalidImage for arrays that are no picture or have a side the format cannot hold (JPEG 65,535 pixels,
    WebP 16,383), InvalidOption for an unknown format or quality out of range.
    """
    check_image(image)
    check_choice("output_format", output_format, OUTPUT_FORMATS)
    check_whole("quality", quality, 1, 100)
    if max(image.shape[:2]) > _LONGEST_SIDE[output_format]:
        raise InvalidImage(
            f"A picture of {image.shape[1]}x{image.shape[0]} pixels does not fit into {output_format.upper()}, whose "
            f"sides end at {_LONGEST_SIDE[output_format]:,}. Ask for PNG."
        )
    settings = {
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],  # faster than 6, and hardly larger
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }[output_format]
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(f".{output_format}", bgr, settings)
    if not done:
        raise InvalidImage(f"The {output_format.upper()} encoder refused a picture of shape {image.shape}.")
    return data.tobytes()
