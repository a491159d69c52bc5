"""Keeps two runs from writing into one folder at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sketchbridge_cli.errors import FolderBusy


@contextmanager
def locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock file `path` for `folder`. The system frees it when the process ends, however that happens.

    Raises FolderBusy if another run holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            raise FolderBusy(
                f"Another run (process {holder}) is writing into `{folder}`. Wait for it, or name another --output."
            ) from exc
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
