"""Opening a file that nobody has vouched for: once, bounded, and looked at before it is parsed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from sketchbridge_export.errors import CheckpointInvalid

MAX_CHECKPOINT_BYTES = 4 * 1024**3  # 20 times a U-Net-256 of ngf 64; above that it holds more than a generator
METADATA_KEY = "sketchbridge"
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_PROTOCOL_2 = b"\x80\x02"  # what torch wrote before 1.6
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_MAX_METADATA_CHARACTERS = 64 * 1024
_MOST_EXPANSION = 32  # times the file's size; PyTorch and Keras store, they do not compress
_MOST_ENTRIES = 100_000  # of an archive; a generator has hundreds of tensors
_STRANGERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself. Fetch it with `git lfs pull`"),
    (b"<", "a web page or XML: the download probably failed. Fetch it again"),
    (b"GGUF", "a GGUF file, which holds language models"),
    (b"\x89PNG", "a picture. Pass the generator's checkpoint"),
    (b"\xff\xd8\xff", "a picture. Pass the generator's checkpoint"),
    (b"\x1f\x8b", "compressed with gzip. Unpack it and pass the checkpoint inside"),
    (b"7z\xbc\xaf", "compressed with 7-Zip. Unpack it and pass the checkpoint inside"),
    (b"Rar!", "compressed with RAR. Unpack it and pass the checkpoint inside"),
    (b"\x80\x03", "a Python pickle that torch.save did not write; pickles can run code, so it was not read"),
    (b"\x80\x04", "a Python pickle that torch.save did not write; pickles can run code, so it was not read"),
    (b"\x80\x05", "a Python pickle that torch.save did not write; pickles can run code, so it was not read"),
    (b"\x93NUMPY", "a NumPy array. Pass the generator's checkpoint"),
    (b"\x7fELF", "a program"),
)


def opened(path: Path) -> IO[bytes]:
    """The file, open for reading. Raises CheckpointInvalid unless it is an ordinary file that can be read."""
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


def measure(path: Path, file: IO[bytes], max_bytes: int) -> tuple[bytes, str]:
    """The file's first 512 bytes and its sha256; leaves it at its beginning.

    Raises CheckpointInvalid if it is empty, larger than `max_bytes` or can't be read.
    """
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes == 0:
        raise CheckpointInvalid(f"`{path}` is empty. Copy it again.")
    if size_bytes > max_bytes:
        raise CheckpointInvalid(
            f"`{path}` has {size_bytes:,} bytes; at most {max_bytes:,} are read. Save the generator's state_dict alone."
        )
    try:
        head = file.read(512)
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    except OSError as exc:
        raise CheckpointInvalid(f"`{path}` can't be read: {exc.strerror}.") from exc
    file.seek(0)
    return head, digest.hexdigest()


def list_entries(path: Path, file: IO[bytes], max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """A ZIP archive's entries by name, without the folder that all of them share; leaves `file` at its beginning.

    Raises CheckpointInvalid if the archive is damaged, names an entry twice, or unpacks to more than `max_bytes` or to
    32 times its own size.
    """
    size_bytes = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as exc:
        raise CheckpointInvalid(f"`{path}` is truncated or damaged: {first_line(exc)}. Copy it again.") from exc
    finally:
        file.seek(0)
    unpacked_bytes = sum(entry.file_size for entry in entries)
    max_bytes = min(max_bytes, size_bytes * _MOST_EXPANSION)
    if unpacked_bytes > max_bytes:
        raise CheckpointInvalid(f"`{path}` unpacks to {unpacked_bytes:,} bytes; at most {max_bytes:,} are taken.")
    if len(entries) > _MOST_ENTRIES:
        raise CheckpointInvalid(f"`{path}` has {len(entries):,} entries; at most {_MOST_ENTRIES:,} are taken.")
    roots = {entry.filename.partition("/")[0] for entry in entries}
    shared = len(roots) == 1 and all("/" in entry.filename for entry in entries)
    named = {entry.filename.partition("/")[2] if shared else entry.filename: entry for entry in entries}
    if len({name.casefold() for name in named}) < len(entries):  # two readers could see different files
        raise CheckpointInvalid(f"`{path}` is damaged: it holds two entries of one name. Copy it again.")
    return named


def read_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """One entry's content, after its checksum has been compared. Raises CheckpointInvalid if it is damaged."""
    try:
        return archive.read(entry)
    except Exception as exc:  # damage shows as zlib.error, EOFError, NotImplementedError, RuntimeError (encrypted), ...
        raise CheckpointInvalid(f"`{path}` is damaged at `{entry.filename[:100]}`. Copy it again.") from exc


def repacked(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> IO[bytes]:
    """A new archive of these entries, each under its name here, in a file that is gone when it is closed.

    Readers differ in where they look for an archive's directory and in what they take for the same name, so a file can
    show one of them what another does not see. What was looked at here is handed to another reader only so.
    Raises CheckpointInvalid if an entry is damaged.
    """
    with contextlib.ExitStack() as closing:
        result = closing.enter_context(tempfile.TemporaryFile())
        with zipfile.ZipFile(result, "w") as copy:
            for name, entry in entries.items():
                copy.writestr(f"archive/{name}", read_entry(path, archive, entry))
        result.seek(0)
        closing.pop_all()
        return result


def describe_stranger(path: Path, head: bytes) -> CheckpointInvalid:
    """The refusal of a file that none of the readers takes, saying what it is where that is known."""
    for magic, what in _STRANGERS:
        if head.startswith(magic):
            return CheckpointInvalid(f"`{path}` is {what}.")
    if head[4:8] == b"TFL3":
        return CheckpointInvalid(f"`{path}` is a TensorFlow Lite file. Pass the Keras model it was made from.")
    if head[257:262] == b"ustar":
        return CheckpointInvalid(f"`{path}` is a tar archive. Unpack it and pass the checkpoint inside.")
    return CheckpointInvalid(
        f"`{path}` was not written by torch.save, and is neither safetensors, ONNX nor Keras: it begins with "
        f"{head[:8]!r}."
    )


def plain_metadata(path: Path, metadata: object) -> Mapping[str, Any]:
    """A copy of a file's `sketchbridge` entry. Raises CheckpointInvalid unless it is a small dict of plain JSON."""
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise CheckpointInvalid(
            f"The {METADATA_KEY!r} entry of `{path}` is not plain JSON: {first_line(exc)}."
        ) from exc
    if not isinstance(metadata, Mapping) or len(text) > _MAX_METADATA_CHARACTERS:
        raise CheckpointInvalid(
            f"The {METADATA_KEY!r} entry of `{path}` must be a dict of at most {_MAX_METADATA_CHARACTERS} characters."
        )
    copied: dict[str, Any] = json.loads(text)
    return copied


def parse_metadata(path: Path, text: str | None) -> Mapping[str, Any]:
    """The `sketchbridge` entry of a format that stores text only: a JSON object, or None where there is no entry."""
    if text is None:
        return {}
    try:
        content = json.loads(text) if len(text) <= _MAX_METADATA_CHARACTERS else None
    except (ValueError, RecursionError) as exc:
        raise CheckpointInvalid(
            f"The {METADATA_KEY!r} entry of `{path}` is not plain JSON: {first_line(exc)}."
        ) from exc
    return plain_metadata(path, content)


def first_line(exc: BaseException) -> str:
    """The first line of what an exception says, at most 200 characters, without a full stop."""
    lines = str(exc).strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[0][:200]).rstrip(".") if lines else "no reason given"
