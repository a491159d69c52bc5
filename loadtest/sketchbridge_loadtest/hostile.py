"""Files that somebody will send one day: what a server must refuse quickly and clearly, or take as documented."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class HostileFile:
    """A file to send. words: a regular expression for the error it must get; empty if it is taken."""

    make: Callable[[], bytes]
    words: str


def _photo(width: int = 320, height: int = 240) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin(x / 17) + 60 * np.cos(y / 11)
    return Image.fromarray(np.stack([waves, waves[::-1], 255 - waves], 2).clip(0, 255).astype(np.uint8))


def _saved(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def truncated_jpeg() -> bytes:
    """The first half of a good JPEG."""
    data = _saved(_photo(), "JPEG")
    return data[: len(data) // 2]


def _png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_bomb() -> bytes:
    """A valid PNG of 30,000 x 30,000 pixels in about 100 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    return _png(30_000, 30_000, b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush())


def empty_png() -> bytes:
    """A PNG whose header says 0 x 0."""
    return _png(0, 0, zlib.compress(b""))


def cmyk_jpeg() -> bytes:
    """A JPEG in printer's colours; taken, without a colour profile."""
    return _saved(_photo().convert("CMYK"), "JPEG")


def animated_gif() -> bytes:
    """Two frames."""
    buffer = io.BytesIO()
    Image.new("P", (64, 64), 1).save(buffer, "GIF", save_all=True, append_images=[Image.new("P", (64, 64), 2)])
    return buffer.getvalue()


HOSTILE_FILES: Mapping[str, HostileFile] = MappingProxyType(
    {
        "truncated JPEG": HostileFile(truncated_jpeg, "JPEG is cut off"),
        "PNG bomb": HostileFile(png_bomb, "30000x30000 = 900,000,000 pixels"),
        "text": HostileFile(lambda: b"Dear server, please paint me a shoe.", "This is text, not a picture"),
        "empty": HostileFile(lambda: b"", "(?i)empty|0 bytes"),
        "0x0 PNG": HostileFile(empty_png, "0x0 pixels"),
        "animated GIF": HostileFile(animated_gif, "This is a GIF"),
        "CMYK JPEG": HostileFile(cmyk_jpeg, ""),
    }
)
