"""Tables in shared memory, with which the Python processes of one server know of each other's requests.

Each is a file in /dev/shm that the server makes, tells its models of by an environment variable, and removes with the
rest of its shared memory. It is words of 8 bytes, each stored and loaded at once. A request is known by the hash of its
id and its `timeout`, the microseconds it was given: nothing else reaches every step of an ensemble.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORD_BYTES = 8

SHORTEST_ID = 16
"""Shorter ids are counters and names, which repeat, rather than ids. No table takes them."""

_WORD = 2**64 - 1  # the largest word; `& _WORD` is what is left of a number in one
_ODD, _OTHER_ODD = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # any odd numbers with bits all over


def create_file(path: Path, size_bytes: int, *, reserved_bytes: int) -> None:
    """Make a file of zeros, for this user only. Raises OSError, FileExistsError too; nothing is left behind then.

    reserved_bytes: how much memory is taken at once, from the beginning. On a full /dev/shm a process that wrote to
    memory which was not taken would be killed.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(file, size_bytes)
        os.posix_fallocate(file, 0, reserved_bytes)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(file)


@contextmanager
def joining(path: Path, size_bytes: int) -> Iterator[tuple[memoryview[int], int]]:
    """Map a table, as its words and its file; no other process joins meanwhile. The words stay valid.

    Raises OSError if the file is not there, ValueError if it is no such table.
    """
    with path.open("r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), size_bytes)).cast("Q")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield words, file.fileno()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do: the map keeps the file open


def key_of(request_id: str, timeout_us: int) -> int:
    """A request's key, a word; the same in all processes, unlike `hash`."""
    text = f"{timeout_us} {request_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=WORD_BYTES).digest(), "little")


def check_of(key: int, time_ns: int, other_time_ns: int = 0) -> int:
    """A word to store after a request's times, by which a reader knows whose they are and that none was changed."""
    return key ^ (time_ns * _ODD + other_time_ns * _OTHER_ODD & _WORD)
