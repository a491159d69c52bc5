"""Readers of files that nobody has vouched for: one file each, none of which lets a file run code.

open_source         any file: recognised by its content, never by its name
load_checkpoint     what torch.save wrote
choose_generator    the generator's weights in what a training script saved
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources import exported_program, onnx_file, safetensors_file, torchscript
from sketchbridge_export.sources.contents import choose_generator
from sketchbridge_export.sources.files import (
    HDF5_MAGIC,
    MAX_CHECKPOINT_BYTES,
    PICKLE_PROTOCOL_2,
    ZIP_MAGIC,
    describe_stranger,
    list_entries,
    measure,
    opened,
)
from sketchbridge_export.sources.source import Checkpoint, ReadyNetwork
from sketchbridge_export.sources.torch_file import load_checkpoint, read_torch_file

__all__ = ["MAX_CHECKPOINT_BYTES", "Checkpoint", "ReadyNetwork", "choose_generator", "load_checkpoint", "open_source"]


def open_source(
    path: Path, *, max_bytes: int = MAX_CHECKPOINT_BYTES, weights_first: bool = False
) -> Checkpoint | ReadyNetwork:
    """Read whatever `path` is: what torch.save, torch.jit.save or torch.export.save wrote, safetensors, ONNX, Keras.

    max_bytes: the largest file that is opened, and what an archive may unpack to. A network that comes with its own
    graph is a ReadyNetwork; with `weights_first` it is a Checkpoint if a family knows its weights. Raises
    CheckpointInvalid, saying what the file is instead, if it can't be used.
    """
    if _is_saved_model(path):
        from sketchbridge_export.sources.saved_model import load_saved_model  # noqa: PLC0415 - needs TensorFlow

        checkpoint: Checkpoint = load_saved_model(path, max_bytes=max_bytes)
        return checkpoint
    with opened(path) as file:  # once: a file that is replaced meanwhile must not get the digest of another
        head, sha256 = measure(path, file, max_bytes)
        if head.startswith(HDF5_MAGIC):
            return _load_keras(path, max_bytes)
        if head.startswith(ZIP_MAGIC):
            return _read_archive(path, file, sha256, max_bytes, weights_first=weights_first)
        if head.startswith(PICKLE_PROTOCOL_2):
            return read_torch_file(path, file, sha256)
        if safetensors_file.looks_like_safetensors(head):
            return safetensors_file.read_safetensors(path, file, sha256)
        if onnx_file.looks_like_onnx(head):
            return onnx_file.read_onnx(path, file, sha256, max_bytes)
        raise describe_stranger(path, head)


def _read_archive(
    path: Path, file: IO[bytes], sha256: str, max_bytes: int, *, weights_first: bool
) -> Checkpoint | ReadyNetwork:
    names = list_entries(path, file, max_bytes)
    if "constants.pkl" in names:
        return torchscript.read_torchscript(path, file, sha256, names, weights_first=weights_first)
    if "data.pkl" in names:
        return read_torch_file(path, file, sha256)
    if "config.json" in names or any(name.endswith(".weights.h5") for name in names):
        return _load_keras(path, max_bytes)
    if exported_program.is_exported_program(names):
        return exported_program.read_exported_program(path, file, sha256, names, weights_first=weights_first)
    shown = ", ".join(f"`{name[:60]}`" for name in list(names)[:3])
    raise CheckpointInvalid(f"`{path}` is a ZIP archive that torch.save did not write; it holds {shown or 'nothing'}.")


def _load_keras(path: Path, max_bytes: int) -> Checkpoint:
    from sketchbridge_export.sources.keras_file import load_keras  # noqa: PLC0415 - needs h5py

    return load_keras(path, max_bytes=max_bytes)


def _is_saved_model(path: Path) -> bool:
    try:
        return path.is_dir() and ((path / "saved_model.pb").is_file() or any(path.glob("*.index")))
    except (OSError, ValueError):
        return False  # opening it says why
