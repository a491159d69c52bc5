"""Reads what Keras saves: `.keras` archives, `.h5` models, and weights alone (`.h5`, `.weights.h5`).

Keras itself is not asked: it would run the code of Lambda layers. The configuration is JSON and the weights are HDF5
datasets; both are bounded before they are read, and what Keras never writes (links to other files, compressed or
virtual datasets) is refused. HDF5 is read in a process of its own, see hdf5_variables.py.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.families import Weights
from sketchbridge_export.sources.apart import read_apart
from sketchbridge_export.sources.files import (
    HDF5_MAGIC,
    MAX_CHECKPOINT_BYTES,
    METADATA_KEY,
    ZIP_MAGIC,
    first_line,
    list_entries,
    measure,
    opened,
    parse_metadata,
    plain_metadata,
    read_entry,
)
from sketchbridge_export.sources.source import Checkpoint

ARCHIVE, MODEL, WEIGHTS = "Keras archive (.keras)", "Keras model (HDF5)", "Keras weights (HDF5)"

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_CONFIG_BYTES = 16 * 1024**2  # a U-Net's has 50 kB
_TIMEOUT_S = 6.0  # starting the reader takes 0.3 s, 3 s on a busy machine
_SLOWEST_BYTES_A_S = 20e6  # of a large file


def load_keras(path: Path, *, max_bytes: int = MAX_CHECKPOINT_BYTES) -> Checkpoint:
    """Read the weights, and the configuration where there is one, of a file that Keras wrote.

    Tensors keep Keras's layout and stored names, and come in the order of the layers. max_bytes: the largest file that
    is opened, and what it may unpack to. Raises CheckpointInvalid, saying what is wrong, if it can't be used.
    """
    with opened(path) as file:
        head, sha256 = measure(path, file, max_bytes)
        if head.startswith(ZIP_MAGIC):
            weights, metadata = _read_archive(path, file, max_bytes)
            return Checkpoint(path, sha256, weights, metadata, ARCHIVE)
        if not head.startswith(HDF5_MAGIC):
            raise CheckpointInvalid(f"`{path}` was not written by Keras: it begins with {head[:8]!r}.")
        weights, metadata = _read_hdf5(path, file, max_bytes)
        return Checkpoint(path, sha256, weights, metadata, WEIGHTS if weights.graph is None else MODEL)


def parse_config(path: Path, text: str | bytes) -> dict[str, Any]:
    """A model's configuration. Raises CheckpointInvalid unless it is a JSON object of reasonable size."""
    if len(text) > _MAX_CONFIG_BYTES:
        raise CheckpointInvalid(f"The configuration in `{path}` is larger than {_MAX_CONFIG_BYTES:,} bytes.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CheckpointInvalid(f"The configuration in `{path}` is damaged: {first_line(exc)}. Copy it again.") from exc
    if not isinstance(config, dict):
        raise CheckpointInvalid(f"The configuration in `{path}` is a {type(config).__name__}, expected an object.")
    return config


def as_tensors(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
    """The arrays `0`, `1`, ... by their `names`, as float32.

    Raises CheckpointInvalid if one holds other than finite floating-point numbers.
    """
    tensors: dict[str, torch.Tensor] = {}
    for index, name in enumerate(str(name) for name in arrays["names"]):
        array = arrays[str(index)]
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise CheckpointInvalid(f"`{name}` in `{path}` is of type {array.dtype}. Save it with float32 weights.")
        with np.errstate(over="ignore"):
            plain = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(plain).all():
            raise CheckpointInvalid(f"`{name}` in `{path}` holds NaN or infinity: its training diverged.")
        tensors[name] = torch.from_numpy(plain).reshape(array.shape)
    return tensors


def _read_archive(path: Path, file: IO[bytes], max_bytes: int) -> tuple[Weights, Mapping[str, Any]]:
    entries = list_entries(path, file, max_bytes)
    for name in (_CONFIG, _WEIGHTS):
        if name not in entries:
            raise CheckpointInvalid(f"`{path}` holds no `{name}`: it is no complete Keras archive. Save it again.")
    if any(name in entries and entries[name].file_size > _MAX_CONFIG_BYTES for name in (_CONFIG, _METADATA)):
        raise CheckpointInvalid(f"The configuration in `{path}` is larger than {_MAX_CONFIG_BYTES:,} bytes.")
    try:
        with zipfile.ZipFile(file) as archive:
            config = parse_config(path, read_entry(path, archive, entries[_CONFIG]))
            said = parse_config(path, read_entry(path, archive, entries[_METADATA]) if _METADATA in entries else "{}")
            content = read_entry(path, archive, entries[_WEIGHTS])
    except (zipfile.BadZipFile, OSError, ValueError) as exc:
        raise CheckpointInvalid(f"`{path}` is truncated or damaged: {first_line(exc)}. Copy it again.") from exc
    if not content.startswith(HDF5_MAGIC):
        raise CheckpointInvalid(f"`{_WEIGHTS}` in `{path}` is no HDF5 file. Save it again.")
    with tempfile.TemporaryFile() as unpacked:
        unpacked.write(content)
        unpacked.flush()
        weights, _ = _read_hdf5(path, unpacked, max_bytes)
    return Weights(weights.tensors, framework="keras", graph=config), plain_metadata(path, said.get(METADATA_KEY, {}))


def _read_hdf5(path: Path, file: IO[bytes], max_bytes: int) -> tuple[Weights, Mapping[str, Any]]:
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    timeout_s = _TIMEOUT_S + size_bytes / _SLOWEST_BYTES_A_S
    arrays = read_apart(path, "hdf5_variables.py", [str(path), str(max_bytes)], file=file, timeout_s=timeout_s)
    text, metadata = str(arrays["config"]), str(arrays["metadata"])
    config = parse_config(path, text) if text else None
    return Weights(as_tensors(path, arrays), framework="keras", graph=config), parse_metadata(path, metadata or None)
