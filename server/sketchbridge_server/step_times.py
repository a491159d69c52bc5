"""How long each step of a request took: a table in which the Python processes of one server stamp their turns.

Triton tells a model nothing of when a request was queued, and its answers can carry no parameters. So each process that
serves a model stamps, for each request, when its turn began and when it ended. The step that is asked for the times
looks the stamps up and tells what the request went through. What can be seen to be another's is left out:

- Each process has a column, so that each cell has one writer, and a cell holds the newest turn whose request fell on
  it. It is two times and a check that mixes them with the request's key: a cell that was written over by another
  request, or is read between two stores, fits no key.
- Ids repeat: a retry carries the id of the first try. Every ensemble begins with a step that takes bytes, so what
  counts is the newest turn of such a step, and what came after it: each turn begun when the one before had ended, no
  step twice. A stamp of the same request that is neither before all that nor within it comes of another call with the
  same id; then nothing is told but the step itself. So it is if the step that asks has had its turn already, as where
  somebody calls it by itself with the id of an ensemble's call.
- **Calls that go on at once with one id and one `timeout` may be told each other's times**: where their turns do not
  overlap, one's stamps look like those of the other. Ids are there to tell calls apart.

A backend that is not in Python stamps nothing: its time counts as waiting of the step after it.

Each process takes the memory of its own column, 192 KiB, and keeps it. One that finds none left goes without the table.
The clock is CLOCK_MONOTONIC, one for all processes of a machine. A stamp takes about 2 us; with 8 processes,
looking up and writing the text take about 15 us.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sketchbridge_server.shared_table import SHORTEST_ID, WORD_BYTES, check_of, create_file, joining, key_of

VARIABLE = "SKETCHBRIDGE_STEP_TIMES"
"""The environment variable that tells a model's process where the table is; without it nothing is stamped."""

OUTPUT = "timings"
"""The output in which a step tells the times, if its configuration has it."""

SLOTS = 8192
COLUMNS = 64
LONGEST_NAME_BYTES = 120

_CELL_WORDS = 3  # began, ended, check
_WRITERS = 0  # the word that counts the columns in use; the rest of the first title is free
_TITLE_WORDS = 1 + LONGEST_NAME_BYTES // WORD_BYTES  # whether it is a first step, then its name
_COLUMN_BYTES = WORD_BYTES * _CELL_WORDS * SLOTS
_TITLES_BYTES = WORD_BYTES * _TITLE_WORDS * (1 + COLUMNS)
SIZE_BYTES = _TITLES_BYTES + COLUMNS * _COLUMN_BYTES


class Stamp(NamedTuple):
    """A step's turn with a request. is_first: whether the step takes bytes, so that ensembles begin with it."""

    model: str
    is_first: bool
    began_ns: int
    ended_ns: int


def create_table(path: Path) -> None:
    """Make an empty table, for this user only. Raises OSError, FileExistsError too; nothing is left behind then."""
    create_file(path, SIZE_BYTES, reserved_bytes=_TITLES_BYTES)


