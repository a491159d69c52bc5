"""From whatever a caller holds to the bytes of a picture file. What can be wrong is said here, before anything is sent.

Files and bytes go as they are, since the server decodes them. Arrays and Pillow images become PNG, which loses nothing.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.pictures import Picture

PictureInput = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8] | Picture
"""A path, the bytes of a picture file, a Pillow image, a uint8 array of (H, W, 3) RGB or (H, W) gray, or a Picture."""

MAX_IMAGE_BYTES = 32 * 1024 * 1024
"""The most bytes one picture file may have; the server takes no more."""

_LONGEST_SHOWN = 200  # characters of a path in a message; a base64 picture would fill the screen
_UINT8_MAX = 255
# Level 1 is faster than Pillow's default of 6, and the file lives only for the length of a request.
_PNG_COMPRESS_LEVEL = 1
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_CONVERTIBLE_MODES = frozenset({"CMYK", "HSV", "LAB", "PA", "RGBX", "RGBa", "La", "YCbCr"})


def encoded_bytes(picture: PictureInput, *, name: str) -> bytes:
    """The bytes to send for `picture`: a whole PNG, JPEG, WebP or BMP file of at most MAX_IMAGE_BYTES.

    name: what the caller calls this argument, for messages. A Pillow image is turned upright by its Exif orientation,
    as the server does with the file it came from. Raises InvalidArgument.
    """
    if isinstance(picture, Picture):
        data = picture.bytes
    elif isinstance(picture, (bytes, bytearray, memoryview)):
        data = bytes(picture)
    elif isinstance(picture, (str, os.PathLike)):
        data = _read(picture, name)
    elif isinstance(picture, Image.Image):
        data = _encode_image(picture, name)
    elif isinstance(picture, np.ndarray):
        data = _encode_array(picture, name)
    else:
        raise InvalidArgument(
            f"`{name}` is a {type(picture).__module__}.{type(picture).__qualname__}; expected a path, bytes, a Pillow "
            "image or a uint8 NumPy array of (H, W, 3) RGB or (H, W) gray."
        )
    if not data:
        raise InvalidArgument(f"`{name}` is empty: 0 bytes. Give the bytes of a whole picture file.")
    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidArgument(
            f"`{name}` has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are taken. Scale it down or compress it."
        )
    return data


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        size_bytes = Path(path).stat().st_size
        if size_bytes > MAX_IMAGE_BYTES:  # before reading: it may be a disk image
            raise InvalidArgument(
                f"`{name}`: `{os.fspath(path)}` has {size_bytes:,} bytes; at most {MAX_IMAGE_BYTES:,} are taken. "
                "Scale it down or compress it."
            )
        with Path(path).open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)  # a pipe or a device says no size, and may never end
    except FileNotFoundError as exc:
        raise InvalidArgument(f"`{name}`: there is no file `{_shortened(path)}`.{_advice(path)}") from exc
    except IsADirectoryError as exc:
        raise InvalidArgument(f"`{name}`: `{os.fspath(path)}` is a folder. Give one picture file.") from exc
    except (OSError, ValueError) as exc:  # no permission, a name too long, a null byte in it
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise InvalidArgument(f"`{name}`: `{_shortened(path)}` cannot be read: {reason}.{_advice(path)}") from exc
    if not data:
        raise InvalidArgument(f"`{name}`: the file `{os.fspath(path)}` is empty. Give a whole picture file.")
    return data


def _shortened(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:80]}..."


def _advice(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if text.startswith(("http://", "https://")):
        return " A web address is not fetched: download it and give the bytes."
    if text.startswith("data:") or len(text) > _LONGEST_SHOWN:
        return " A string is taken as a path: decode base64 and give the bytes."
    return ""


def _encode_image(image: Image.Image, name: str) -> bytes:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _CONVERTIBLE_MODES:
        upright = upright.convert("RGBA" if upright.mode in {"PA", "RGBa", "La"} else "RGB")
    if upright.mode not in _PNG_MODES:
        raise InvalidArgument(
            f"`{name}` is a Pillow image of mode {image.mode}, whose value range is not fixed. "
            'Scale it to [0, 255] and convert it with `.convert("RGB")` or `.convert("L")`.'
        )
    if 0 in upright.size:
        raise InvalidArgument(f"`{name}` is a Pillow image of {image.width}x{image.height} pixels; it must have some.")
    buffer = io.BytesIO()
    upright.save(buffer, format="png", compress_level=_PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def _encode_array(array: NDArray[Any], name: str) -> bytes:
    advice = _advice_on_array(array)
    if advice:
        raise InvalidArgument(
            f"`{name}` is {_describe(array)}; expected uint8 (H, W, 3) RGB or (H, W) gray in [0, 255]. {advice}"
        )
    return _encode_image(Image.fromarray(np.ascontiguousarray(array)), name)


def _advice_on_array(array: NDArray[Any]) -> str | None:
    """What to do about an array that is no picture, or None if it is one."""
    if array.size == 0:
        return "It has no pixels."
    return _advice_on_dtype(array) or _advice_on_shape(array.shape)


def _advice_on_shape(shape: tuple[int, ...]) -> str | None:
    advice: str | None
    match shape:
        case (_, _) | (_, _, 3):
            advice = None
        case (_, _, _, _):
            advice = "Send the pictures of a batch one by one: `for x in batch`."
        case (_, _, 1):
            advice = "Drop the last axis: `x[:, :, 0]`."
        case (_, _, 4):
            advice = "Alpha needs a Pillow image: `PIL.Image.fromarray(x)`; or drop it: `x[:, :, :3]`."
        case (1, _, _):
            advice = "Drop the first axis: `x[0]`."
        case (3, _, _):
            advice = "Move the channels last: `x.transpose(1, 2, 0)`."
        case _:
            advice = "Reshape it to one picture."
    return advice


def _advice_on_dtype(array: NDArray[Any]) -> str | None:
    if array.dtype == np.uint8:
        return None
    if array.dtype == np.bool_:
        return "Multiply by 255 and cast: `(x * 255).astype(numpy.uint8)`."
    if np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer):
        return _advice_on_range(array)
    return "Build it of numbers."


def _advice_on_range(array: NDArray[Any]) -> str:
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "It has values that are not finite: mend them first."
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return "Multiply by 255 and cast: `(x * 255).round().astype(numpy.uint8)`."
    if np.issubdtype(array.dtype, np.floating) and low >= -1 and high <= 1:
        return "Shift, scale and cast: `((x + 1) * 127.5).round().astype(numpy.uint8)`."
    if low >= 0 and high <= _UINT8_MAX:
        return "Cast it: `x.round().astype(numpy.uint8)`."
    return "Scale it to [0, 255] and cast it with `.astype(numpy.uint8)`."


def _describe(array: NDArray[Any]) -> str:
    described = f"{array.shape} {array.dtype}"
    if array.size and np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array):
        low, high = array.min(), array.max()
        if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
            return f"{described} in [0,1]"
        return f"{described} in [{low:g}, {high:g}]"
    return described
