"""Reads format, size and orientation from the first bytes of a picture, before anything is decoded.

A decoder allocates width x height pixels because a few header bytes say so; reading those bytes first makes the
refusal of a decompression bomb cost next to nothing. So does refusing files of a hundred thousand tiny parts. The walk
also sees whether the file is whole: OpenCV fills the missing part of a truncated JPEG with gray and says nothing.

Sources: PNG 3rd edition (W3C 2025), ITU-T T.81 annex B (JPEG), RFC 9649 (WebP), Exif 2.32 section 4.6.4 (orientation).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sketchbridge_preprocess.errors import InvalidImage, TruncatedImage, UnsupportedFormat


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its picture.

    format: "png", "jpeg", "webp" or "bmp". width, height: pixels as stored, before orientation.
    orientation: Exif orientation, 1 (upright) to 8. animated: more than one frame.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    animated: bool = False


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a whole PNG, JPEG, WebP or BMP file.

    Costs a walk over chunk headers, never a decode. Raises UnsupportedFormat for anything else (named if known),
    TruncatedImage if the file ends early, InvalidImage if the header contradicts itself or has no pixels.
    """
    if not data:
        raise InvalidImage("The picture is empty: 0 bytes came. Send a whole PNG, JPEG, WebP or BMP file.")
    for signature, read in _READERS:
        if data.startswith(signature):
            try:
                header = read(data)
            except (struct.error, IndexError) as exc:
                raise TruncatedImage(f"The picture ends inside its header: {len(data)} bytes came.") from exc
            if header.width <= 0 or header.height <= 0:
                raise InvalidImage(
                    f"The {header.format.upper()} says it is {header.width}x{header.height} pixels; it must have some."
                )
            return header
    raise UnsupportedFormat(f"{_describe(data)} Send PNG, JPEG, WebP or BMP.")


_MOST_PARTS = 10_000  # chunks or segments; a photo with every kind of metadata has a few hundred
_MOST_FILL_BYTES = 1_000
_MOST_SCANS = 100  # of a progressive JPEG, each of which is decoded over the whole picture; encoders write about 10


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise InvalidImage("The PNG does not begin with an IHDR chunk. Save it again.")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, animated, position = 1, False, 8
    for _ in range(_MOST_PARTS):
        if position + 12 > len(data):
            raise _truncated("PNG", data)
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            raise _truncated("PNG", data)
        if kind == b"IEND":
            break
        if kind == b"acTL":
            animated = True
        elif kind == b"eXIf":
            orientation = _read_orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    else:
        raise _too_many_parts("PNG")
    return ImageHeader("png", width, height, orientation, animated)


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


def _read_jpeg(data: bytes) -> ImageHeader:
    width = height = 0
    orientation, position = 1, 2
    for _ in range(_MOST_PARTS):
        marker, position = _next_marker(data, position)
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        if marker == 0xD9:  # end of image
            raise InvalidImage("The JPEG holds no picture: its end comes before any scan.")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_FRAMES:
            precision, height, width = struct.unpack_from(">BHH", data, position + 2)
            if precision != 8:  # bits per sample
                raise UnsupportedFormat(f"The JPEG has {precision} bits a sample; only 8 can be read. Save it as PNG.")
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _read_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:  # start of scan
            break
        position += length
    else:
        raise _too_many_parts("JPEG")
    # Inside a scan FF is always followed by 00 or a restart marker, so FF D9 can only be the end of the image.
    if data.rfind(b"\xff\xd9") < position:
        raise _truncated("JPEG", data)
    if data.count(b"\xff\xda", position) > _MOST_SCANS:
        raise InvalidImage(f"The JPEG has more than {_MOST_SCANS} scans. Save it again.")
    return ImageHeader("jpeg", width, height, orientation)


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """The marker at `position` and where its content begins. Nothing but fill bytes may precede a marker.

    Decoders skip what is no marker (FF 00, stray bytes) and go on reading there. Skipping it differently would let a
    file show one size here and another to the decoder, so such a file is refused.
    """
    begins = position
    while data[position] == 0xFF and position - begins < _MOST_FILL_BYTES:
        position += 1
    if position == begins or data[position] in (0x00, 0xFF):
        raise InvalidImage(f"The JPEG is damaged: no marker where one must be, at byte {begins}. Save it again.")
    return data[position], position + 1


