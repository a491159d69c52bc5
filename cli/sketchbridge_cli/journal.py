"""What has been made in a folder, line by line, so that a batch that was stopped goes on where it was.

`FOLDER/.sketchbridge/<command>.jsonl` has a line when a picture is begun and another when it is finished; paths in it
are relative to FOLDER. A line is appended by one write, so a killed run leaves at most one torn line, the last, which
is ignored. Each run begins by rewriting the file without what no longer counts, so it stays about as long as the folder
has pictures.
"""

# ruff: noqa: PTH110, PTH116, PTH118  a folder may have 100,000 files; their paths stay strings, which are made and held at less cost

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sketchbridge_cli.folder_lock import locked

FOLDER_NAME = ".sketchbridge"


class Stamp(NamedTuple):
    """What tells whether an input has changed: its size in bytes, and when it was last written in ns since 1970."""

    size_bytes: int
    mtime_ns: int


class Entry(NamedTuple):
    """One line. input, outputs: relative to the folder. options: canonical JSON. stamp: None if it was only begun."""

    input: str
    outputs: tuple[str, ...]
    options: str = ""
    stamp: Stamp | None = None
    model_version: str = ""

    @property
    def line(self) -> bytes:
        """The entry as a line of the file."""
        record: dict[str, Any] = {"input": self.input, "outputs": self.outputs}
        if self.stamp is not None:
            record |= self.stamp._asdict()
            record |= {"options": json.loads(self.options), "model_version": self.model_version}
        return json.dumps(record).encode() + b"\n"


def canonical(options: Mapping[str, Any]) -> str:
    """The options as text that is the same whenever they are."""
    return json.dumps(dict(options), sort_keys=True)


def stamp_of(path: str) -> Stamp:
    """The stamp of a file as it is now. Raises OSError."""
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)


def parse_line(line: bytes) -> Entry | None:
    """The entry that a line holds, or None for a line that is torn or not ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        source, outputs = record["input"], tuple(record["outputs"])
        if not (isinstance(source, str) and outputs and all(isinstance(output, str) for output in outputs)):
            return None
        if "size_bytes" not in record:
            return Entry(source, outputs)
        stamp = Stamp(int(record["size_bytes"]), int(record["mtime_ns"]))
        return Entry(source, outputs, canonical(record["options"]), stamp, str(record["model_version"]))
    except (ValueError, TypeError, KeyError):
        return None


def read_entries(path: Path) -> Iterator[Entry | None]:
    """The entries of a file in order, None for each line that holds none; nothing if there is no file."""
    with suppress(FileNotFoundError, NotADirectoryError), path.open("rb") as lines:
        for line in lines:
            yield parse_line(line)


def made_within(root: str, looked_into: Iterable[str]) -> set[str]:
    """The pictures that some run made from files in `root`, by the journals of the folders that may tell.

    root: a resolved path. looked_into: resolved paths of `root` and of folders in it. A journal above `root` tells too.
    """
    made: set[str] = set()
    for folder in {*looked_into, *(str(parent) for parent in Path(root).parents)}:
        for path in Path(folder, FOLDER_NAME).glob("*.jsonl"):
            with suppress(PermissionError):  # of another user, above the root
                for entry in read_entries(path):
                    if entry is not None and _is_within(root, _absolute(folder, entry.input)):
                        made.update(_absolute(folder, output) for output in entry.outputs)
    return made


class Journal:
    """The journal of one command in one folder, held by this process alone. Made by `open_journal`."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._relative_folder = lru_cache(maxsize=1024)(self._relative_to_folder)
        self._entries = self._compacted(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def is_done(self, source: str, outputs: Iterable[Path], options: str) -> bool:
        """Whether `source`, as it is now, was made into `outputs` with these options, and they are still there."""
        targets = list(outputs)
        entry = self._entries.get(self._relative_all(targets))
        if entry is None or entry.stamp is None or (entry.input, entry.options) != (self._relative(source), options):
            return False
        try:
            return entry.stamp == stamp_of(source) and all(os.stat(target).st_size > 0 for target in targets)
        except OSError:
            return False

    def forget(self) -> None:
        """Free what `is_done` needs, once it has been asked about every input."""
        self._entries = {}

    def begin(self, source: str, outputs: Iterable[Path]) -> None:
        """Note that `outputs` are about to be made, so that whatever lies there is known to be ours."""
        self._append(Entry(self._relative(source), self._relative_all(outputs)))

    def finish(self, source: str, outputs: Iterable[Path], options: str, stamp: Stamp, model_version: str) -> None:
        """Note that `outputs` are there. stamp: of the input, taken before it was read."""
        self._append(Entry(self._relative(source), self._relative_all(outputs), options, stamp, model_version))

    def _append(self, entry: Entry) -> None:
        line = entry.line
        if os.write(self._descriptor, line) != len(line):  # one write, so that no other line gets into this one
            raise OSError(f"The journal in `{self._folder}` cannot be written to: the disk is full.")

    def _compacted(self, path: Path) -> dict[tuple[str, ...], Entry]:
        """The last entry for each output that is still there; the file is rewritten if it holds more than those."""
        latest: dict[tuple[str, ...], Entry] = {}
        lines = 0
        for entry in read_entries(path):
            lines += 1
            if entry is not None:
                latest[entry.outputs] = entry
        kept = {
            outputs: entry
            for outputs, entry in latest.items()
            if any(os.path.exists(os.path.join(self._folder, output)) for output in outputs)
        }
        if lines != len(kept):
            beside = path.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with beside.open("wb") as file:
                    file.writelines(entry.line for entry in kept.values())
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
        return kept

    def _relative_all(self, paths: Iterable[Path]) -> tuple[str, ...]:
        return tuple(self._relative(str(path)) for path in paths)

    def _relative(self, path: str) -> str:
        """`path` as seen from the folder. Links in its folder are resolved, since it may be given in many ways."""
        parent, name = os.path.split(path)
        return os.path.normpath(os.path.join(self._relative_folder(parent), name))

    def _relative_to_folder(self, path: str) -> str:
        return os.path.relpath(os.path.realpath(path), self._folder)


@contextmanager
def open_journal(folder: Path, command: str) -> Iterator[Journal]:
    """The journal of `command` in `folder`, which must be there; the folder is locked against other runs meanwhile.

    Raises FolderBusy if another run is writing to the folder, OSError if nothing can be written there.
    """
    hidden = folder / FOLDER_NAME
    hidden.mkdir(exist_ok=True)
    with locked(hidden / "lock", folder):
        journal = Journal(folder, hidden / f"{command}.jsonl")
        try:
            yield journal
        finally:
            journal.close()


def _absolute(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))


def _is_within(root: str, path: str) -> bool:
    return path.startswith(root if root.endswith(os.sep) else root + os.sep)
