"""The table of the times of steps, without a server: what it tells, whoever stamps and when, and what it leaves out."""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sketchbridge_server import step_times
from sketchbridge_server.shared_table import key_of
from sketchbridge_server.step_times import COLUMNS, SIZE_BYTES, Stamp, StepTimes, as_json, create_table, steps_before

ID = "0123456789abcdef"
OTHER = "fedcba9876543210"
TIMEOUT_US = 1_000


@dataclass
class Clock:
    """now: in nanoseconds. It never says the same twice."""

    now: int = 10**9

    def __call__(self) -> int:
        self.now += 1
        return self.now


Join = Callable[..., StepTimes]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def join(tmp_path: Path, clock: Clock) -> Join:
    path = tmp_path / "table"
    create_table(path)
    return lambda model, *, is_first=False: StepTimes(path, model=model, is_first=is_first, clock=clock)


@dataclass
class Steps:
    """The steps of an ensemble, each in a table of its own process."""

    clock: Clock
    decode: StepTimes
    paint: StepTimes
    encode: StepTimes

    def take(self, step: StepTimes, request_id: str = ID, timeout_us: int = TIMEOUT_US) -> None:
        """A turn of a step that tells nothing."""
        began_ns = self.clock()
        step.stamp(request_id, timeout_us, began_ns, self.clock())

    def tell(self, step: StepTimes, request_id: str = ID, timeout_us: int = TIMEOUT_US) -> list[str]:
        """A turn of a step, and the models of which it tells in it."""
        began_ns = self.clock()
        told = step.told(request_id, timeout_us, began_ns)
        step.stamp(request_id, timeout_us, began_ns, self.clock())
        return [stamp.model for stamp in told]


@pytest.fixture
def steps(join: Join, clock: Clock) -> Steps:
    return Steps(clock, join("decode", is_first=True), join("shoes_generator"), join("encode"))


def test_the_last_step_tells_what_every_step_waited_and_took(steps: Steps, clock: Clock) -> None:
    steps.decode.stamp(ID, TIMEOUT_US, 1_000_000, 1_412_999)
    steps.paint.stamp(ID, TIMEOUT_US, 1_502_999, 62_732_999)
    clock.now = 64_897_998
    told = as_json(steps.encode.told(ID, TIMEOUT_US, 62_787_999))
    assert told == (
        b'[{"model": "decode", "queue_us": null, "compute_us": 412}, '
        b'{"model": "shoes_generator", "queue_us": 90, "compute_us": 61230}, '
        b'{"model": "encode", "queue_us": 55, "compute_us": 2110}]'
    )


def test_a_first_step_tells_of_itself_alone_though_others_have_stamped(steps: Steps, join: Join) -> None:
    steps.take(steps.decode)
    steps.take(steps.paint)
    assert steps.tell(join("sketch", is_first=True)) == ["sketch"]


def test_a_step_called_by_itself_with_a_used_id_tells_of_itself_alone(steps: Steps) -> None:
    for _ in range(2):
        steps.take(steps.decode)
        steps.take(steps.paint)
        assert steps.tell(steps.encode) == ["decode", "shoes_generator", "encode"]
        assert steps.tell(steps.encode) == ["encode"]


def test_a_step_that_does_not_stamp_is_left_out(steps: Steps) -> None:
    steps.take(steps.decode)
    assert steps.tell(steps.encode) == ["decode", "encode"]


@pytest.mark.parametrize(("request_id", "timeout_us"), [(OTHER, TIMEOUT_US), (ID, TIMEOUT_US + 1), ("1", TIMEOUT_US)])
def test_stamps_of_another_request_or_of_none_in_particular_are_not_told(
    steps: Steps, request_id: str, timeout_us: int
) -> None:
    steps.take(steps.decode)
    steps.take(steps.decode, "1")
    assert steps.tell(steps.encode, request_id, timeout_us) == ["encode"]


def test_a_request_without_a_limit_is_told_of(steps: Steps) -> None:
    steps.take(steps.decode, timeout_us=0)
    assert steps.tell(steps.encode, timeout_us=0) == ["decode", "encode"]


def test_a_stamp_of_an_earlier_try_is_not_taken_for_this_ones(steps: Steps) -> None:
    steps.take(steps.decode)
    steps.take(steps.paint)
    steps.take(steps.decode)
    assert steps.tell(steps.encode) == ["decode", "encode"]


def test_nothing_is_told_where_an_earlier_try_still_runs(steps: Steps) -> None:
    steps.take(steps.decode)
    began_ns = steps.clock()
    steps.take(steps.decode)
    steps.paint.stamp(ID, TIMEOUT_US, began_ns, steps.clock())
    assert steps.tell(steps.encode) == ["encode"]