def _read_webp(data: bytes) -> ImageHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if data[8:12] != b"WEBP":
        raise UnsupportedFormat("This is a RIFF file, but no WebP. Send PNG, JPEG, WebP or BMP.")
    if riff_size + 8 > len(data):
        raise _truncated("WebP", data)
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
        return ImageHeader("webp", width, height)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise InvalidImage(f"The WebP begins with an unknown chunk {kind!r}. Save it again.")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    orientation, position = 1, 12
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            break
        chunk, length = struct.unpack_from("<4sI", data, position)
        if chunk == b"EXIF":
            orientation = _read_orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + (length & 1)
    else:
        raise _too_many_parts("WebP")
    return ImageHeader("webp", width, height, orientation, animated=bool(data[20] & 0x02))


def _read_bmp(data: bytes) -> ImageHeader:
    file_size, _, pixels_at, header_size = struct.unpack_from("<IIII", data, 2)
    if header_size == 12:  # BITMAPCOREHEADER
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    if len(data) < max(file_size, pixels_at + 1):
        raise _truncated("BMP", data)
    return ImageHeader("bmp", width, abs(height))


_READERS: tuple[tuple[bytes, Callable[[bytes], ImageHeader]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"\xff\xd8\xff", _read_jpeg),
    (b"RIFF", _read_webp),
    (b"BM", _read_bmp),
)

_KNOWN_BUT_REFUSED = (
    (b"GIF87a", "This is a GIF, which is not read."),
    (b"GIF89a", "This is a GIF, which is not read."),
    (b"II*\0", "This is a TIFF, which is not read."),
    (b"MM\0*", "This is a TIFF, which is not read."),
    (b"%PDF", "This is a PDF, not a picture."),
    (b"<svg", "This is an SVG, a drawing in text. Render it to pixels."),
    (b"<?xml", "This is XML, perhaps an SVG. Render it to pixels."),
    (b"\0\0\0\x0cjP  ", "This is a JPEG 2000, which is not read."),
    (b"\xff\x0a", "This is a JPEG XL, which is not read."),
)


def _describe(data: bytes) -> str:
    for signature, sentence in _KNOWN_BUT_REFUSED:
        if data.startswith(signature):
            return sentence
    if data[4:8] == b"ftyp":
        return f"This is a {data[8:12].decode('ascii', 'replace').strip().upper()} file, which is not read."
    beginning = data[:24]
    if not beginning.strip(b"\0"):
        return f"This is no picture: {len(data)} bytes came, and they begin with zeros."
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in beginning):
        return f"This is text, not a picture; it begins with {beginning.decode('ascii')!r}."
    return f"This is no picture that is known here; it begins with the bytes {beginning[:8].hex(' ')}."


def _truncated(kind: str, data: bytes) -> TruncatedImage:
    return TruncatedImage(f"The {kind} is cut off: its end is missing after {len(data)} bytes. Send the whole file.")


def _too_many_parts(kind: str) -> InvalidImage:
    return InvalidImage(f"The {kind} consists of more than {_MOST_PARTS:,} parts. Save it again.")


_ORIENTATION_TAG = 0x0112


def _read_orientation(tiff: bytes) -> int:
    """Exif orientation from a TIFF structure; 1 if it is absent or makes no sense, since Exif is only a hint."""
    byte_order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if byte_order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(byte_order + "I", tiff, 4)
        (entries,) = struct.unpack_from(byte_order + "H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(byte_order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1  # the eight orientations
    except struct.error:
        return 1
    return 1
