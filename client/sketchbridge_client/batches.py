"""Lists of pictures: what is one, how each picture of it is encoded, which go in one message, and what failed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sketchbridge_client.errors import BatchFailed, InvalidArgument, SketchbridgeError
from sketchbridge_client.inputs import MAX_IMAGE_BYTES, PictureInput, check_array_of_pictures, encoded_bytes

PictureBatch = Sequence[PictureInput] | NDArray[np.uint8]
"""A list or tuple of pictures, each of any kind and size; or an (N, H, W, 3) uint8 array."""

_ROOM_BYTES = 1024 * 1024
MAX_CHUNK_BYTES = 2 * MAX_IMAGE_BYTES - _ROOM_BYTES
"""The most bytes of pictures in one message: gRPC takes 2 * MAX_IMAGE_BYTES, less room for the rest of the message."""

_SHOWN = 3  # errors in a message
_LONGEST_REASON = 300  # characters; a server may answer with a whole traceback


def is_batch(value: object) -> TypeGuard[PictureBatch]:
    """Whether `value` is several pictures and not one: a list, a tuple, or an array of 4 axes, of whatever dtype."""
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 4)


def encode_batch(
    pictures: PictureBatch, *, name: str, bgr: bool = False
) -> tuple[list[bytes | None], dict[int, SketchbridgeError]]:
    """The bytes to send for each picture, None for one that cannot be sent, and the error of each such by its index.

    name: what the caller calls this argument; the message for picture 3 calls it `name[3]`. bgr: as `encoded_bytes`.
    Raises InvalidArgument for what is no batch, and for an array whose dtype or shape makes all of it no pictures.
    """
    if not is_batch(pictures):
        raise InvalidArgument(
            f"`{name}` is a {type(pictures).__module__}.{type(pictures).__qualname__}; several pictures are given as a "
            "list, since their number must be known: `list(...)`."
        )
    if isinstance(pictures, np.ndarray):
        check_array_of_pictures(pictures, name=name)
    tried = [_bytes_or_error(picture, f"{name}[{index}]", bgr=bgr) for index, picture in enumerate(pictures)]
    encoded = [one if isinstance(one, bytes) else None for one in tried]
    errors = {index: one for index, one in enumerate(tried) if isinstance(one, SketchbridgeError)}
    return encoded, errors


def _bytes_or_error(picture: PictureInput, name: str, *, bgr: bool) -> bytes | SketchbridgeError:
    try:
        return encoded_bytes(picture, name=name, bgr=bgr)
    except SketchbridgeError as exc:
        return exc


def chunks(
    indices: Iterable[int],
    size: int,
    *,
    sizes_bytes: Mapping[int, int] | Sequence[int],
    max_bytes: int = MAX_CHUNK_BYTES,
) -> list[list[int]]:
    """`indices` in their order, cut into lists of at most `size` pictures that have at most `max_bytes` together.

    sizes_bytes: the bytes of the picture at each index. A picture that is larger than `max_bytes` goes alone.
    Raises InvalidArgument for a `size` below 1.
    """
    if size < 1:
        raise InvalidArgument(f"`size` is {size}; a chunk holds at least 1 picture.")
    made: list[list[int]] = []
    room_bytes = 0
    for index in indices:
        size_bytes = sizes_bytes[index]
        if not made or len(made[-1]) == size or size_bytes > room_bytes:
            made.append([])
            room_bytes = max_bytes
        made[-1].append(index)
        room_bytes -= size_bytes
    return made


def batch_failed(results: Iterable[Any], errors: Mapping[int, SketchbridgeError]) -> BatchFailed:
    """The error to raise for a batch in which at least one picture failed.

    results: what came of each picture, in the order of the batch; whatever stands where one failed is left out.
    errors: why, by the index of the picture. What all of them agree on (status, model, request_id) is the batch's too.
    """
    by_index = dict(sorted(errors.items()))
    kept = tuple(None if index in by_index else result for index, result in enumerate(results))
    return BatchFailed(
        _message(len(kept), by_index),
        status=_common(error.status for error in by_index.values()),
        model=_common(error.model for error in by_index.values()),
        request_id=_common(error.request_id for error in by_index.values()),
        results=kept,
        errors=by_index,
    )


def _message(count: int, errors: Mapping[int, SketchbridgeError]) -> str:
    shown = [
        f"[{index}] {textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...')}"
        for index, error in list(errors.items())[:_SHOWN]
    ]
    more = [f"and {len(errors) - _SHOWN} more."] if len(errors) > _SHOWN else []
    others = "`.results` has the others, None where one failed; " if len(errors) < count else ""
    failed = f"{len(errors)} of {count} {'picture' if count == 1 else 'pictures'} failed:"
    return " ".join([failed, *shown, *more, f"{others}`.errors` has each error by its index."])


def _common(values: Iterable[str | None]) -> str | None:
    """The value that all have, or None if they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
