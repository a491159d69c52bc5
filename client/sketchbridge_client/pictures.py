"""What a call gives back: a picture as the server encoded it, ready to be looked at, computed with or saved."""

from __future__ import annotations

import base64
import builtins
import io
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.formats import FORMATS, JPEG, PNG, OutputFormat, PictureFormat, format_of_suffix
from sketchbridge_client.timings import Timings

# Every front end shows these two as they are; WebP is unknown to older ones and to nbconvert, so it is shown as PNG.
_SHOWN_AS_THEY_CAME = {PNG.name: "image/png", JPEG.name: "image/jpeg"}
_PREVIEW_HEIGHT_PX = 512  # of a round trip in a notebook, whose file keeps what it shows
_PREVIEW_GAP_PX = 8


@dataclass(frozen=True, repr=False)
class Picture:
    """One picture that a model made. As the last value of a notebook's cell it is shown.

    bytes: the encoded file, as it came. format: its format, "png", "jpeg" or "webp".
    model, model_version: who made it. request_id: what to look for in the server's log.
    timings: where the time of the call went.
    """

    bytes: builtins.bytes
    format: OutputFormat
    model: str
    model_version: str
    request_id: str
    timings: Timings

    @property
    def elapsed_s(self) -> float:
        """Seconds from the call to its result: timings.total_s."""
        return self.timings.total_s

    @property
    def pil(self) -> Image.Image:
        """A new Pillow image, mode RGB. Each access decodes anew, so the caller owns what comes."""
        with Image.open(io.BytesIO(self.bytes)) as image:
            rgb: Image.Image = image.convert("RGB")
        return rgb

    @property
    def array(self) -> NDArray[np.uint8]:
        """A new (H, W, 3) uint8 array, RGB in [0, 255]. Each access decodes anew, so the caller owns what comes."""
        return np.array(self.pil)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to `path` and return the path. The suffix names the format.

        If that is the format the picture came in, its bytes are written unchanged; otherwise they are encoded anew.
        The file is written beside and then renamed, so a reader sees the old file or the new one. The folder must be
        there. Raises InvalidArgument for an unknown suffix or a missing folder, OSError if writing fails.
        """
        target = Path(path)
        wanted = format_of_suffix(target)
        if not target.parent.is_dir():
            raise InvalidArgument(f"There is no folder `{target.parent}` to save `{target.name}` in. Make it first.")
        _write_atomically(target, self.bytes if wanted.name == self.format else self._encode(wanted))
        return target

    def __repr__(self) -> str:
        return (
            f"Picture({self._size()} {self.format}, {len(self.bytes):,} bytes, model={self.model!r}, "
            f"model_version={self.model_version!r}, request_id={self.request_id!r}, elapsed_s={self.elapsed_s:.3g})"
        )

    def _size(self) -> str:
        try:
            with Image.open(io.BytesIO(self.bytes)) as image:  # reads the header, and no pixels
                return f"{image.width}x{image.height}"
        except Exception:  # noqa: BLE001  Pillow raises many kinds, and a repr must not raise
            return "unreadable"

    def _encode(self, wanted: PictureFormat) -> builtins.bytes:
        buffer = io.BytesIO()
        self.pil.save(buffer, format=wanted.name, **wanted.save_options)
        return buffer.getvalue()

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """What a notebook shows, by MIME type: the picture in base64, and its repr where there are no pictures."""
        mime_type = _SHOWN_AS_THEY_CAME.get(self.format)
        if mime_type is None:
            return _bundle("image/png", self._encode(PNG), repr(self), include, exclude)
        return _bundle(mime_type, self.bytes, repr(self), include, exclude)


@dataclass(frozen=True)
class Roundtrip:
    """A photo taken to a drawing and back: `sketch` is the drawing, `photo` what the model painted from it.

    As the last value of a notebook's cell it shows both, the sketch on the left.
    """

    sketch: Picture
    photo: Picture

    def save(self, folder: str | os.PathLike[str], *, stem: str = "roundtrip") -> tuple[Path, Path]:
        """Write `<stem>_sketch` and `<stem>_photo`, in the formats they came in, into `folder`; return both paths.

        The folder is made if its parent is there. Raises InvalidArgument if it is not, OSError if writing fails.
        """
        target = Path(folder)
        if not target.parent.is_dir():
            raise InvalidArgument(f"There is no folder `{target.parent}` to make `{target.name}` in. Make it first.")
        target.mkdir(exist_ok=True)
        suffixes = {known.name: known.suffixes[0] for known in FORMATS}
        return (
            self.sketch.save(target / f"{stem}_sketch{suffixes[self.sketch.format]}"),
            self.photo.save(target / f"{stem}_photo{suffixes[self.photo.format]}"),
        )

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """What a notebook shows, by MIME type: both side by side as one PNG in base64, and the repr.

        No HTML table: front ends clean the HTML of a notebook they do not trust, and show a PNG in any.
        """
        buffer = io.BytesIO()
        _side_by_side(self.sketch.pil, self.photo.pil).save(buffer, format=PNG.name)
        return _bundle("image/png", buffer.getvalue(), repr(self), include, exclude)


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Both in one RGBA image at one height, the lower of the two; the gap between them is transparent."""
    height = min(left.height, right.height, _PREVIEW_HEIGHT_PX)
    scaled = [
        image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)
        for image in (left, right)
    ]
    joined = Image.new("RGBA", (sum(image.width for image in scaled) + _PREVIEW_GAP_PX, height))
    joined.paste(scaled[0], (0, 0))
    joined.paste(scaled[1], (scaled[0].width + _PREVIEW_GAP_PX, 0))
    return joined


def _bundle(
    mime_type: str, data: bytes, text: str, include: Collection[str] | None, exclude: Collection[str] | None
) -> dict[str, str]:
    """What IPython's display protocol wants: only what is in `include`, if given, and nothing that is in `exclude`."""
    bundle = {mime_type: base64.b64encode(data).decode(), "text/plain": text}
    return {
        kind: value
        for kind, value in bundle.items()
        if (include is None or kind in include) and (exclude is None or kind not in exclude)
    }


def _write_atomically(target: Path, data: bytes) -> None:
    beside = target.parent / f".{uuid.uuid4().hex}.part"  # same folder, so that the rename stays on one file system
    try:
        beside.write_bytes(data)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
