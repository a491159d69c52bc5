"""The table of deadlines, without a server: what it promises, whoever writes to it and when."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_server import deadlines
from sketchbridge_server.deadlines import COLUMNS, SIZE_BYTES, DeadlineTable, create_table

ID = "0123456789abcdef"
OTHER = "fedcba9876543210"


@dataclass
class Clock:
    """now: in nanoseconds."""

    now: int = 10**9

    def __call__(self) -> int:
        return self.now


Join = Callable[..., DeadlineTable]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def join(tmp_path: Path, clock: Clock) -> Join:
    path = tmp_path / "table"
    create_table(path)
    return lambda *, notes=True: DeadlineTable(path, notes=notes, clock=clock)


def test_time_is_over_just_after_the_deadline_for_every_process(join: Join, clock: Clock) -> None:
    writer, reader = join(), join(notes=False)
    writer.note(ID, 1_000)
    clock.now += 1_000_000
    assert not reader.has_passed(ID, 1_000)
    clock.now += 1
    assert reader.has_passed(ID, 1_000)
    assert writer.has_passed(ID, 1_000)


@pytest.mark.parametrize(("request_id", "timeout_us"), [(ID, 0), (ID, -1), ("", 1_000), ("1", 1_000)])
def test_who_has_no_limit_or_no_id_of_its_own_is_never_refused(
    join: Join, clock: Clock, request_id: str, timeout_us: int
) -> None:
    table = join()
    table.note(request_id, timeout_us)
    clock.now += 10**12
    assert not table.has_passed(request_id, timeout_us)


def test_who_was_never_noted_or_has_another_timeout_is_not_refused(join: Join, clock: Clock) -> None:
    table = join()
    table.note(ID, 1_000)
    clock.now += 10**12
    assert not table.has_passed(OTHER, 1_000)
    assert not table.has_passed(ID, 1_001)


def test_a_used_id_gets_its_whole_time_again(join: Join, clock: Clock) -> None:
    first, second = join(), join()
    first.note(ID, 1_000)
    clock.now += 10**12
    second.note(ID, 1_000)
    clock.now += 1_000_000
    assert not first.has_passed(ID, 1_000)


def test_any_text_and_any_timeout_can_be_noted(join: Join, clock: Clock) -> None:
    table = join()
    for request_id, timeout_us in itertools.product(("\udcff" * 16, "\0" * 16, "😀" * 5_000), (1, 2**64 - 1)):
        table.note(request_id, timeout_us)
        assert not table.has_passed(request_id, timeout_us)


events = st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from([1, 5, 20]), st.integers(0, 12))


@given(st.lists(events, max_size=60))
def test_nobody_is_refused_before_its_deadline_however_ids_repeat_and_slots_collide(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[int, int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "table"
    create_table(path)
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadlines, "SLOTS", 2)  # six ids in two slots: most notes are written over
        writers = [DeadlineTable(path, notes=True, clock=clock) for _ in range(3)]
        reader = DeadlineTable(path, notes=False, clock=clock)
        latest: dict[tuple[str, int], int] = {}
        for writer, number, timeout_us, later in happened:
            key = (f"{number:016}", timeout_us)
            writers[writer].note(*key)
            latest[key] = clock.now + 1_000 * timeout_us
            clock.now += 1_000 * later
            for noted, deadline in latest.items():
                assert not reader.has_passed(*noted) or clock.now > deadline


def test_an_older_note_of_another_process_does_not_stand_in_for_one_that_was_written_over(
    join: Join, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "SLOTS", 1)
    stale, busy = join(), join()
    stale.note(ID, 1_000)
    clock.now += 10**12
    busy.note(ID, 1_000)
    clock.now += 1
    busy.note(OTHER, 1_000)
    assert not busy.has_passed(ID, 1_000)
    clock.now += 10**12
    assert not busy.has_passed(ID, 1_000)
    assert busy.has_passed(OTHER, 1_000)


@pytest.mark.parametrize("half", ["time", "check"])
def test_a_cell_read_between_its_two_stores_says_nothing(
    join: Join, clock: Clock, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    monkeypatch.setattr(deadlines, "SLOTS", 1)
    table = join()
    table.note(ID, 1_000)
    row = 2 * COLUMNS
    before = table._words[row], table._words[row + COLUMNS]
    clock.now += 2_000_000
    table.note(OTHER, 1_000)
    if half == "time":
        table._words[row + COLUMNS] = before[1]
    else:
        table._words[row] = before[0]
    clock.now += 10**12
    assert not table.has_passed(ID, 1_000)
    assert not table.has_passed(OTHER, 1_000)


def test_a_process_too_many_closes_the_table(join: Join, clock: Clock) -> None:
    tables = [join() for _ in range(COLUMNS)]
    tables[-1].note(ID, 1_000)
    clock.now += 10**12
    assert tables[0].has_passed(ID, 1_000)
    extra = join()
    extra.note(OTHER, 1_000)
    clock.now += 10**12
    assert not tables[0].has_passed(ID, 1_000)
    assert not extra.has_passed(OTHER, 1_000)


def test_a_cell_never_goes_back_though_several_threads_note_at_once(tmp_path: Path) -> None:
    path = tmp_path / "table"
    create_table(path)
    ticks = itertools.count(1)
    table = DeadlineTable(path, notes=True, clock=lambda: next(ticks))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: table.note(ID, 1_000), range(2_000)))
    assert max(table._words[2 * COLUMNS :].tolist()[:: 2 * COLUMNS]) == 2_000


READ = """
import sys
from pathlib import Path
from sketchbridge_server.deadlines import DeadlineTable
print(DeadlineTable(Path(sys.argv[1]), notes=False).has_passed(sys.argv[2], 1))
"""


def test_another_process_finds_what_this_one_noted(tmp_path: Path) -> None:
    path = tmp_path / "table"
    create_table(path)
    DeadlineTable(path, notes=True).note(ID, 1)
    command = [sys.executable, "-c", READ, str(path), ID]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_table_has_its_memory_from_the_start_and_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "table"
    create_table(path)
    state = path.stat()
    assert state.st_size == SIZE_BYTES
    assert 512 * state.st_blocks >= SIZE_BYTES
    assert state.st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        create_table(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(FileNotFoundError):
        DeadlineTable(path, notes=False)
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="mmap length"):
        DeadlineTable(path, notes=False)
