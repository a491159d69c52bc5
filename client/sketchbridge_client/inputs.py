"""From whatever a caller holds to the bytes of a picture file. What can be wrong is said here, before anything is sent.

Files and bytes go as they are, since the server decodes them. Arrays and Pillow images become PNG, which loses nothing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.pictures import Picture


class BinaryFile(Protocol):
    """Anything open for reading bytes: a file opened with "rb", an io.BytesIO, a member of a zip."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes from where the file stands, fewer if it likes, and b"" at its end."""
        ...


PictureInput = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[np.uint8] | Picture
)
"""A path, the bytes of a picture file or a file open for reading them, a Pillow image, a uint8 array of (H, W, 3) RGB
or (H, W) gray, or a Picture."""

MAX_IMAGE_BYTES = 32 * 1024 * 1024
"""The most bytes one picture file may have; the server takes no more."""

_LONGEST_SHOWN = 200  # characters of a path in a message; a base64 picture would fill the screen
_UINT8_MAX = 255
_REAL_KINDS = frozenset("iuf")  # of NumPy's dtypes; a time span, kind m, counts as an integer for NumPy
# Level 1 is faster than Pillow's default of 6, and the file lives only for the length of a request.
_PNG_COMPRESS_LEVEL = 1
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_CONVERTIBLE_MODES = frozenset({"CMYK", "HSV", "LAB", "PA", "RGBX", "RGBa", "La", "YCbCr"})


def encoded_bytes(picture: PictureInput, *, name: str, bgr: bool = False) -> bytes:
    """The bytes to send for `picture`: a whole PNG, JPEG, WebP or BMP file of at most MAX_IMAGE_BYTES.

    name: what the caller calls this argument, for messages. bgr: a (H, W, 3) array has its channels in OpenCV's order,
    blue first; a gray array is the same either way, and anything that is no array is refused, since a file says its own
    order. A file object is read from where it stands to its end, and not closed. A Pillow image is turned upright by
    its Exif orientation, as the server does with the file it came from. Raises InvalidArgument.
    """
    if bgr and not isinstance(picture, np.ndarray):
        raise InvalidArgument(
            f"`bgr=True` says how a NumPy array has its channels, and `{name}` is a {_type_name(picture)}. "
            "Leave `bgr` out for it."
        )
    if isinstance(picture, Picture):
        data = picture.bytes
    elif isinstance(picture, (bytes, bytearray, memoryview)):
        data = _held_bytes(picture, name)
    elif isinstance(picture, (str, os.PathLike)):
        data = _read(picture, name)
    elif isinstance(picture, Image.Image):
        data = _encode_image(picture, name)
    elif isinstance(picture, np.ndarray):
        data = _encode_array(picture, name, bgr=bgr)
    elif _is_file(picture):
        data = _drain(picture, name)
    else:
        _refuse_type(picture, name)
    if not data:
        raise InvalidArgument(f"`{name}` is empty: 0 bytes. Give the bytes of a whole picture file.")
    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidArgument(
            f"`{name}` has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are taken. Scale it down or compress it."
        )
    return data


def check_array_of_pictures(array: NDArray[Any], *, name: str) -> None:
    """Raise InvalidArgument unless `array` is (N, H, W, 3) uint8, a batch of pictures. N may be 0."""
    if len(array) == 0:
        return
    if array.size == 0:
        advice: str | None = "Its pictures have no pixels."
    else:
        advice = _advice_on_dtype(array) or _advice_on_batch_shape(array.shape)
    if advice:
        raise InvalidArgument(f"`{name}` is {_describe(array)}; expected uint8 (N, H, W, 3) in [0, 255]. {advice}")


def _is_file(thing: object) -> TypeGuard[BinaryFile]:
    # isinstance with a Protocol does not see, from Python 3.12 on, the `read` that a wrapper as tempfile's passes on
    return callable(getattr(thing, "read", None))


def _refuse_type(picture: object, name: str) -> NoReturn:
    several = " Give several pictures as a list: `list(...)`." if isinstance(picture, Iterator) else ""
    raise InvalidArgument(
        f"`{name}` is a {_type_name(picture)}; expected a path, bytes, a file open for reading bytes, a Pillow image "
        f"or a uint8 NumPy array of (H, W, 3) RGB or (H, W) gray.{several}"
    )


