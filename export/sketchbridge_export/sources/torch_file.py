"""Reads what torch.save wrote.

Only tensors and plain containers are taken (`weights_only`), so a file can't run code; what it may cost is bounded
before it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.families import Weights
from sketchbridge_export.sources.source import Checkpoint

MAX_CHECKPOINT_BYTES = 4 * 1024**3  # 20 times a U-Net-256 of ngf 64; above that it holds more than a generator
_MAX_METADATA_CHARACTERS = 64 * 1024
_METADATA_KEY = "sketchbridge"
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_PROTOCOL_2 = b"\x80\x02"  # what torch wrote before 1.6

# Where training scripts put the generator's weights, first come first served: the generator by name before "the model".
_WRAPPERS = (
    "generator", "generator_state_dict", "netG", "netG_state_dict", "gen", "gen_state_dict", "G", "G_state_dict",
    "state_dict", "model_state_dict", "model", "net", "network", "params", "weights",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")  # put there by DataParallel and torch.compile
_DEEPEST_WRAPPING = 4


def load_checkpoint(path: Path, *, max_bytes: int = MAX_CHECKPOINT_BYTES) -> Checkpoint:
    """Read the weights in `path`, a file written by torch.save.

    max_bytes: the largest file that is opened. Raises CheckpointInvalid, saying what the file is instead, if it is
    missing, empty, too large, truncated, not a checkpoint, holds Python objects, or holds no usable weights.
    """
    with _opened(path) as file:  # once: a file that is replaced meanwhile must not get the digest of another
        sha256 = _check_file(path, file, max_bytes)
        content = _unpickled(path, file)
    metadata = _read_metadata(path, content)
    if isinstance(content, Mapping):
        content = {key: value for key, value in content.items() if key != _METADATA_KEY}
    tensors = _unwrap(path, content)
    return Checkpoint(path, sha256, Weights(_clean(path, tensors)), metadata)


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.is_dir():
            raise CheckpointInvalid(
                f"`{path}` is a folder; pass the checkpoint file in it, such as `latest_net_G.pth`."
            )
        if not path.exists():
            raise CheckpointInvalid(f"`{path}` does not exist.")
        if not path.is_file():  # a pipe would be waited for
            raise CheckpointInvalid(f"`{path}` is no ordinary file. Copy it into one.")
        return path.open("rb")
    except OSError as exc:
        raise CheckpointInvalid(f"`{path}` can't be read: {exc.strerror}.") from exc


def _unpickled(path: Path, file: IO[bytes]) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointInvalid(_unpickling_message(path, exc)) from exc
    except Exception as exc:  # the unpickler meets damage with almost any exception
        raise CheckpointInvalid(
            f"`{path}` is damaged: {type(exc).__name__}: {_first_line(exc)}. Copy it again."
        ) from exc


def _check_file(path: Path, file: IO[bytes], max_bytes: int) -> str:
    """The file's digest, after a look at what it is; leaves it at its beginning."""
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes == 0:
        raise CheckpointInvalid(f"`{path}` is empty. Copy it again.")
    if size_bytes > max_bytes:
        raise CheckpointInvalid(
            f"`{path}` has {size_bytes:,} bytes; at most {max_bytes:,} are read. Save the generator's state_dict alone."
        )
    try:
        head = file.read(16)
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    except OSError as exc:
        raise CheckpointInvalid(f"`{path}` can't be read: {exc.strerror}.") from exc
    if head.startswith(_ZIP_MAGIC):
        _check_archive(path, file, max_bytes)
    elif head[8:9] == b"{":
        raise CheckpointInvalid(f"`{path}` looks like safetensors, which is not taken yet. Save it with torch.save.")
    elif not head.startswith(_PICKLE_PROTOCOL_2):
        raise CheckpointInvalid(f"`{path}` was not written by torch.save: it begins with {head[:8]!r}.")
    file.seek(0)
    return digest.hexdigest()


def _check_archive(path: Path, file: IO[bytes], max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as exc:
        raise CheckpointInvalid(f"`{path}` is truncated or damaged: {_first_line(exc)}. Copy it again.") from exc
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise CheckpointInvalid(f"`{path}` is a TorchScript archive, which is not taken yet. Save its state_dict().")
    if "data.pkl" not in names:
        raise CheckpointInvalid(f"`{path}` is a ZIP archive that torch.save did not write.")
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if unpacked_bytes > max_bytes:
        raise CheckpointInvalid(f"`{path}` unpacks to {unpacked_bytes:,} bytes; at most {max_bytes:,} are taken.")


def _unpickling_message(path: Path, exc: pickle.UnpicklingError) -> str:
    """Say what stopped the unpickler; torch's own text advises loading the file unsafely."""
    blocked = re.search(r"GLOBAL ([\w.]+)", str(exc))
    if blocked is None:
        return f"`{path}` is damaged, or not a checkpoint. Copy it again."
    return (
        f"`{path}` holds a Python object, `{blocked[1][:80]}`; objects can run code when loaded, so the file was "
        "not run. Save it again as torch.save(generator.state_dict(), ...)."
    )


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"


def _read_metadata(path: Path, content: object) -> Mapping[str, Any]:
    metadata = content.get(_METADATA_KEY, {}) if isinstance(content, Mapping) else {}
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise CheckpointInvalid(f"The {_METADATA_KEY!r} entry of `{path}` is not plain JSON: {exc}.") from exc
    if not isinstance(metadata, Mapping) or len(text) > _MAX_METADATA_CHARACTERS:
        raise CheckpointInvalid(
            f"The {_METADATA_KEY!r} entry of `{path}` must be a dict of at most {_MAX_METADATA_CHARACTERS} characters."
        )
    copied: dict[str, Any] = json.loads(text)
    return copied


def _unwrap(path: Path, content: object) -> dict[str, torch.Tensor]:
    for _ in range(_DEEPEST_WRAPPING):
        if not isinstance(content, Mapping):
            raise CheckpointInvalid(f"`{path}` holds a {type(content).__name__}; expected a dict of tensors.")
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if inner is None and tensors:
            return _check_names(path, content, tensors)
        if inner is None:
            keys = ", ".join(repr(key) for key in list(content)[:8])
            raise CheckpointInvalid(f"`{path}` holds no weights of a generator; its entries are: {keys or 'none'}.")
        content = inner
    raise CheckpointInvalid(f"`{path}` wraps its weights more than {_DEEPEST_WRAPPING} deep.")


def _check_names(path: Path, content: Mapping[Any, Any], tensors: dict[Any, torch.Tensor]) -> dict[str, torch.Tensor]:
    odd = [key for key in content if key not in tensors or not isinstance(key, str)]
    if odd:
        raise CheckpointInvalid(
            f"`{path}` mixes tensors with other things, such as {odd[0]!r}. Save the state_dict alone."
        )
    for prefix in _PREFIXES * 2:  # compiled and distributed, in either order
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors


def _clean(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise CheckpointInvalid(f"`{name}` in `{path}` is not a plain tensor of numbers.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointInvalid(f"`{name}` in `{path}` claims {tuple(tensor.shape)} values but stores fewer.")
        plain = tensor.detach()
        if plain.is_floating_point():
            try:
                plain = plain.float()  # before anything is computed: the small types can hardly do more than this
            except (NotImplementedError, RuntimeError) as exc:
                raise CheckpointInvalid(f"`{name}` in `{path}` is {tensor.dtype}. Save it as float32.") from exc
            if not bool(torch.isfinite(plain).all()):
                raise CheckpointInvalid(f"`{name}` in `{path}` holds NaN or infinity: its training diverged.")
        result[name] = plain.contiguous()
    return result
