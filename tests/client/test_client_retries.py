from __future__ import annotations

import math
import threading
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_client import NEVER, InvalidArgument, Retry
from sketchbridge_client.retries import RetryBudget, pause_s

SECONDS = st.floats(0, 1000, allow_nan=False)


@given(SECONDS, SECONDS, st.integers(1, 10_000), SECONDS)
def test_a_pause_is_drawn_between_nothing_and_a_bound_that_doubles(
    first_s: float, longest_s: float, failures: int, at_least_s: float
) -> None:
    retry = Retry(first_pause_s=first_s, longest_pause_s=longest_s)
    bound = min(longest_s, first_s * 2.0 ** min(failures - 1, 100))
    assert at_least_s <= pause_s(retry, failures, at_least_s=at_least_s) <= at_least_s + bound


def test_pauses_are_spread_over_the_whole_of_their_range() -> None:
    retry = Retry(first_pause_s=1, longest_pause_s=8)
    for failures, bound in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (50, 8)):
        quarters = {math.floor(4 * pause_s(retry, failures) / bound) for _ in range(400)}
        assert quarters >= {0, 1, 2, 3}


@pytest.mark.parametrize("name", [one.name for one in fields(Retry)])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, True, "1", None, 31_536_001, 1e13, 10**400])
def test_a_retry_takes_numbers_from_0_only(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"Retry: `{name}` is .*; expected a number from 0 to 31,536,000"):
        Retry(**{name: value})


def test_a_budget_that_could_never_be_spent_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Use NEVER"):
        Retry(budget=0, budget_per_s=0)


def test_never_is_a_retry_that_gives_up_at_once() -> None:
    assert NEVER.never
    assert not Retry().never


def test_a_budget_is_spent_then_fills_at_its_rate_and_no_further_than_its_size() -> None:
    budget = RetryBudget(Retry(budget=3, budget_per_s=2))
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(100.4)
    assert budget.take(100.5)
    assert not budget.take(100.5)
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_retry_that_was_answered_gives_its_token_back() -> None:
    budget = RetryBudget(Retry(budget=2, budget_per_s=0))
    for _ in range(50):
        assert budget.take(1.0)
        budget.give_back()
    for _ in range(50):
        budget.give_back()
    assert [budget.take(1.0) for _ in range(3)] == [True, True, False]


def test_a_budget_of_0_still_lets_through_what_its_rate_allows() -> None:
    budget = RetryBudget(Retry(budget=0, budget_per_s=1))
    assert [budget.take(now) for now in (0.0, 0.5, 1.0, 1.5, 2.0)] == [False, False, True, False, True]


@given(
    st.integers(0, 5),
    st.floats(0, 10, allow_nan=False),
    st.lists(st.tuples(st.floats(0, 3, allow_nan=False), st.floats(0, 0.1, allow_nan=False)), max_size=60),
)
def test_never_more_is_taken_than_the_budget_and_its_rate_allow(
    size: int, per_s: float, asked: list[tuple[float, float]]
) -> None:
    if not size + per_s:
        return
    budget = RetryBudget(Retry(budget=size, budget_per_s=per_s))
    now, taken = 0.0, 0
    seen_at: list[float] = []
    for after_s, late_s in asked:
        now += after_s
        seen = max(0.0, now - late_s)  # a thread that read the clock a little earlier than one that came before it
        seen_at.append(seen)
        taken += budget.take(seen)
        assert taken <= size + per_s * (max(seen_at) - seen_at[0]) + 1e-6


def test_a_thread_that_read_the_clock_early_and_came_late_does_not_fill_the_budget() -> None:
    budget = RetryBudget(Retry(budget=1, budget_per_s=1))
    assert [budget.take(now) for now in (10.0, 9.0, 10.0)] == [True, False, False]


def test_threads_share_one_budget() -> None:
    budget = RetryBudget(Retry(budget=100, budget_per_s=0))
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda: taken.extend([budget.take(1.0) for _ in range(50)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 100
