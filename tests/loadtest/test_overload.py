"""The load test's arithmetic and its report; the figures themselves are nothing to assert."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from sketchbridge_loadtest.overload import (
    Capacity,
    Outcome,
    Overload,
    Round,
    Side,
    alternate,
    as_text,
    call_for,
    summarise,
)

IN_TIME, TOO_LATE, REFUSED = Outcome.IN_TIME, Outcome.TOO_LATE, Outcome.REFUSED


def test_goodput_counts_what_came_in_time_and_nothing_else() -> None:
    assert Round({IN_TIME: 30, TOO_LATE: 50, REFUSED: 20}, painted=40, took_s=10, backlog_s=0).goodput == 3
    assert Round({TOO_LATE: 50}, painted=40, took_s=10, backlog_s=0).goodput == 0


def test_a_side_has_the_median_round_and_the_shares_of_all() -> None:
    rounds = [
        Round({IN_TIME: 10, TOO_LATE: 90}, painted=100, took_s=10, backlog_s=3),
        Round({IN_TIME: 20, REFUSED: 80}, painted=25, took_s=10, backlog_s=1),
        Round({IN_TIME: 90, TOO_LATE: 10}, painted=115, took_s=10, backlog_s=2),
    ]
    side = summarise(rounds)
    assert (side.goodput, side.least_goodput, side.most_goodput, side.backlog_s) == (2, 1, 9, 2)
    assert side.in_time == pytest.approx(120 / 300)
    assert side.wasted == pytest.approx(1 - 120 / 240)


def test_a_server_that_did_nothing_wasted_nothing() -> None:
    side = summarise([Round({}, painted=0, took_s=1, backlog_s=0)])
    assert (side.goodput, side.in_time, side.wasted) == (0, 0, 0)


def test_every_call_that_began_is_counted_with_that_many_callers_at_most() -> None:
    inside, sent = threading.Semaphore(3), Counter[bytes]()

    def ask(picture: bytes) -> Outcome:
        assert inside.acquire(blocking=False), "more callers at once than asked for"
        sent[picture] += 1
        time.sleep(0.002)
        inside.release()
        return IN_TIME if picture == b"a" else TOO_LATE

    ended, took_s = call_for(ask, [b"a", b"b"], callers=3, seconds=0.1)
    assert ended == {IN_TIME: sent[b"a"], TOO_LATE: sent[b"b"]}
    assert min(ended.values()) > 0
    assert took_s > 0.1


def test_servers_take_turns_and_so_does_who_goes_first() -> None:
    order: list[str] = []

    def side(name: str) -> Round:
        order.append(name)
        return Round({}, 0, 1.0, len(order))

    found = alternate({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert "".join(order) == "abbaab"
    assert [one.backlog_s for one in found["a"]] == [1, 4, 5]


def test_the_report_has_the_run_and_a_row_a_deadline_and_server() -> None:
    sides = {"refuses": Side(20, 19, 21.5, 0.5, 0.04, 0.2), "paints on": Side(0.1, 0, 0.3, 0.01, 0.99, 30)}
    capacity = Capacity(alone_s=0.05, per_s=25, busy_s=0.96)
    text = as_text("a machine\na command", capacity, [Overload(0.3, sides), Overload(0.6, sides)])
    assert text.startswith("a machine\na command\n")
    assert "| 300 | refuses | 20.00 (19.00 to 21.50) | 50% | 4% | 0.2 |" in text
    assert "| 600 | paints on | 0.10 (0.00 to 0.30) | 1% | 99% | 30.0 |" in text
