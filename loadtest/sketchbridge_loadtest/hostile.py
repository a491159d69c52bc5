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


def smuggled_size() -> bytes:
    """A JPEG that shows 16 x 16 pixels to a careless reader of headers and 9,000 x 9,000 to the decoder."""
    small, large = _saved(_photo(16, 16), "JPEG"), bytearray(_saved(_photo(16, 16), "JPEG"))
    frame = large.index(b"\xff\xc0")
    large[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    hidden = bytes(large[frame:])
    beginning = small[: small.index(b"\xff\xc0")]
    # FF 00 is no marker: a decoder goes on behind it, a careless reader takes what follows for its length.
    return beginning + b"\xff\x00" + struct.pack(">H", len(hidden) + 2) + hidden + small[small.index(b"\xff\xc0") :]


def endless_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated until each byte of it costs milliseconds."""
    buffer = io.BytesIO()
    _photo(2000, 2000).save(buffer, "JPEG", progressive=True, quality=20)
    data = buffer.getvalue()
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last_scan * 500 + data[-2:]


def endless_markers() -> bytes:
    """A JPEG of eight million restart markers before its header."""
    return b"\xff\xd8" + b"\xff\xd0" * 4_000_000 + _saved(_photo(16, 16), "JPEG")[2:]


def animated_gif() -> bytes:
    """Two frames."""
    buffer = io.BytesIO()
    Image.new("P", (64, 64), 1).save(buffer, "GIF", save_all=True, append_images=[Image.new("P", (64, 64), 2)])
    return buffer.getvalue()


HOSTILE_FILES: Mapping[str, HostileFile] = MappingProxyType(
    {
        "truncated JPEG": HostileFile(truncated_jpeg, "JPEG is cut off"),
        "PNG bomb": HostileFile(png_bomb, "30000x30000 = 900,000,000 pixels"),
        "JPEG with a hidden size": HostileFile(smuggled_size, "no marker where one must be"),
        "JPEG of 500 scans": HostileFile(endless_scans, "more than 100 scans"),
        "JPEG of 4 million markers": HostileFile(endless_markers, "more than 10,000 parts"),
        "text": HostileFile(lambda: b"Dear server, please paint me a shoe.", "This is text, not a picture"),
        "empty": HostileFile(lambda: b"", "(?i)empty|0 bytes"),
        "0x0 PNG": HostileFile(empty_png, "0x0 pixels"),
        "animated GIF": HostileFile(animated_gif, "This is a GIF"),
        "CMYK JPEG": HostileFile(cmyk_jpeg, ""),
    }
)