def test_nothing_is_told_where_two_processes_of_one_model_have_stamped(steps: Steps, join: Join) -> None:
    steps.take(steps.decode)
    steps.take(steps.paint)
    steps.take(join("shoes_generator"))
    assert steps.tell(steps.encode) == ["encode"]


def test_a_stamp_that_was_written_over_is_not_told(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_times, "SLOTS", 1)
    steps.take(steps.decode)
    steps.take(steps.paint)
    steps.take(steps.paint, OTHER)
    assert steps.tell(steps.encode) == ["decode", "encode"]
    steps.take(steps.decode, OTHER)
    assert steps.tell(steps.encode) == ["encode"]


words = st.integers(0, 2**64 - 1)


@given(first=st.tuples(words, words), second=st.tuples(words, words), is_same=st.booleans(), new=st.integers(1, 6))
def test_a_cell_read_between_two_stores_is_no_stamp(
    tmp_path_factory: pytest.TempPathFactory,
    first: tuple[int, int],
    second: tuple[int, int],
    is_same: bool,
    new: int,
) -> None:
    path = tmp_path_factory.mktemp("table") / "table"
    create_table(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_times, "SLOTS", 1)
        table = StepTimes(path, model="decode", is_first=True)
        cell = step_times._first_word(0)
        states = []
        for request_id, (began_ns, ended_ns) in ((ID, first), (ID if is_same else OTHER, second)):
            table.stamp(request_id, TIMEOUT_US, began_ns, ended_ns)
            states.append(table._words[cell : cell + 3].tolist())
        torn = [states[new >> word & 1][word] for word in range(3)]  # some words of the first, some of the second
        table._words[cell : cell + 3] = memoryview(b"".join(word.to_bytes(8, sys.byteorder) for word in torn)).cast("Q")
        for request_id in (ID, OTHER):
            for stamp in table._stamps(key_of(request_id, TIMEOUT_US)):
                assert torn in states
                assert list(stamp[2:]) == torn[:2]


@dataclass
class Call:
    """A call of an ensemble as it goes on. spans: of the steps it has gone through, by model."""

    request_id: str
    spans: dict[str, tuple[int, int]]


# Which caller goes on, with which step left out (as a native backend's), and whether its call is given up there.
events = st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 9).map(lambda number: number == 0))


@given(st.lists(events, max_size=60))
def test_what_is_told_is_what_the_call_went_through_however_calls_mix_repeat_and_collide(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[int, bool, bool]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "table"
    create_table(path)
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_times, "SLOTS", 2)  # four ids in two slots: most stamps are written over
        decode, paint, encode = (
            StepTimes(path, model=model, is_first=model == "decode", clock=clock)
            for model in ("decode", "shoes_generator", "encode")
        )
        calls: dict[int, Call] = {}
        for caller, is_native, gives_up in happened:
            if gives_up:
                calls.pop(caller, None)
                continue
            call = calls.setdefault(caller, Call(f"{caller:016}", {}))  # every call of a caller has the same id
            step = (decode, paint, encode)[len(call.spans)]
            began_ns = clock()
            if step is encode:
                told = {stamp.model: tuple(stamp[2:]) for stamp in encode.told(call.request_id, 0, began_ns)}
                assert told.pop("encode")[0] == began_ns
                assert told.items() <= call.spans.items()
                assert not told or "decode" in told
                del calls[caller]
            else:
                call.spans[step.model] = (began_ns, clock())
            if not (step is paint and is_native):
                step.stamp(call.request_id, 0, began_ns, clock.now)


