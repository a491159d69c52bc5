"""The picture formats that cross the wire, recognised by their first bytes and named by a file's suffix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from sketchbridge_client.errors import InvalidArgument

OutputFormat = Literal["png", "jpeg", "webp"]


@dataclass(frozen=True)
class PictureFormat:
    """One format. suffixes: of its files, the usual one first. save_options: given to Pillow when re-encoding to it."""

    name: OutputFormat
    suffixes: tuple[str, ...]
    save_options: dict[str, Any]


# Re-encoding happens on the caller's machine and should cost no more quality than the format must: JPEG at 95 with
# full colour resolution, WebP at 95, PNG without loss.
PNG = PictureFormat("png", (".png",), {})
JPEG = PictureFormat("jpeg", (".jpg", ".jpeg"), {"quality": 95, "subsampling": 0})
WEBP = PictureFormat("webp", (".webp",), {"quality": 95})
FORMATS = (PNG, JPEG, WEBP)


def format_of_bytes(data: bytes) -> PictureFormat | None:
    """The format that `data` begins like, or None. Source: PNG 3rd edition, ITU-T T.81 annex B, RFC 9649."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    return None


def format_of_suffix(path: PurePath) -> PictureFormat:
    """The format that the file's suffix names. Raises InvalidArgument for a suffix that names none."""
    for known in FORMATS:
        if path.suffix.lower() in known.suffixes:
            return known
    suffixes = ", ".join(suffix for known in FORMATS for suffix in known.suffixes)
    came = f"ends in `{path.suffix}`" if path.suffix else "has no suffix"
    raise InvalidArgument(f"`{path}` {came}, so its format is not known. Use one of {suffixes}.")
