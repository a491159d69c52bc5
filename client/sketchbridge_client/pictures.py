"""What a call gives back: a picture as the server encoded it, ready to be looked at, computed with or saved."""

from __future__ import annotations

import builtins
import io
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.formats import FORMATS, PNG, OutputFormat, PictureFormat, format_of_suffix


@dataclass(frozen=True)
class Picture:
    """One picture that a model made.

    bytes: the encoded file, as it came. format: its format, "png", "jpeg" or "webp".
    model, model_version: who made it. request_id: what to look for in the server's log.
    elapsed_s: seconds from sending the request to having the answer.
    """

    bytes: builtins.bytes = field(repr=False)
    format: OutputFormat
    model: str
    model_version: str
    request_id: str
    elapsed_s: float

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

    def _encode(self, wanted: PictureFormat) -> builtins.bytes:
        buffer = io.BytesIO()
        self.pil.save(buffer, format=wanted.name, **wanted.save_options)
        return buffer.getvalue()

    def _repr_png_(self) -> builtins.bytes:
        """What a notebook shows."""
        return self.bytes if self.format == PNG.name else self._encode(PNG)


@dataclass(frozen=True)
class Roundtrip:
    """A photo taken to a drawing and back: `sketch` is the drawing, `photo` what the model painted from it."""

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


def _write_atomically(target: Path, data: bytes) -> None:
    beside = target.parent / f".{uuid.uuid4().hex}.part"  # same folder, so that the rename stays on one file system
    try:
        beside.write_bytes(data)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
