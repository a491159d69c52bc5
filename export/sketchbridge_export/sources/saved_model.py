"""Reads the folders that TensorFlow writes: a SavedModel, or a checkpoint such as the pix2pix tutorial saves.

The variables are read by TensorFlow's own checkpoint reader, in a process of its own; the graph beside them is never
loaded or run. Keras 2 puts the model's configuration into `keras_metadata.pb`; Keras 3 leaves it out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.families import Weights
from sketchbridge_export.sources.apart import read_apart
from sketchbridge_export.sources.files import MAX_CHECKPOINT_BYTES, first_line, measure, opened
from sketchbridge_export.sources.keras_file import as_tensors, parse_config
from sketchbridge_export.sources.source import Checkpoint

SAVED_MODEL, CHECKPOINT = "TensorFlow SavedModel", "TensorFlow checkpoint"

_TIMEOUT_S = 120.0  # importing TensorFlow takes 3 s, 20 s on a busy machine
_MOST_FILES = 1_000
_MAX_METADATA_BYTES = 64 * 1024**2
_NETWORKS = ("_tf_keras_network", "_tf_keras_sequential")


def load_saved_model(path: Path, *, max_bytes: int = MAX_CHECKPOINT_BYTES) -> Checkpoint:
    """Read the variables in the folder `path`, and Keras 2's configuration where there is one.

    Tensors keep Keras's layout and come in the order of the layers. max_bytes: what the files may take together.
    Raises CheckpointInvalid if TensorFlow is not installed, or the folder holds no model of Keras that it can read.
    """
    prefix = _find_prefix(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    sha256, metadata = _digest(path, prefix, max_bytes)
    if importlib.util.find_spec("tensorflow") is None:
        raise CheckpointInvalid(
            f"`{path}` is read by TensorFlow, which is not installed. Run `pip install 'sketchbridge[savedmodel]'`, or "
            "save the model as one file: model.save('generator.keras')."
        )
    config = None if metadata is None else _read_config(path, metadata)
    arguments = [str(path), str(prefix.absolute()), str(max_bytes)]
    tensors = as_tensors(path, read_apart(path, "tensorflow_variables.py", arguments, file=None, timeout_s=_TIMEOUT_S))
    kind = SAVED_MODEL if is_saved_model else CHECKPOINT
    return Checkpoint(path, sha256, Weights(tensors, framework="keras", graph=config), {}, kind)


def _find_prefix(path: Path) -> Path:
    """The variables' path without `.index`: of a SavedModel, or the newest of a folder of checkpoints."""
    try:
        if (path / "saved_model.pb").is_file():
            if not (path / "variables" / "variables.index").is_file():
                raise CheckpointInvalid(f"`{path}` is a SavedModel without variables. Save it again.")
            return path / "variables" / "variables"
        indices = [entry for _, entry in zip(range(_MOST_FILES), path.glob("*.index"), strict=False)]
    except (OSError, ValueError) as exc:
        raise CheckpointInvalid(f"`{path}` can't be read: {first_line(exc)}.") from exc
    if not indices:
        raise CheckpointInvalid(f"`{path}` is a folder without a SavedModel or a TensorFlow checkpoint in it.")
    return max(indices, key=lambda entry: (_number(entry.stem), entry.stem)).with_suffix("")


def _number(name: str) -> int:
    """ckpt-12 -> 12."""
    digits = re.search(r"([0-9]{1,9})$", name)
    return int(digits[1]) if digits else 0


def _digest(path: Path, prefix: Path, max_bytes: int) -> tuple[str, bytes | None]:
    """sha256 of the digests of the files that count, by name; and the content of `keras_metadata.pb`."""
    files = [prefix.with_name(f"{prefix.name}.index"), *sorted(prefix.parent.glob(f"{prefix.name}.data-*"))]
    files += [path / name for name in ("saved_model.pb", "keras_metadata.pb") if (path / name).is_file()]
    if len(files) > _MOST_FILES:
        raise CheckpointInvalid(f"`{path}` holds more than {_MOST_FILES:,} files of variables.")
    digest = hashlib.sha256()
    metadata = None
    left_bytes = max_bytes
    for name in sorted(files):
        with opened(name) as file:
            _, own = measure(name, file, left_bytes)
            left_bytes -= name.stat().st_size
            if name.name == "keras_metadata.pb":
                metadata = file.read(_MAX_METADATA_BYTES + 1)
        digest.update(f"{own}  {name.relative_to(path).as_posix()}\n".encode())
    if metadata is not None and len(metadata) > _MAX_METADATA_BYTES:
        raise CheckpointInvalid(f"`keras_metadata.pb` in `{path}` is larger than {_MAX_METADATA_BYTES:,} bytes.")
    return digest.hexdigest(), metadata


def _read_config(path: Path, metadata: bytes) -> Mapping[str, Any] | None:
    """The configuration of the whole model in `keras_metadata.pb`; None if it is a model whose layers are code."""
    try:
        for node in _fields(metadata, 1):
            place, identifier, text = (next(_fields(node, number), b"") for number in (3, 4, 5))
            if place == b"root" and identifier.decode() in _NETWORKS:
                said = parse_config(path, text)
                return {"class_name": said.get("class_name"), "config": _plain(said.get("config"))}
    except (ValueError, IndexError, RecursionError) as exc:
        raise CheckpointInvalid(f"`keras_metadata.pb` in `{path}` is damaged. Copy it again.") from exc
    return None


def _plain(value: Any) -> Any:
    """The configuration without the marks that TensorFlow puts on tuples and shapes: only their items."""
    if isinstance(value, dict):
        marked = value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value
        return _plain(value["items"]) if marked else {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The length-delimited fields of one number in a Protocol Buffers message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("a field is cut off")
            if key >> 3 == wanted:
                yield message[place : place + length]
            place += length
        else:
            raise ValueError(f"there are no fields of kind {kind}")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number is too long")
