"""Which server a call goes to, when it is sent again and when it is given up: calls as programs, taken step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_client import (
    NEVER,
    AccessDenied,
    ConnectionFailed,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    Retry,
    ServerError,
    SketchbridgeError,
    conversation,
)
from sketchbridge_client.conversation import Hedge, Settled
from sketchbridge_client.messages import Ask, Failed, Infer, Question, Reply
from sketchbridge_client.programs import Pause, Race, Send
from sketchbridge_client.status import MEANING_OF_CODE, Again
from sketchbridge_client.telemetry import Observation
from sketchbridge_client.timeouts import Deadline
from tests.client.clock import Clock
from tests.client.scripted_calls import (
    ANSWER,
    BUSY,
    DIED,
    INFER,
    LEAVING,
    LOST,
    OUT_OF_TIME,
    REFUSED,
    STRANGER,
    Taken,
    converse,
    in_turn,
    play,
    servers_of,
)


def test_an_answer_is_settled_at_the_first_try(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "time", SimpleNamespace(perf_counter=clock))
    settled, taken = converse(servers_of(3, clock=clock), in_turn(ANSWER, takes_s=0.5), clock)
    assert settled == Settled(ANSWER, 0, 1)
    assert (len(taken), taken.sent_s) == (1, 0.5)


def test_what_is_lost_goes_to_each_other_server_at_once_and_only_then_there_are_pauses(clock: Clock) -> None:
    settled, taken = converse(servers_of(3, clock=clock), in_turn(LOST, LOST, LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == 4
    assert sorted(taken.to[:3]) == [0, 1, 2]
    assert [type(step) for step in taken] == [Send, Send, Send, Pause, Send]


def test_a_server_whose_certificate_does_not_fit_is_passed_over_and_not_asked_again(clock: Clock) -> None:
    servers = servers_of(2, clock=clock)
    settled, taken = converse(servers, in_turn(STRANGER, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert [type(step) for step in taken] == [Send, Send]
    assert servers.balancer.resting == (0,)
    error, taken = converse(servers_of(2, clock=clock), in_turn(STRANGER), clock)
    assert isinstance(error, AccessDenied)
    assert [type(step) for step in taken] == [Send, Send]


def test_a_wrong_certificate_of_one_server_does_not_take_the_retries_of_another(clock: Clock) -> None:
    servers = servers_of(2, clock=clock)
    converse(servers, in_turn(ANSWER), clock)  # there is a server
    down = iter([LOST] * 4)
    settled, taken = converse(servers, lambda send: (0.0, STRANGER if send.target else next(down, ANSWER)), clock)
    assert isinstance(settled, Settled)
    assert settled.target == 0
    assert taken.to.count(0) == 5


def test_what_is_lost_on_the_only_server_comes_again_after_a_pause(clock: Clock) -> None:
    settled, taken = converse(servers_of(1, clock=clock), in_turn(LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert [type(step) for step in taken] == [Send, Pause, Send]


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_cannot_now_is_left_alone_for_as_long_as_it_asks(clock: Clock, count: int) -> None:
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=7.0)
    settled, taken = converse(servers_of(count, clock=clock), in_turn(busy, ANSWER), clock)
    assert isinstance(settled, Settled)
    (pause_s,) = taken.pauses_s
    assert 7.0 <= pause_s <= 7.0 + Retry().first_pause_s
    assert taken.to == ([0, 0] if count == 1 else [0, 1])


def test_a_server_that_asks_for_more_time_than_there_is_gets_one_more_try_half_way(clock: Clock) -> None:
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=60.0)
    error, taken = converse(servers_of(1, clock=clock), in_turn(busy), clock)
    assert isinstance(error, Overloaded)
    assert taken.pauses_s == [15.0]
    assert str(error).endswith("It was tried 2 times.")


def test_what_a_process_died_of_is_given_to_one_other_process_and_no_third(clock: Clock) -> None:
    error, taken = converse(servers_of(3, clock=clock), in_turn(DIED), clock)
    assert isinstance(error, ModelNotReady)
    assert taken.to == [0, 1]


@pytest.mark.parametrize("deaths", [0, 2])
def test_how_many_processes_may_die_can_be_set(clock: Clock, deaths: int) -> None:
    _, taken = converse(servers_of(4, Retry(deaths=deaths), clock=clock), in_turn(DIED), clock)
    assert len(taken.to) == deaths + 1


def test_a_process_that_stays_dead_has_died_once_and_may_be_restarted_until_the_deadline(clock: Clock) -> None:
    settled, taken = converse(servers_of(1, clock=clock), in_turn(*[DIED] * 8, LOST, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == len(taken.to) == 10


def test_a_process_that_dies_again_after_a_restart_ends_the_call(clock: Clock) -> None:
    error, taken = converse(servers_of(1, clock=clock), in_turn(DIED, LOST, DIED, ANSWER), clock)
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

    settled, taken = converse(servers_of(1, clock=clock), script, clock)
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

    error, taken = converse(servers_of(1, clock=clock), script, clock)
    assert isinstance(error, ModelNotReady)
    assert len(taken.to) == 1


def test_a_server_that_goes_while_it_is_asked_may_be_back(clock: Clock) -> None:
    outcomes: Iterator[Any] = iter([LEAVING, LOST, LOST, ANSWER])
    settled, _ = converse(servers_of(1, clock=clock), lambda _: (0.01, next(outcomes)), clock)
    assert isinstance(settled, Settled)


def test_a_model_that_is_gone_from_one_server_is_looked_for_on_the_others_first(clock: Clock) -> None:
    settled, taken = converse(servers_of(2, clock=clock), in_turn(LEAVING, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert [type(step) for step in taken] == [Send, Send]
    assert taken.to == [0, 1]


def test_a_server_that_was_never_reached_is_looked_for_a_short_while(clock: Clock) -> None:
    began = clock.now
    error, taken = converse(servers_of(2, clock=clock), in_turn(LOST, takes_s=0.1), clock)
    assert isinstance(error, ConnectionFailed)
    assert 2 <= clock.now - began < 2 + 2 + 0.2  # the longest pause, and a try
    assert len(taken.to) > 2


def test_a_server_that_was_reached_before_is_waited_for_until_the_deadline(clock: Clock) -> None:
    servers = servers_of(1, clock=clock)
    converse(servers, in_turn(ANSWER), clock)
    began = clock.now
    error, _ = converse(servers, in_turn(LOST, takes_s=0.1), clock)
    assert isinstance(error, ConnectionFailed)
    assert 29 < clock.now - began <= 30.1


@pytest.mark.parametrize("failed", [LOST, BUSY], ids=["lost", "later"])
def test_without_a_deadline_a_call_is_given_up_after_a_time(clock: Clock, failed: Failed) -> None:
    began = clock.now
    error, taken = converse(
        servers_of(1, Retry(first_contact_s=1000, give_up_s=20), clock=clock),
        in_turn(failed, takes_s=0.1),
        clock,
        timeout_s=None,
    )
    assert isinstance(error, (ConnectionFailed, Overloaded))
    assert 19 < clock.now - began <= 20.1
    assert all(step.timeout_s is None for step in taken if isinstance(step, Send))


@pytest.mark.parametrize("code", sorted(MEANING_OF_CODE))
def test_never_sends_once_whatever_comes(clock: Clock, code: str) -> None:
    error, taken = converse(servers_of(3, NEVER, clock=clock), in_turn(Failed(code, "words")), clock)
    assert isinstance(error, MEANING_OF_CODE[code].error)
    assert len(taken) == 1


def test_never_still_learns_which_server_is_lost(clock: Clock) -> None:
    servers = servers_of(2, NEVER, clock=clock)
    for _ in range(4):
        converse(servers, lambda send: (0.0, LOST if send.target == 0 else ANSWER), clock)
    _, taken = converse(servers, in_turn(ANSWER), clock)
    assert taken.to == [1]
    assert servers.balancer.resting == (0,)


@pytest.mark.parametrize("code", sorted(code for code, meaning in MEANING_OF_CODE.items() if meaning.again is Again.NO))
def test_an_answer_that_would_be_the_same_is_not_asked_for_again(clock: Clock, code: str) -> None:
    error, taken = converse(servers_of(3, clock=clock), in_turn(Failed(code, "words")), clock)
    assert type(error) is MEANING_OF_CODE[code].error
    assert len(taken) == 1
    assert "tried" not in str(error)


def test_the_error_has_the_cause_the_status_and_the_number_of_tries(clock: Clock) -> None:
    error, _ = converse(servers_of(3, clock=clock), in_turn(LOST, LOST, REFUSED), clock)
    assert type(error) is InvalidInput
    assert error.__cause__ is REFUSED
    assert (error.status, error.model, error.request_id) == ("INVALID_ARGUMENT", "shoes", "0" * 32)
    assert str(error).endswith("It was tried 3 times.")


def test_a_last_try_without_time_does_not_hide_why_the_ones_before_failed(clock: Clock) -> None:
    error, _ = converse(servers_of(1, clock=clock), in_turn(*[BUSY] * 3, ANSWER, takes_s=0.35), clock, timeout_s=1.2)
    assert isinstance(error, Overloaded)


def test_a_deadline_that_passes_during_the_first_try_is_a_timeout(clock: Clock) -> None:
    error, taken = converse(servers_of(2, clock=clock), in_turn(ANSWER, takes_s=3), clock, timeout_s=1.0)
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
        monkeypatch.setattr(conversation, "time", SimpleNamespace(perf_counter=clock))
        ends_at = clock.now + timeout_s
        left: Iterator[tuple[float, Any]] = itertools.cycle(story)

        def script(send: Send) -> tuple[float, Any]:
            assert send.timeout_s is not None
            if isinstance(send.request, Infer):
                assert clock.now + send.timeout_s <= ends_at + 1e-6
            takes_s, outcome = next(left)
            return takes_s, {} if outcome is ANSWER and isinstance(send.request, Ask) else outcome

        servers = servers_of(count, Retry(budget=budget, budget_per_s=per_s), clock=clock)
        result, taken = converse(servers, script, clock, timeout_s=timeout_s)
        assert clock.now <= ends_at + conversation._TOO_LATE_S + 1e-6  # for asking aside
        assert isinstance(result, (Settled, SketchbridgeError))
        tries = len(taken.to)
        if isinstance(result, Settled):
            assert result.tries == tries
            assert taken.sent_s <= timeout_s + 1e-6
        else:
            assert isinstance(result.__cause__, Failed)
            assert tries == 1 or "closed" in str(result) or f"It was tried {tries} times." in str(result)


def test_a_retry_that_finds_the_budget_spent_waits_for_it(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=1, longest_pause_s=0), clock=clock)
    began = clock.now
    settled, taken = converse(servers, in_turn(BUSY, BUSY, BUSY, BUSY, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert settled.tries == 5
    # One of four was there. The others are asked for every quarter of a second at the latest, and none is saved up.
    assert 2.99 < clock.now - began < 3 + 3 * 0.26
    assert taken.pauses_s


def test_a_budget_that_stays_spent_ends_a_call_at_its_deadline_not_before(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.0001, longest_pause_s=0), clock=clock)
    began = clock.now
    error, taken = converse(servers, in_turn(BUSY), clock, timeout_s=5.0)
    assert isinstance(error, Overloaded)
    assert len(taken.to) == 2
    assert clock.now - began == pytest.approx(5, abs=0.01)


def test_the_wait_for_the_budget_counts_as_the_pause(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.5, longest_pause_s=0), clock=clock)
    busy = Failed("RESOURCE_EXHAUSTED", "slow down", retry_after_s=1.0)
    began = clock.now
    settled, _ = converse(servers, in_turn(busy, busy, ANSWER), clock)
    assert isinstance(settled, Settled)
    assert clock.now - began == pytest.approx(2, abs=0.3)


def test_a_call_that_ends_takes_nothing_from_the_budget(clock: Clock) -> None:
    servers = servers_of(1, Retry(budget=1, budget_per_s=0.0001), clock=clock)
    for _ in range(5):
        converse(servers, in_turn(OUT_OF_TIME), clock)
        converse(servers, in_turn(BUSY, takes_s=0.9995), clock, timeout_s=1.0)
    settled, _ = converse(servers, in_turn(BUSY, ANSWER), clock)
    assert isinstance(settled, Settled)


def test_a_server_that_is_silent_leaves_the_others_time_to_say_yes(clock: Clock) -> None:
    servers = servers_of(3, clock=clock)
    ask = Ask(Question.SERVER_LIVE)
    taken = Taken()

    def script(send: Send) -> tuple[float, Reply | Failed]:
        return (100.0, True) if send.target < 2 else (0.1, True)

    assert play(servers.any_says_yes(ask, Deadline(3.0, clock=clock), Observation(())), script, clock, taken) is True
    assert len(taken) == 3
    assert clock.now <= 1003.0


def test_servers_that_cannot_be_reached_say_no_and_one_that_refuses_access_says_so(clock: Clock) -> None:
    ask = Ask(Question.SERVER_READY)
    for last, expected in ((LOST, None), (Failed("UNAUTHENTICATED", "who?"), ServerError)):
        outcomes = in_turn(LOST, last)
        program = servers_of(2, clock=clock).any_says_yes(ask, Deadline(3.0, clock=clock), Observation(()))
        if expected is None:
            assert play(program, outcomes, clock, Taken()) is False
        else:
            with pytest.raises(expected):
                play(program, outcomes, clock, Taken())


def test_the_second_copy_goes_elsewhere_and_takes_from_the_budget(clock: Clock) -> None:
    servers = servers_of(2, Retry(budget=1, budget_per_s=0.0001), Hedge(after_s=0.5), clock=clock)
    program = servers.converse(INFER, Deadline(30.0, clock=clock), Observation((("a", "b"),)))
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
    assert servers.heard_at[1] == clock.now


def test_a_second_copy_would_rather_go_to_the_same_server_than_to_one_that_is_lost(clock: Clock) -> None:
    servers = servers_of(2, hedge=Hedge(after_s=0.5), clock=clock)
    servers.balancer.lost(1)
    race = next(servers.converse(INFER, Deadline(30.0, clock=clock), Observation(())))
    assert isinstance(race, Race)
    second = race.second()
    assert second is not None
    assert (race.first.target, second.target, clock.now) == (0, 0, 1000.0)


def test_the_95th_percentile_is_taken_once_there_are_enough_answers(clock: Clock) -> None:
    servers = servers_of(2, hedge=Hedge(at_least=20), clock=clock)
    waits_s = []
    for number in range(1, 101):
        program = servers.converse(INFER, Deadline(30.0, clock=clock), Observation(()))
        race = next(program)
        assert isinstance(race, Race)
        waits_s.append(race.after_s)
        clock.now += number / 100
        with pytest.raises(StopIteration):
            program.send((race.first.target, ANSWER))
    assert waits_s[:20] == [float("inf")] * 20
    assert 0.9 <= waits_s[-1] <= 0.99


def test_questions_are_not_hedged(clock: Clock) -> None:
    program = servers_of(2, hedge=Hedge(after_s=0.5), clock=clock).converse(
        Ask(Question.STATISTICS), Deadline(30.0, clock=clock), Observation(())
    )
    assert isinstance(next(program), Send)
    assert clock.now == 1000.0