class StepTimes:
    """The table in `path`, as the process of one model uses it: one thread at a time stamps, any may look up."""

    def __init__(self, path: Path, *, model: str, is_first: bool, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Map the table and take a column, for good.

        clock: nanoseconds; the same for all processes of the table. Raises OSError if the file is not there or there
        is no column left or no memory for one, ValueError if it is no table.
        """
        self.model = _shortened(model)
        self._is_first = is_first
        self._clock = clock
        self._titles: tuple[tuple[str, bool], ...] = ()
        with joining(path, SIZE_BYTES) as (self._words, file):
            number = self._words[_WRITERS]
            if number >= COLUMNS:
                raise OSError(f"all {COLUMNS} columns are taken until the server is started again")
            os.posix_fallocate(file, WORD_BYTES * _first_word(number), _COLUMN_BYTES)
            name = self.model.encode().ljust(LONGEST_NAME_BYTES, b"\0")
            title_at = _TITLE_WORDS * (1 + number)
            self._words[title_at] = is_first
            self._words[title_at + 1 : title_at + _TITLE_WORDS] = memoryview(name).cast("Q")
            self._words[_WRITERS] = number + 1
        self._column = number

    def stamp(self, request_id: str, timeout_us: int, began_ns: int, ended_ns: int) -> None:
        """Say when this model's turn with a request began and ended. timeout_us: what it was given; 0 is no limit."""
        if len(request_id) < SHORTEST_ID:
            return
        key = key_of(request_id, timeout_us)
        cell = _first_word(self._column) + _CELL_WORDS * (key % SLOTS)
        self._words[cell] = began_ns
        self._words[cell + 1] = ended_ns
        self._words[cell + 2] = check_of(key, began_ns, ended_ns)

    def told(self, request_id: str, timeout_us: int, began_ns: int) -> list[Stamp]:
        """The steps of a request up to this one, whose turn began then and ends now; this one alone in doubt."""
        before: list[Stamp] = []
        if not self._is_first:
            before = steps_before(self._stamps(key_of(request_id, timeout_us)), self.model, began_ns)
        return [*before, Stamp(self.model, self._is_first, began_ns, self._clock())]

    def _stamps(self, key: int) -> Iterator[Stamp]:
        cell = _first_word(0) + _CELL_WORDS * (key % SLOTS)
        for model, is_first in self._read_titles():
            began_ns, ended_ns, check = self._words[cell : cell + _CELL_WORDS].tolist()
            if check == check_of(key, began_ns, ended_ns):
                yield Stamp(model, is_first, began_ns, ended_ns)
            cell += _CELL_WORDS * SLOTS

    def _read_titles(self) -> tuple[tuple[str, bool], ...]:
        """Of the columns in use; a title stays as it is. Each of several threads makes a list of its own."""
        titles = self._titles
        count = self._words[_WRITERS]
        if len(titles) < count:
            titles = self._titles = tuple(self._read_title(column) for column in range(count))
        return titles

    def _read_title(self, column: int) -> tuple[str, bool]:
        title_at = _TITLE_WORDS * (1 + column)
        name = self._words[title_at + 1 : title_at + _TITLE_WORDS].tobytes().rstrip(b"\0").decode()
        return name, bool(self._words[title_at])


def steps_before(stamps: Iterable[Stamp], model: str, began_ns: int) -> list[Stamp]:
    """The steps, in order, that a request went through before the turn of `model` that began then; [] if in doubt."""
    found = list(stamps)
    first = max((stamp for stamp in found if stamp.is_first), key=lambda stamp: stamp[2:], default=None)
    if first is None:
        return []
    rest = [stamp for stamp in found if stamp is not first and stamp.ended_ns > first.began_ns]
    steps = [first, *sorted(rest, key=lambda stamp: stamp.began_ns)]
    ends_here = [*steps, Stamp(model, is_first=False, began_ns=began_ns, ended_ns=began_ns)]
    is_in_order = all(one.ended_ns <= after.began_ns for one, after in pairwise(ends_here))
    is_each_once = len({stamp.model for stamp in ends_here}) == len(ends_here)
    return steps if is_in_order and is_each_once else []


def as_json(steps: Sequence[Stamp]) -> bytes:
    """The times of steps in order, as callers read them: of each its model, what it waited and what it took."""
    ends: list[int | None] = [None, *(step.ended_ns for step in steps)]
    told = [
        {
            "model": step.model,
            "queue_us": None if ended_ns is None else (step.began_ns - ended_ns) // 1000,
            "compute_us": (step.ended_ns - step.began_ns) // 1000,
        }
        for ended_ns, step in zip(ends, steps, strict=False)
    ]
    return json.dumps(told).encode()


def _first_word(column: int) -> int:
    return (_TITLES_BYTES + column * _COLUMN_BYTES) // WORD_BYTES


def _shortened(model: str) -> str:
    return model.encode()[:LONGEST_NAME_BYTES].decode(errors="ignore")
