from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_client.balancing import FIRST_REST_S, LONGEST_REST_S, Balancer
from tests.client.clock import Clock

COUNTS_AND_RESTING = st.integers(1, 6).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), max_size=count))
)


def balancer_after(count: int, picks: int, resting: set[int]) -> Balancer:
    """A balancer that has picked so many times, and then lost some of its targets."""
    balancer = Balancer(count)
    for _ in range(picks):
        balancer.pick()
    for index in resting:
        balancer.lost(index)
    return balancer


@given(COUNTS_AND_RESTING, st.integers(0, 20), st.integers(1, 5))
def test_each_target_that_is_well_gets_its_turn_and_those_that_rest_get_none(
    count_and_resting: tuple[int, set[int]], before: int, rounds: int
) -> None:
    count, resting = count_and_resting
    balancer = balancer_after(count, before, resting)
    well = set(range(count)) - resting if count > 1 else {0}
    if not well:
        assert balancer.pick() in resting  # better than none
        return
    assert Counter(balancer.pick() for _ in range(rounds * len(well))) == dict.fromkeys(well, rounds)


@given(COUNTS_AND_RESTING, st.integers(0, 20), st.data())
def test_the_target_that_just_failed_is_taken_only_if_the_others_rest(
    count_and_resting: tuple[int, set[int]], before: int, data: st.DataObject
) -> None:
    count, resting = count_and_resting
    balancer = balancer_after(count, before, resting)
    failed = data.draw(st.integers(0, count - 1))
    picked = balancer.pick(failed)
    if count == 1:
        assert picked == 0
    elif set(range(count)) - resting - {failed}:
        assert picked not in resting | {failed}
    elif failed not in resting:
        assert picked == failed  # it answered, if only that it has too much to do; the others did not
    else:
        assert picked != failed


def test_with_all_at_rest_the_one_whose_rest_ends_first_is_taken(clock: Clock) -> None:
    balancer = Balancer(3, clock=clock)
    for index in (2, 0, 1):
        balancer.lost(index)
        clock.now += 0.01
    assert [balancer.pick(), balancer.pick(avoid=2), balancer.pick(avoid=0)] == [2, 0, 2]


def test_a_rest_doubles_each_time_up_to_the_longest_and_begins_anew_once_well(clock: Clock) -> None:
    balancer = Balancer(2, clock=clock)
    rest_s = FIRST_REST_S
    for _ in range(10):
        balancer.lost(1)
        clock.now += rest_s * 0.99
        assert balancer.to_be_asked() == ()
        clock.now += rest_s * 0.02
        assert balancer.to_be_asked() == (1,)
        rest_s = min(LONGEST_REST_S, 2 * rest_s)
    assert rest_s == LONGEST_REST_S
    balancer.well(1)
    assert balancer.resting == balancer.to_be_asked() == ()
    balancer.lost(1)
    clock.now += FIRST_REST_S * 1.01
    assert balancer.to_be_asked() == (1,)


def test_one_loss_told_by_many_calls_is_one_loss(clock: Clock) -> None:
    balancer = Balancer(2, clock=clock)
    for _ in range(64):
        balancer.lost(0)
    clock.now += FIRST_REST_S * 1.01
    assert balancer.to_be_asked() == (0,)


def test_a_target_whose_rest_is_over_waits_until_it_was_found_well(clock: Clock) -> None:
    balancer = Balancer(2, clock=clock)
    balancer.lost(0)
    clock.now += 3600
    assert {balancer.pick() for _ in range(6)} == {1}
    balancer.well(0)
    assert {balancer.pick() for _ in range(6)} == {0, 1}


def test_a_single_target_never_rests() -> None:
    balancer = Balancer(1)
    balancer.lost(0)
    assert balancer.resting == balancer.to_be_asked() == ()
    assert balancer.pick(avoid=0) == 0


def test_threads_share_the_turns_evenly() -> None:
    balancer = Balancer(4)
    picked: list[int] = []
    threads = [threading.Thread(target=lambda: picked.extend([balancer.pick() for _ in range(100)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(picked) == dict.fromkeys(range(4), 200)
