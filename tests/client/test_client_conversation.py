"""Calls as programs: taken step by step, with scripted outcomes and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_client import (
    NEVER,
    BatchFailed,
    ConnectionFailed,
    InvalidArgument,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    Retry,
    ServerError,
    SketchbridgeError,
    balancing,
    conversation,
    timeouts,
)
from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.calls import paint_call, painted
from sketchbridge_client.conversation import Hedge, Servers, Settled
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver
from sketchbridge_client.messages import Ask, Failed, Headers, Infer, Inferred, Question, Reply, Request, bytes_tensor
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Send, Step
from sketchbridge_client.status import MEANING_OF_CODE, Again
from sketchbridge_client.targets import Credentials, parse_targets
from sketchbridge_client.telemetry import Observation, Telemetry
from sketchbridge_client.timeouts import Deadline

INFER = Infer("shoes", "", (), (), {}, "0" * 32)
ANSWER = Inferred("shoes", "1", ())
LOST = Failed("UNAVAILABLE", "Connection reset")
BUSY = Failed("UNAVAILABLE", "Exceeds maximum queue size")
DIED = Failed("INTERNAL", "Stub process 'shoes_0' is not healthy.")
LEAVING = Failed("UNAVAILABLE", "Model 'shoes' is not at ready state")
REFUSED = Failed("INVALID_ARGUMENT", "no picture")
OUT_OF_TIME = Failed("DEADLINE_EXCEEDED", "Deadline Exceeded")

Script = Callable[[Send], "tuple[float, Reply | Failed]"]
"""From what is sent: how many seconds it takes, and what comes back."""


class Clock:
    """Stands in for the time module. Moved by the steps that are taken."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (conversation, balancing, timeouts):
        monkeypatch.setattr(module, "time", clock)
    return clock


def servers_of(count: int, retry: Retry | None = None, hedge: Hedge | None = None) -> Servers:
    return Servers(parse_targets([f"127.0.0.1:{port}" for port in range(1, count + 1)], None), retry or Retry(), hedge)


def in_turn(*outcomes: Reply | Failed, takes_s: float = 0.0) -> Script:
    """These outcomes one after the other, the last one for ever."""
    left = iter(outcomes[:-1])
    return lambda _: (takes_s, next(left, outcomes[-1]))


class Taken(list[Step]):
    """The steps that were taken."""

    @property
    def to(self) -> list[int]:
        """The targets that the request was sent to."""
        return [step.target for step in self if isinstance(step, Send) and isinstance(step.request, Infer)]

    @property
    def pauses_s(self) -> list[float]:
        return [step.seconds for step in self if isinstance(step, Pause)]


def play(program: Program[Any], script: Script, clock: Clock, taken: Taken) -> Any:
    """Take the steps of a program. Time passes as the script and the pauses say."""
    outcome: Any = None
    try:
        while True:
            step = program.send(outcome)
            taken.append(step)
            outcome = None
            if isinstance(step, Send):
                took_s, outcome = script(step)
                if step.timeout_s is not None and took_s >= step.timeout_s:
                    took_s, outcome = step.timeout_s, OUT_OF_TIME
                clock.now += took_s
            elif isinstance(step, Pause):
                clock.now += step.seconds
            else:
                raise TypeError(step)
    except StopIteration as done:
        return done.value


def converse(
    servers: Servers, script: Script, clock: Clock, *, timeout_s: float | None = 30.0
) -> tuple[Settled | SketchbridgeError, Taken]:
    taken = Taken()
    program = servers.converse(INFER, Deadline(timeout_s), Observation(()), request_id="0" * 32)
    try:
        result: Settled | SketchbridgeError = play(program, script, clock, taken)
    except SketchbridgeError as error:
        result = error
    assert not any(servers.on_its_way)
    return result, taken


def test_an_answer_is_settled_at_the_first_try(clock: Clock) -> None:
    settled, taken = converse(servers_of(3), in_turn(ANSWER, takes_s=0.5), clock)
    assert settled == Settled(ANSWER, 0, 1, 0.5)
    assert len(taken) == 1


