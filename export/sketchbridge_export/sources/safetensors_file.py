"""Reads safetensors: a header in JSON and the tensors' bytes, so nothing in it can run.

The header is checked here before the library sees it, because a header is what sizes are allocated from.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.contents import choose_generator
from sketchbridge_export.sources.files import METADATA_KEY, first_line, parse_metadata
from sketchbridge_export.sources.source import SAFETENSORS, Checkpoint

_LARGEST_HEADER_BYTES = 16 * 1024**2  # 100,000 tensors have 10 MB of header
_MOST_AXES = 8
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file of this beginning is one: the header's length in 8 bytes, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def read_safetensors(path: Path, file: IO[bytes], sha256: str) -> Checkpoint:
    """The weights in `file`, which stands at its beginning and has been measured.

    The `sketchbridge` entry of its `__metadata__` is a JSON object as text. Raises CheckpointInvalid if the file is
    damaged, or as choose_generator does.
    """
    metadata = _check_header(path, file)
    file.seek(0)
    try:
        tensors = safetensors.torch.load(file.read())
    except Exception as exc:
        raise CheckpointInvalid(f"`{path}` is damaged: {first_line(exc)}. Copy it again.") from exc
    content = dict(sorted(tensors.items()))  # the library's order is that of the bytes
    weights, notes = choose_generator(path, content)
    return Checkpoint(path, sha256, weights, metadata, SAFETENSORS, notes)


def _check_header(path: Path, file: IO[bytes]) -> Mapping[str, Any]:
    size_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(_LARGEST_HEADER_BYTES, size_bytes - 8):
        raise CheckpointInvalid(f"`{path}` is truncated or damaged: its header claims {length:,} bytes. Copy it again.")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as exc:
        raise CheckpointInvalid(f"`{path}` is damaged: its header is not JSON. Copy it again.") from exc
    if not isinstance(header, dict):
        raise CheckpointInvalid(f"`{path}` is damaged: its header is no JSON object. Copy it again.")
    described = header.pop("__metadata__", None)
    for name, entry in header.items():
        problem = _entry_problem(entry, size_bytes - 8 - length)
        if problem is not None:
            raise CheckpointInvalid(f"`{path}` is truncated or damaged: `{name[:100]}` {problem}. Copy it again.")
    text = described.get(METADATA_KEY) if isinstance(described, dict) else None
    if text is not None and not isinstance(text, str):
        raise CheckpointInvalid(f"The {METADATA_KEY!r} entry of `{path}` must be a JSON object as text.")
    return parse_metadata(path, text)


def _entry_problem(entry: object, data_bytes: int) -> str | None:
    if not isinstance(entry, dict):
        return "is not described"
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        return f"is of type {str(dtype)[:20]!r}"
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(_is_count(axis) for axis in shape):
        return "has no shape"
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        return "has no place in the file"
    begin, end = offsets
    inside = begin <= end <= data_bytes
    if inside and math.prod(shape) * _BITS[dtype] == 8 * (end - begin):
        return None
    return f"is {tuple(shape)} {dtype}, and lies at {begin:,} to {end:,} of {data_bytes:,} bytes"


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62