def _type_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _held_bytes(holder: bytes | bytearray | memoryview, name: str) -> bytes:
    try:
        return bytes(holder)
    except ValueError as exc:
        raise InvalidArgument(f"`{name}` is a memoryview that was released. Give the bytes before that.") from exc


def _text_of_path(path: str | os.PathLike[Any], name: str) -> str:
    try:
        text: object = os.fspath(path)
    except Exception as exc:  # it is the caller's object: what it raises cannot be known
        raise InvalidArgument(f"`{name}` is a {_type_name(path)} that gives no path: {_reason(exc)}.") from exc
    if not isinstance(text, str):
        raise InvalidArgument(
            f"`{name}` is a {_type_name(path)} with a path in bytes; expected one in text, as `os.fsdecode` gives it."
        )
    return text


def _read(given: str | os.PathLike[str], name: str) -> bytes:
    path = _text_of_path(given, name)
    try:
        size_bytes = Path(path).stat().st_size
        if size_bytes > MAX_IMAGE_BYTES:  # before reading: it may be a disk image
            raise InvalidArgument(
                f"`{name}`: `{path}` has {size_bytes:,} bytes; at most {MAX_IMAGE_BYTES:,} are taken. "
                "Scale it down or compress it."
            )
        with Path(path).open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)  # a pipe or a device says no size, and may never end
    except FileNotFoundError as exc:
        raise InvalidArgument(f"`{name}`: there is no file `{_shortened(path)}`.{_advice(path)}") from exc
    except IsADirectoryError as exc:
        raise InvalidArgument(f"`{name}`: `{path}` is a folder. Give one picture file.") from exc
    except (OSError, ValueError) as exc:  # no permission, a name too long, a null byte in it
        message = f"`{name}`: `{_shortened(path)}` cannot be read: {_reason(exc)}.{_advice(path)}"
        raise InvalidArgument(message) from exc
    if not data:
        raise InvalidArgument(f"`{name}`: the file `{path}` is empty. Give a whole picture file.")
    return data


def _drain(file: BinaryFile, name: str) -> bytes:
    """What is left in `file`, read part by part: a pipe, a socket or a raw file gives less at once than it has."""
    data = bytearray()
    while len(data) <= MAX_IMAGE_BYTES:
        part = _read_part(file, MAX_IMAGE_BYTES + 1 - len(data), name)
        if not part:
            break
        data += part
    if not data:
        raise InvalidArgument(
            f"`{name}`: the file object gave no bytes. It is read from where it stands: go back to its start with "
            "`.seek(0)` if it was written or read before."
        )
    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidArgument(
            f"`{name}`: the file object has more than {MAX_IMAGE_BYTES:,} bytes, the most that are taken. "
            "Scale it down or compress it."
        )
    return bytes(data)


def _read_part(file: BinaryFile, size_bytes: int, name: str) -> bytes:
    try:
        part: object = file.read(size_bytes)
    except UnicodeError:
        _refuse_text(name)
    except Exception as exc:  # it is the caller's object: what it raises cannot be known
        raise InvalidArgument(f"`{name}`: the file object cannot be read: {_reason(exc)}.") from exc
    if isinstance(part, str):
        _refuse_text(name)
    if not isinstance(part, (bytes, bytearray, memoryview)):  # None: it does not block, and has nothing yet
        raise InvalidArgument(
            f'`{name}`: reading the file object gave a {_type_name(part)}; expected bytes, and b"" only at its end.'
        )
    return _held_bytes(part, name)


def _refuse_text(name: str) -> NoReturn:
    raise InvalidArgument(f'`{name}` is a file open for text; a picture is bytes. Open it with the mode "rb".')


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__qualname__}: {error}".strip().rstrip(":.")  # some say only "read", or nothing


def _shortened(path: str) -> str:
    return path if len(path) <= _LONGEST_SHOWN else f"{path[:80]}..."


