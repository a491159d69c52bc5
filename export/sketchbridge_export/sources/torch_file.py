"""Reads what torch.save wrote.

Only tensors and plain containers are taken (`weights_only`), so a file can't run code; what it may cost is bounded
before it is read.
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.contents import choose_generator
from sketchbridge_export.sources.files import (
    MAX_CHECKPOINT_BYTES,
    METADATA_KEY,
    PICKLE_PROTOCOL_2,
    ZIP_MAGIC,
    describe_stranger,
    first_line,
    list_entries,
    measure,
    opened,
    plain_metadata,
    read_entry,
)
from sketchbridge_export.sources.source import TORCH, Checkpoint
from sketchbridge_export.sources.storages import check_old_file, check_storages

_LARGEST_PICKLE_BYTES = 16 * 1024**2  # a U-Net-256 has 10 kB


def load_checkpoint(path: Path, *, max_bytes: int = MAX_CHECKPOINT_BYTES) -> Checkpoint:
    """Read the weights in `path`, a file written by torch.save.

    max_bytes: the largest file that is opened. Raises CheckpointInvalid, saying what the file is instead, if it is
    missing, empty, too large, truncated, not a checkpoint, holds Python objects, or holds no usable weights.
    """
    with opened(path) as file:  # once: a file that is replaced meanwhile must not get the digest of another
        head, sha256 = measure(path, file, max_bytes)
        if head.startswith(ZIP_MAGIC):
            names = list_entries(path, file, max_bytes)
            if "constants.pkl" in names:
                raise CheckpointInvalid(f"`{path}` is a TorchScript archive, not a state_dict.")
            if "data.pkl" not in names:
                raise CheckpointInvalid(f"`{path}` is a ZIP archive that torch.save did not write.")
        elif head[8:9] == b"{":
            raise CheckpointInvalid(f"`{path}` looks like safetensors, not like what torch.save writes.")
        elif not head.startswith(PICKLE_PROTOCOL_2):
            raise describe_stranger(path, head)
        return read_torch_file(path, file, sha256)


def read_torch_file(path: Path, file: IO[bytes], sha256: str) -> Checkpoint:
    """The weights in `file`, which stands at its beginning and has been measured. Raises as load_checkpoint does."""
    _check_archive(path, file)
    content = _unpickled(path, file)
    metadata = plain_metadata(path, content.get(METADATA_KEY, {}) if isinstance(content, Mapping) else {})
    if isinstance(content, Mapping):
        content = {key: value for key, value in content.items() if key != METADATA_KEY}
    weights, notes = choose_generator(path, content)
    return Checkpoint(path, sha256, weights, metadata, TORCH, notes)


def _check_archive(path: Path, file: IO[bytes]) -> None:
    """Follow the pickle before it is read, and compare the storages with what it says of them.

    The old format's reader counts those by itself.
    """
    if file.read(4) == ZIP_MAGIC:
        file.seek(0)
        names = list_entries(path, file, sys.maxsize)
        entry = names["data.pkl"]
        if entry.file_size > _LARGEST_PICKLE_BYTES:
            raise CheckpointInvalid(
                f"`{path}` describes its tensors in {entry.file_size:,} bytes; that is no generator's."
            )
        sizes = {name[5:]: found.file_size for name, found in names.items() if name.startswith("data/")}
        with zipfile.ZipFile(file) as archive:
            check_storages(path, read_entry(path, archive, entry), sizes)
    else:
        file.seek(0)
        check_old_file(path, file, _LARGEST_PICKLE_BYTES)
    file.seek(0)


def _unpickled(path: Path, file: IO[bytes]) -> object:
    try:
        # A Namespace is what training scripts keep their options in: attributes and no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old storages, to their authors
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointInvalid(_unpickling_message(path, exc)) from exc
    except Exception as exc:  # the unpickler meets damage with almost any exception
        raise CheckpointInvalid(
            f"`{path}` is damaged: {type(exc).__name__}: {first_line(exc)}. Copy it again."
        ) from exc


def _unpickling_message(path: Path, exc: pickle.UnpicklingError) -> str:
    """Say what stopped the unpickler; torch's own text advises loading the file unsafely."""
    blocked = re.search(r"(?:GLOBAL|class) '?([\w.]+)", str(exc))
    if blocked is None:
        return f"`{path}` is damaged, or not a checkpoint. Copy it again."
    return (
        f"`{path}` holds a Python object, `{blocked[1][:80]}`; objects can run code when loaded, so the file was "
        "not run. Save it again as torch.save(generator.state_dict(), ...)."
    )