def test_what_is_lost_goes_to_each_other_server_at_once_and_only_then_there_are_pauses(clock: Clock) -> None:
    settled, taken = converse(servers_of(3), in_turn(LOST, LOST, LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == 4
    assert sorted(taken.to[:3]) == [0, 1, 2]
    assert [type(step) for step in taken] == [Send, Send, Send, Pause, Send]


def test_what_is_lost_on_the_only_server_comes_again_after_a_pause(clock: Clock) -> None:
    settled, taken = converse(servers_of(1), in_turn(LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert [type(step) for step in taken] == [Send, Pause, Send]


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_cannot_now_is_left_alone_for_as_long_as_it_asks(clock: Clock, count: int) -> None:
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=7.0)
    settled, taken = converse(servers_of(count), in_turn(busy, ANSWER), clock)
    assert isinstance(settled, Settled)
    (pause_s,) = taken.pauses_s
    assert 7.0 <= pause_s <= 7.0 + Retry().first_pause_s
    assert taken.to == ([0, 0] if count == 1 else [0, 1])


def test_a_server_that_asks_for_more_time_than_there_is_gets_one_more_try_half_way(clock: Clock) -> None:
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=60.0)
    error, taken = converse(servers_of(1), in_turn(busy), clock)
    assert isinstance(error, Overloaded)
    assert taken.pauses_s == [15.0]
    assert str(error).endswith("It was tried 2 times.")


def test_what_a_process_died_of_is_given_to_one_other_process_and_no_third(clock: Clock) -> None:
    error, taken = converse(servers_of(3), in_turn(DIED), clock)
    assert isinstance(error, ModelNotReady)
    assert taken.to == [0, 1]


@pytest.mark.parametrize("deaths", [0, 2])
def test_how_many_processes_may_die_can_be_set(clock: Clock, deaths: int) -> None:
    _, taken = converse(servers_of(4, Retry(deaths=deaths)), in_turn(DIED), clock)
    assert len(taken.to) == deaths + 1


def test_a_process_that_stays_dead_has_died_once_and_may_be_restarted_until_the_deadline(clock: Clock) -> None:
    settled, taken = converse(servers_of(1), in_turn(*[DIED] * 8, LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == len(taken.to) == 10


def test_a_process_that_dies_again_after_a_restart_ends_the_call(clock: Clock) -> None:
    error, taken = converse(servers_of(1), in_turn(DIED, LOST, DIED, ANSWER), clock)
    assert isinstance(error, ModelNotReady)
    assert len(taken.to) == 3


@pytest.mark.parametrize("state", ["LOADING", "UNLOADING", "READY"])
def test_a_model_that_is_gone_is_waited_for_if_the_index_says_that_it_moves(clock: Clock, state: str) -> None:
    left = iter([LEAVING, LEAVING])

    def script(send: Send) -> tuple[float, Reply | Failed]:
        if send.request == Ask(Question.REPOSITORY_INDEX):
            assert send.timeout_s is not None
            assert send.timeout_s <= 2
            return 0.01, {"models": [{"name": "shoes", "version": "1", "state": state}]}
        return 0.01, next(left, ANSWER)

    settled, taken = converse(servers_of(1), script, clock)
    assert isinstance(settled, Settled)
    assert settled.tries == 3
    assert [type(step) for step in taken] == [Send, Send, Pause, Send, Send, Pause, Send]


@pytest.mark.parametrize(
    "index",
    [
        {"models": [{"name": "shoes", "version": "1", "state": "UNAVAILABLE", "reason": "no weights"}]},
        {"models": [{"name": "birds", "version": "1", "state": "LOADING"}]},
        {},
        OUT_OF_TIME,
        Failed("UNIMPLEMENTED", "no index here"),
    ],
)
def test_a_model_that_is_gone_for_good_is_told_at_once(clock: Clock, index: Any) -> None:
    def script(send: Send) -> tuple[float, Reply | Failed]:
        return (0.01, LEAVING) if isinstance(send.request, Infer) else (0.01, index)

    error, taken = converse(servers_of(1), script, clock)
    assert isinstance(error, ModelNotReady)
    assert len(taken.to) == 1


def test_a_server_that_goes_while_it_is_asked_may_be_back(clock: Clock) -> None:
    outcomes: Iterator[Any] = iter([LEAVING, LOST, LOST, ANSWER])
    settled, _ = converse(servers_of(1), lambda _: (0.01, next(outcomes)), clock)
    assert isinstance(settled, Settled)


def test_a_model_that_is_gone_from_one_server_is_looked_for_on_the_others_first(clock: Clock) -> None:
    settled, taken = converse(servers_of(2), in_turn(LEAVING, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert [type(step) for step in taken] == [Send, Send]
    assert taken.to == [0, 1]


def test_a_server_that_was_never_reached_is_looked_for_a_short_while(clock: Clock) -> None:
    began = clock.now
    error, taken = converse(servers_of(2), in_turn(LOST, takes_s=0.1), clock)
    assert isinstance(error, ConnectionFailed)
    assert 2 <= clock.now - began < 2 + 2 + 0.2  # the longest pause, and a try
    assert len(taken.to) > 2


def test_a_server_that_was_reached_before_is_waited_for_until_the_deadline(clock: Clock) -> None:
    servers = servers_of(1)
    converse(servers, in_turn(ANSWER), clock)
    began = clock.now
    error, _ = converse(servers, in_turn(LOST, takes_s=0.1), clock)
    assert isinstance(error, ConnectionFailed)
    assert 29 < clock.now - began <= 30.1


@pytest.mark.parametrize("failed", [LOST, BUSY], ids=["lost", "later"])
def test_without_a_deadline_a_call_is_given_up_after_a_time(clock: Clock, failed: Failed) -> None:
    began = clock.now
    error, taken = converse(
        servers_of(1, Retry(first_contact_s=1000, give_up_s=20)), in_turn(failed, takes_s=0.1), clock, timeout_s=None
    )
    assert isinstance(error, (ConnectionFailed, Overloaded))
    assert 19 < clock.now - began <= 20.1
    assert all(step.timeout_s is None for step in taken if isinstance(step, Send))


@pytest.mark.parametrize("code", sorted(MEANING_OF_CODE))
def test_never_sends_once_whatever_comes(clock: Clock, code: str) -> None:
    error, taken = converse(servers_of(3, NEVER), in_turn(Failed(code, "words")), clock)
    assert isinstance(error, MEANING_OF_CODE[code].error)
    assert len(taken) == 1


def test_never_still_learns_which_server_is_lost(clock: Clock) -> None:
    servers = servers_of(2, NEVER)
    for _ in range(4):
        converse(servers, lambda send: (0.0, LOST if send.target == 0 else ANSWER), clock)
    _, taken = converse(servers, in_turn(ANSWER), clock)
    assert taken.to == [1]
    assert servers.balancer.resting == (0,)


@pytest.mark.parametrize("code", sorted(code for code, meaning in MEANING_OF_CODE.items() if meaning.again is Again.NO))
def test_an_answer_that_would_be_the_same_is_not_asked_for_again(clock: Clock, code: str) -> None:
    error, taken = converse(servers_of(3), in_turn(Failed(code, "words")), clock)
    assert type(error) is MEANING_OF_CODE[code].error
    assert len(taken) == 1
    assert "tried" not in str(error)


def test_the_error_has_the_cause_the_status_and_the_number_of_tries(clock: Clock) -> None:
    error, _ = converse(servers_of(3), in_turn(LOST, LOST, REFUSED), clock)
    assert type(error) is InvalidInput
    assert error.__cause__ is REFUSED
    assert (error.status, error.model, error.request_id) == ("INVALID_ARGUMENT", "shoes", "0" * 32)
    assert str(error).endswith("It was tried 3 times.")


def test_a_last_try_without_time_does_not_hide_why_the_ones_before_failed(clock: Clock) -> None:
    error, _ = converse(servers_of(1), in_turn(*[BUSY] * 3, ANSWER, takes_s=0.35), clock, timeout_s=1.2)
    assert isinstance(error, Overloaded)


def test_a_deadline_that_passes_during_the_first_try_is_a_timeout(clock: Clock) -> None:
    error, taken = converse(servers_of(2), in_turn(ANSWER, takes_s=3), clock, timeout_s=1.0)
    assert isinstance(error, RequestTimeout)
    assert len(taken) == 1


FAILURES = [LOST, BUSY, DIED, LEAVING, REFUSED, OUT_OF_TIME, Failed("ABORTED", "?", retry_after_s=3.0)]


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.floats(0, 2), st.sampled_from([*FAILURES, *FAILURES[:5], ANSWER])), min_size=1, max_size=30),
    st.floats(0.01, 20),
    st.integers(0, 5),
    st.floats(0.1, 20),
)
def test_whatever_happens_no_step_goes_past_the_deadline_and_nothing_is_left_behind(
    count: int, story: list[tuple[float, Any]], timeout_s: float, budget: int, per_s: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock()
        for module in (conversation, balancing, timeouts):
            monkeypatch.setattr(module, "time", clock)
        ends_at = clock.now + timeout_s
        left: Iterator[tuple[float, Any]] = itertools.cycle(story)

        def script(send: Send) -> tuple[float, Any]:
            assert send.timeout_s is not None
            if isinstance(send.request, Infer):
                assert clock.now + send.timeout_s <= ends_at + 1e-6
            takes_s, outcome = next(left)
            return takes_s, {} if outcome is ANSWER and isinstance(send.request, Ask) else outcome

        servers = servers_of(count, Retry(budget=budget, budget_per_s=per_s))
        result, taken = converse(servers, script, clock, timeout_s=timeout_s)
        assert clock.now <= ends_at + conversation._TOO_LATE_S + 1e-6  # for asking aside
        assert isinstance(result, (Settled, SketchbridgeError))
        tries = len(taken.to)
        if isinstance(result, Settled):
            assert result.tries == tries
            assert result.sent_s <= timeout_s + 1e-6
        else:
            assert isinstance(result.__cause__, Failed)
            assert tries == 1 or "closed" in str(result) or f"It was tried {tries} times." in str(result)


def test_a_retry_that_finds_the_budget_spent_waits_for_it(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=1, longest_pause_s=0))
    began = clock.now
    settled, taken = converse(servers, in_turn(BUSY, BUSY, BUSY, BUSY, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == 5
    assert clock.now - began == pytest.approx(3, abs=0.5)  # one of four was there
    assert taken.pauses_s


def test_a_budget_that_stays_spent_ends_a_call_at_its_deadline_not_before(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.0001, longest_pause_s=0))
    began = clock.now
    error, taken = converse(servers, in_turn(BUSY), clock, timeout_s=5.0)
    assert isinstance(error, Overloaded)
    assert len(taken.to) == 2
    assert clock.now - began == pytest.approx(5, abs=0.01)


def test_the_wait_for_the_budget_counts_as_the_pause(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.5, longest_pause_s=0))
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=1.0)
    began = clock.now
    settled, _ = converse(servers, in_turn(busy, busy, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert clock.now - began == pytest.approx(2, abs=0.3)


def test_a_call_that_ends_takes_nothing_from_the_budget(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.0001))
    for _ in range(5):
        converse(servers, in_turn(OUT_OF_TIME), clock)
        converse(servers, in_turn(BUSY, takes_s=0.9995), clock, timeout_s=1.0)
    settled, _ = converse(servers, in_turn(BUSY, ANSWER), clock)
    assert isinstance(settled, Settled)


def begun(retry: Retry | None = None) -> tuple[Servers, Program[Settled]]:
    """A conversation whose first try is on its way."""
    servers = servers_of(1, retry)
    program = servers.converse(INFER, Deadline(30.0), Observation(()))
    next(program)
    return servers, program


PASSING = pytest.mark.parametrize("failed", [LOST, BUSY, DIED, LEAVING], ids=["lost", "later", "died", "leaving"])


@PASSING
def test_a_client_closed_during_a_try_makes_no_other(failed: Failed) -> None:
    servers, program = begun()
    servers.closed = True
    with pytest.raises(ConnectionFailed, match="was closed during the call"):
        program.send(failed)
    assert not any(servers.on_its_way)


@PASSING
@pytest.mark.parametrize("broke", [False, True], ids=["pause", "wait for the budget"])
def test_a_client_closed_during_a_pause_makes_no_other_try(failed: Failed, *, broke: bool) -> None:
    servers, program = begun(Retry(budget=0, budget_per_s=0.001) if broke else None)
    step = program.send(failed)
    if isinstance(step, Send):  # the index
        step = program.send({"models": [{"name": "shoes", "state": "LOADING"}]})
    assert isinstance(step, Pause)
    servers.closed = True
    with pytest.raises(ConnectionFailed, match="was closed during the call"):
        program.send(None)
    assert not any(servers.on_its_way)


def test_an_answer_that_comes_as_the_client_is_closed_is_still_given(clock: Clock) -> None:
    servers = servers_of(1)
    program = servers.converse(INFER, Deadline(30.0), Observation(()))
    next(program)
    servers.closed = True
    with pytest.raises(InvalidInput):
        program.send(REFUSED)
    assert clock.now == 1000.0


class Watched(Telemetry):
    """Notes what each observation is told at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[BaseException | None] = []

    def begin(self, verb: str, model: str | None, request_id: str) -> Observation:
        del verb, model, request_id
        watcher = SimpleNamespace(tried=lambda *_: None, hedged=lambda: None, ended=self.ended.append)
        return Observation((), (watcher,))


def core_of(count: int, hedge: Hedge | None = None) -> tuple[Core, Watched]:
    watched = Watched()
    targets = parse_targets([f"127.0.0.1:{port}" for port in range(1, count + 1)], None)
    return Core(targets, 30.0, Retry(), hedge, watched), watched


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, MemoryError])
@pytest.mark.parametrize("during", ["prepare", "send", "race", "pause"])
def test_an_interruption_leaves_nothing_on_its_way_and_ends_the_observation_once(
    interruption: type[BaseException], during: str
) -> None:
    core, watched = core_of(1, Hedge(after_s=1) if during == "race" else None)
    program = core.infer("shoes", {"a": [1]}, (), "", None, 30.0)
    step = next(program)
    assert isinstance(step, Prepare)
    if during != "prepare":
        step = program.send(())
        assert isinstance(step, Race if during == "race" else Send)
    if isinstance(step, Race):
        assert isinstance(step.second(), Send)
        assert sum(map(len, core.servers.on_its_way)) == 1
    if during == "pause":
        step = program.send(LOST)
        assert isinstance(step, Pause)
    with pytest.raises(interruption):
        program.throw(interruption())
    assert not any(core.servers.on_its_way)
    assert [type(ended) for ended in watched.ended] == [interruption]


def test_a_program_that_is_dropped_halfway_leaves_nothing_behind() -> None:
    core, watched = core_of(1)
    program = core.infer("shoes", {"a": [1]}, (), "", None, 30.0)
    next(program)
    program.send(())
    assert any(core.servers.on_its_way)
    program.close()
    assert not any(core.servers.on_its_way)
    assert [type(ended) for ended in watched.ended] == [GeneratorExit]


def test_a_server_that_is_silent_leaves_the_others_time_to_say_yes(clock: Clock) -> None:
    servers = servers_of(3)
    ask = Ask(Question.SERVER_LIVE)
    taken = Taken()

    def script(send: Send) -> tuple[float, Reply | Failed]:
        return (100.0, True) if send.target < 2 else (0.1, True)

    assert play(servers.any_says_yes(ask, Deadline(3.0), Observation(())), script, clock, taken) is True
    assert len(taken) == 3
    assert clock.now <= 1003.0


def test_servers_that_cannot_be_reached_say_no_and_one_that_refuses_access_says_so(clock: Clock) -> None:
    ask = Ask(Question.SERVER_READY)
    for last, expected in ((LOST, None), (Failed("UNAUTHENTICATED", "who?"), ServerError)):
        outcomes = in_turn(LOST, last)
        program = servers_of(2).any_says_yes(ask, Deadline(3.0), Observation(()))
        if expected is None:
            assert play(program, outcomes, clock, Taken()) is False
        else:
            with pytest.raises(expected):
                play(program, outcomes, clock, Taken())


def test_the_second_copy_goes_elsewhere_and_takes_from_the_budget(clock: Clock) -> None:
    servers = servers_of(2, Retry(budget=1, budget_per_s=0.0001), Hedge(after_s=0.5))
    program = servers.converse(INFER, Deadline(30.0), Observation((("a", "b"),)))
    race = next(program)
    assert isinstance(race, Race)
    assert (race.first.target, race.after_s, race.first.timeout_s) == (0, 0.5, 30.0)
    clock.now += 0.5
    second = race.second()
    assert second is not None
    assert (second.target, second.timeout_s, second.headers) == (1, 29.5, (("a", "b"),))
    assert [len(on_its_way) for on_its_way in servers.on_its_way] == [1, 1]
    assert race.second() is None  # the budget is spent
    with pytest.raises(StopIteration) as done:
        program.send((1, ANSWER))
    assert done.value.value.target == 1
    assert not any(servers.on_its_way)
    assert clock.monotonic() - servers.heard_at[1] == 0


def test_a_second_copy_would_rather_go_to_the_same_server_than_to_one_that_is_lost(clock: Clock) -> None:
    servers = servers_of(2, hedge=Hedge(after_s=0.5))
    servers.balancer.lost(1)
    race = next(servers.converse(INFER, Deadline(30.0), Observation(())))
    assert isinstance(race, Race)
    second = race.second()
    assert second is not None
    assert (race.first.target, second.target, clock.now) == (0, 0, 1000.0)


def test_the_95th_percentile_is_taken_once_there_are_enough_answers(clock: Clock) -> None:
    servers = servers_of(2, hedge=Hedge(at_least=20))
    waits_s = []
    for number in range(1, 101):
        program = servers.converse(INFER, Deadline(30.0), Observation(()))
        race = next(program)
        assert isinstance(race, Race)
        waits_s.append(race.after_s)
        clock.now += number / 100
        with pytest.raises(StopIteration):
            program.send((race.first.target, ANSWER))
    assert waits_s[:20] == [float("inf")] * 20
    assert 0.9 <= waits_s[-1] <= 0.99


def test_questions_are_not_hedged(clock: Clock) -> None:
    program = servers_of(2, hedge=Hedge(after_s=0.5)).converse(
        Ask(Question.STATISTICS), Deadline(30.0), Observation(())
    )
    assert isinstance(next(program), Send)
    assert clock.now == 1000.0


class OneByOne:
    """A transport to a server that takes one picture at a time."""

    def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        del timeout_s, headers
        if isinstance(request, Ask):
            return {"max_batch_size": "1"}
        return Inferred("shoes", "1", (bytes_tensor("photo", [b"\x89PNG\r\n\x1a\n"]),))

    begin = renew = close = forget = None


class OneByOneAsync(OneByOne):
    async def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:  # type: ignore[override]
        return super().send(request, timeout_s, headers)


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_token_that_cannot_be_sent_fails_one_picture_of_a_batch_and_not_the_others(*, blocking: bool) -> None:
    core, watched = core_of(1)
    tokens = iter(["good", "good", "b\nad", "good"])  # for the config of the model, then for each picture
    credentials = Credentials(lambda: next(tokens), None, None)
    program = core.pictures(
        paint_call(model="shoes", fit=None, normalise=None, output_format=None, quality=None),
        [b"one", b"two", b"three"],
        False,
        30.0,
        painted,
    )
    transports: Any = [OneByOne() if blocking else OneByOneAsync()]
    driver: Any = (Driver if blocking else AsyncDriver)(core.servers, transports, credentials)
    with pytest.raises(BatchFailed) as caught:
        driver.run(program) if blocking else asyncio.run(driver.run(program))
    assert {index: type(error) for index, error in caught.value.errors.items()} == {1: InvalidArgument}
    assert [result is None for result in caught.value.results] == [False, True, False]
    assert watched.ended == [caught.value]


def test_closing_ends_a_pause_of_the_blocking_driver_at_once() -> None:
    servers = servers_of(1, Retry(first_contact_s=60))
    refusing: Any = SimpleNamespace(send=_refuse_for_long, close=lambda: None, forget=lambda: None)
    driver = Driver(servers, [refusing], Credentials(None, None, None))
    ended: list[BaseException] = []

    def call() -> None:
        try:
            driver.run(servers.converse(INFER, Deadline(600.0), Observation(())))
        except ConnectionFailed as exc:
            ended.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(0.2)
    driver.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "was closed during the call" in str(ended[0])


def test_closing_ends_a_pause_of_the_asyncio_driver_at_once() -> None:
    async def scenario() -> None:
        servers = servers_of(1, Retry(first_contact_s=60))

        async def send(*_: Any) -> Reply:
            return _refuse_for_long()

        async def close() -> None: ...

        refusing: Any = SimpleNamespace(send=send, close=close)
        driver = AsyncDriver(servers, [refusing], Credentials(None, None, None))
        call = asyncio.ensure_future(driver.run(servers.converse(INFER, Deadline(600.0), Observation(()))))
        await asyncio.sleep(0.05)
        await driver.close()
        with pytest.raises(ConnectionFailed, match="was closed during the call"):
            await asyncio.wait_for(call, 30)

    asyncio.run(scenario())


def _refuse_for_long(*_: Any) -> Reply:
    raise Failed("RESOURCE_EXHAUSTED", "not now", retry_after_s=200.0)
