"""Who waits until when: a table that the Python processes of one server share.

A request that waits for a step of an ensemble is given to that step whether anybody still waits for the answer or not:
Triton tells a step nothing, and its own queue policies stall the server. So the first step of an ensemble notes when it
saw a request, and each later step looks the request up before it works on it.

A request is known by its id and its `timeout` (`shared_table`). Its deadline is `timeout` after its note. **None is
refused before its own deadline**, because:

- Ids repeat: a retry carries the id of the first try, and a caller may use one id for ever. The newest note of a slot
  counts, and equal keys have equal timeouts, so a request with the same key that came in before only gets more time.
- A slot has a column for each process that notes, so that each cell has one writer. It reads the clock and stores under
  a lock, so a cell's time never goes back: whatever was written over its note, the newest time of the slot is
  never older than the request's own note. If the newest is someone else's, the request is worked on as if there were
  no table. So a collision costs a chance to save work, and nothing else. A process that finds no column left closes the
  table for all, for it could not note.
- A cell is two aligned words of 8 bytes, each stored and loaded at once. The second holds the key mixed with the first,
  so a cell read between the two stores fits no key.
- A request sent to a later step itself, past the first, has no note of its own. It would find one of an earlier call
  with its id and its timeout, to the microsecond. So ids shorter than 16 characters, counters and names rather than
  ids, are neither noted nor looked up. A caller who also repeats long ids, calls both an ensemble and its
  inner steps with them, and gives each call the very same timeout, may be refused; ids are there to tell calls apart.

The clock is CLOCK_MONOTONIC, one for all processes of a machine. Noting takes about 2 us, and so does looking up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sketchbridge_server.shared_table import SHORTEST_ID, WORD_BYTES, check_of, create_file, joining, key_of

VARIABLE = "SKETCHBRIDGE_DEADLINES"
"""The environment variable that tells a model's process where the table is; without it nothing is noted or refused."""

SLOTS = 8192
COLUMNS = 8

_ROW_WORDS = 2 * COLUMNS  # the times of all columns, then their checks
_WRITERS = 0  # the word that counts the processes that note; the rest of the header's row is free
SIZE_BYTES = WORD_BYTES * _ROW_WORDS * (1 + SLOTS)  # 1 MiB and the header


def create_table(path: Path) -> None:
    """Make an empty table, for this user only. Raises OSError, FileExistsError too; nothing is left behind then."""
    create_file(path, SIZE_BYTES, reserved_bytes=SIZE_BYTES)


class DeadlineTable:
    """The table in `path`, as one process uses it, from any of its threads."""

    def __init__(self, path: Path, *, notes: bool, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Map the table.

        notes: whether this process will note requests; it takes a column for good. clock: nanoseconds; the same for
        all processes of the table. Raises OSError if the file is not there, ValueError if it is no table.
        """
        with joining(path, SIZE_BYTES) as (self._words, _):
            self._column = COLUMNS
            if notes:
                self._column = self._words[_WRITERS]
                self._words[_WRITERS] = self._column + 1
        self._clock = clock
        self._lock = threading.Lock()

    def note(self, request_id: str, timeout_us: int) -> None:
        """Note that a request came in now. timeout_us: what it was given; 0 is no limit, and not noted."""
        if timeout_us <= 0 or len(request_id) < SHORTEST_ID or self._column >= COLUMNS:
            return
        key = key_of(request_id, timeout_us)
        time_at = _row(key) + self._column
        with self._lock:
            now = self._clock()
            self._words[time_at] = now
            self._words[time_at + COLUMNS] = check_of(key, now)

    def has_passed(self, request_id: str, timeout_us: int) -> bool:
        """Whether a request's time is over; False if that is not known."""
        if timeout_us <= 0 or len(request_id) < SHORTEST_ID or self._words[_WRITERS] > COLUMNS:
            return False
        key = key_of(request_id, timeout_us)
        row = _row(key)
        # Word by word, times first: what is stored meanwhile is newer than any time that counts.
        cells = self._words[row : row + _ROW_WORDS].tolist()
        noted = max(cells[:COLUMNS])
        if cells[COLUMNS + cells.index(noted)] != check_of(key, noted):
            return False
        return self._clock() > noted + 1000 * timeout_us


def _row(key: int) -> int:
    """Where the row of a key's slot begins, in words; the header is a row too."""
    return _ROW_WORDS * (1 + key % SLOTS)
