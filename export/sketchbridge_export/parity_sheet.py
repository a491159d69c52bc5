"""A picture to look at: what went in, what should have come out, what did, and where they differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_CAPTION_PX = 28
_GAP_PX = 8
_WHITE = 255


def write_sheet(path: Path, columns: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    """Write captioned pictures side by side as PNG.

    columns: caption and (H, W, 3) uint8 RGB picture, all of one size. A last column is added: the absolute difference
    of the last two, brightened so that its largest value is white. Written beside and renamed. Raises OSError.
    """
    (_, expected), (_, painted) = columns[-2:]
    difference = np.abs(expected.astype(np.int16) - painted.astype(np.int16))
    largest = int(difference.max())
    brightened = (difference * (255 / max(largest, 1))).astype(np.uint8)
    parts = [captioned(caption, picture) for caption, picture in columns]
    parts.append(captioned(f"difference, at most {largest}", brightened))
    gap = np.full((parts[0].shape[0], _GAP_PX, 3), _WHITE, np.uint8)
    sheet = np.concatenate([part for column in parts for part in (column, gap)][:-1], axis=1)
    encoded, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise AssertionError("a uint8 picture can always be a PNG")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data.tobytes())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def captioned(caption: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 with its caption in a white band above it: (H + 28, W, 3)."""
    band = np.full((_CAPTION_PX, picture.shape[1], 3), _WHITE, np.uint8)
    cv2.putText(band, caption, (2, _CAPTION_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([band, picture])
