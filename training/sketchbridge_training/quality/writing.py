"""Results appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2

from sketchbridge_preprocess import Image


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename it there; its folder is made. Raises OSError; `path` is then as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_picture(path: Path, picture: Image) -> None:
    """Write (H, W, 3) RGB uint8 as PNG, whole. Raises OSError."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_whole(path, data.tobytes())