spans = st.tuples(st.integers(1, 30), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
stamps = st.builds(
    lambda model, span: Stamp(model, model in {"decode", "sketch"}, *span),
    st.sampled_from(["decode", "sketch", "shoes_generator", "cats_generator", "encode"]),
    spans,
)


@given(st.lists(stamps, max_size=8), st.integers(0, 40))
@example([Stamp("decode", True, 5, 5), Stamp("sketch", True, 5, 6)], 10)
def test_any_stamps_at_all_give_steps_in_order_from_a_first_one_or_nothing(found: list[Stamp], began_ns: int) -> None:
    steps = steps_before(found, "encode", began_ns)
    assert set(steps) <= set(found)
    assert [stamp.is_first for stamp in steps] == [True, *[False] * (len(steps) - 1)][: len(steps)]
    assert "encode" not in {stamp.model for stamp in steps}
    ends = [*steps, Stamp("encode", is_first=False, began_ns=began_ns, ended_ns=began_ns)]
    assert all(one.ended_ns <= after.began_ns for one, after in itertools.pairwise(ends))


def test_a_process_too_many_is_refused_and_harms_nobody(steps: Steps, join: Join) -> None:
    for number in range(COLUMNS - 3):
        join(f"model_{number}")
    with pytest.raises(OSError, match="all 64 columns are taken until the server is started again"):
        join("extra")
    steps.take(steps.decode)
    assert steps.tell(steps.encode) == ["decode", "encode"]


def test_who_joins_later_is_told_of(steps: Steps, join: Join) -> None:
    steps.take(steps.decode)
    assert steps.tell(steps.encode) == ["decode", "encode"]
    late = join("cats_generator")
    steps.take(steps.decode)
    steps.take(late)
    assert steps.tell(steps.encode) == ["decode", "cats_generator", "encode"]


@dataclass
class Interrupted:
    """Words of a table. meanwhile: what another thread does just before several of them are read for the first time."""

    words: memoryview[int]
    meanwhile: Callable[[], object] | None

    def __getitem__(self, at: Any) -> Any:
        meanwhile = self.meanwhile
        if meanwhile is not None and isinstance(at, slice):
            self.meanwhile = None
            meanwhile()
        return self.words[at]

    def __setitem__(self, at: Any, word: Any) -> None:
        self.words[at] = word


def test_threads_that_read_the_names_at_once_do_not_mix_them_up(steps: Steps, join: Join) -> None:
    look_up = functools.partial(steps.encode.told, ID, TIMEOUT_US, 1)
    steps.encode._words = cast("Any", Interrupted(steps.encode._words, look_up))
    look_up()
    late = join("cats_generator")
    steps.take(steps.decode)
    steps.take(late)
    assert steps.tell(steps.encode) == ["decode", "cats_generator", "encode"]


@pytest.mark.parametrize(("model", "shown"), [("é" * 70, "é" * 60), ("x" + "é" * 70, "x" + "é" * 59)])
def test_a_long_name_is_cut_between_its_letters(steps: Steps, join: Join, model: str, shown: str) -> None:
    painter = join(model)
    steps.take(steps.decode)
    steps.take(painter)
    assert steps.tell(steps.encode) == ["decode", shown, "encode"]
    steps.take(steps.decode)
    assert steps.tell(painter) == ["decode", shown]


def test_any_text_and_any_timeout_can_be_stamped(steps: Steps) -> None:
    for request_id, timeout_us in itertools.product(("\udcff" * 16, "\0" * 16, "😀" * 5_000), (0, 1, 2**64 - 1)):
        steps.take(steps.decode, request_id, timeout_us)
        assert steps.tell(steps.encode, request_id, timeout_us) == ["decode", "encode"]


STAMP = """
import sys, time
from pathlib import Path
from sketchbridge_server.step_times import StepTimes
table = StepTimes(Path(sys.argv[1]), model="decode", is_first=True)
began_ns = time.monotonic_ns()
table.stamp(sys.argv[2], 0, began_ns, time.monotonic_ns())
"""


def test_another_process_is_told_of_with_times_of_the_same_clock(tmp_path: Path) -> None:
    path = tmp_path / "table"
    create_table(path)
    encode = StepTimes(path, model="encode", is_first=False)
    earliest_ns = encode.told(ID, 0, 1)[0].ended_ns
    subprocess.run([sys.executable, "-c", STAMP, str(path), ID], check=True)
    began_ns = encode.told(ID, 0, 1)[0].ended_ns
    decode, itself = encode.told(ID, 0, began_ns)
    assert (decode.model, itself.model) == ("decode", "encode")
    assert earliest_ns < decode.began_ns <= decode.ended_ns < itself.began_ns <= itself.ended_ns


def test_a_table_takes_memory_for_those_who_join_and_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "table"
    create_table(path)
    state = path.stat()
    assert state.st_size == SIZE_BYTES
    assert 512 * state.st_blocks < SIZE_BYTES // COLUMNS
    assert state.st_mode & 0o777 == 0o600
    for number in (1, 2):
        StepTimes(path, model=f"model_{number}", is_first=False)
        assert 512 * path.stat().st_blocks >= number * (SIZE_BYTES // COLUMNS - 4096)
    with pytest.raises(FileExistsError):
        create_table(path)


def test_a_process_without_memory_for_its_column_takes_none(
    tmp_path: Path, join: Join, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            join("cats_generator")
        with pytest.raises(OSError, match="No space left"):
            create_table(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    late = join("birds_generator")
    steps.take(steps.decode)
    steps.take(late)
    assert steps.tell(steps.encode) == ["decode", "birds_generator", "encode"]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(FileNotFoundError):
        StepTimes(path, model="decode", is_first=True)
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="mmap length"):
        StepTimes(path, model="decode", is_first=True)


def test_the_text_is_json_of_whole_microseconds() -> None:
    told = json.loads(as_json([Stamp("a", is_first=True, began_ns=1, ended_ns=2_000), Stamp("b", False, 2_999, 9_999)]))
    assert told == [
        {"model": "a", "queue_us": None, "compute_us": 1},
        {"model": "b", "queue_us": 0, "compute_us": 7},
    ]