def _advice(path: str) -> str:
    if path.startswith(("http://", "https://")):
        return " A web address is not fetched: download it and give the bytes."
    if path.startswith("data:") or len(path) > _LONGEST_SHOWN:
        return " A string is taken as a path: decode base64 and give the bytes."
    return ""


def _encode_image(image: Image.Image, name: str) -> bytes:
    try:
        upright = ImageOps.exif_transpose(image)  # reads its file, if that has not been done yet
    except Exception as exc:  # Pillow's decoders, and the caller's file under them, raise what they like
        raise InvalidArgument(f"`{name}` is a Pillow image that cannot be read: {_reason(exc)}.") from exc
    if upright.mode not in _PNG_MODES | _CONVERTIBLE_MODES:
        raise InvalidArgument(
            f"`{name}` is a Pillow image of mode {image.mode}, whose value range is not fixed. "
            'Scale it to [0, 255] and convert it with `.convert("RGB")` or `.convert("L")`.'
        )
    if 0 in upright.size:
        raise InvalidArgument(f"`{name}` is a Pillow image of {image.width}x{image.height} pixels; it must have some.")
    buffer = io.BytesIO()
    try:
        if upright.mode in _CONVERTIBLE_MODES:
            upright = upright.convert("RGBA" if upright.mode in {"PA", "RGBa", "La"} else "RGB")
        upright.save(buffer, format="png", compress_level=_PNG_COMPRESS_LEVEL)
    except Exception as exc:  # what stands in its `info` goes into the file, and may not fit the image
        raise InvalidArgument(
            f"`{name}` is a Pillow image that cannot be saved as PNG: {_reason(exc)}. "
            "Give its file, or its pixels: `numpy.asarray(image)`."
        ) from exc
    return buffer.getvalue()


def _encode_array(array: NDArray[Any], name: str, *, bgr: bool) -> bytes:
    advice = _advice_on_array(array)
    if advice:
        order = "BGR" if bgr else "RGB"
        raise InvalidArgument(
            f"`{name}` is {_describe(array)}; expected uint8 (H, W, 3) {order} or (H, W) gray in [0, 255]. {advice}"
        )
    rgb = array[:, :, ::-1] if bgr and array.ndim == 3 else array
    return _encode_image(Image.fromarray(np.ascontiguousarray(rgb)), name)


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
            advice = "It holds several pictures and one is taken here: pick one, `x[0]`."
        case (_, _, 1):
            advice = "Drop the last axis: `x[:, :, 0]`."
        case (_, _, 4):
            advice = "Alpha needs a Pillow image: `PIL.Image.fromarray(x)`; or drop it: `x[:, :, :3]`."
        case (1, _, _):
            advice = "Drop the first axis: `x[0]`."
        case (3, _, _):
            advice = "Move the channels last: `x.transpose(1, 2, 0)`."
        case (_, _, _):
            advice = "Reshape it to one picture; or, if these are gray pictures, give a list of them: `list(x)`."
        case _:
            advice = "Reshape it to one picture."
    return advice


def _advice_on_batch_shape(shape: tuple[int, ...]) -> str | None:
    advice: str | None
    match shape:
        case (_, _, _, 3):
            advice = None
        case (_, _, _, 1):
            advice = "Give a list of gray pictures: `list(x[..., 0])`."
        case (_, _, _, 4):
            advice = "Drop alpha: `x[..., :3]`."
        case (_, 1, _, _):
            advice = "Give a list of gray pictures: `list(x[:, 0])`."
        case (_, 3, _, _):
            advice = "Move the channels last: `x.transpose(0, 2, 3, 1)`."
        case _:
            advice = "Reshape it, or give a list of pictures."
    return advice


def _advice_on_dtype(array: NDArray[Any]) -> str | None:
    if array.dtype == np.uint8:
        return None
    if array.dtype == np.bool_:
        return "Multiply by 255 and cast: `(x * 255).astype(numpy.uint8)`."
    if array.dtype.kind in _REAL_KINDS:
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
    if array.size and array.dtype.kind in _REAL_KINDS:
        low, high = array.min(), array.max()
        if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
            return f"{described} in [0,1]"
        return f"{described} in [{low:g}, {high:g}]"
    return described
