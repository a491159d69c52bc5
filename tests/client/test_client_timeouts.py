from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sketchbridge_client import InvalidArgument
from sketchbridge_client.timeouts import UNSET, Deadline, check_timeout_s
from tests.client.clock import Clock


@pytest.mark.parametrize(("given", "kept"), [(None, None), (30, 30.0), (0.25, 0.25), (np.float32(0.5), 0.5)])
def test_seconds_and_none_are_kept(given: Any, kept: float | None) -> None:
    assert check_timeout_s(given) == kept


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), True, "30", UNSET])
def test_anything_else_is_refused_with_what_to_give(given: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`timeout_s` is .* or None to wait without limit"):
        check_timeout_s(given)


@pytest.mark.parametrize("given", [1e10, 1e13, 10**400, Fraction(10**400)])
def test_more_than_a_year_counts_as_a_year(given: Any) -> None:
    assert check_timeout_s(given) == 365 * 24 * 3600


@pytest.mark.parametrize("given", [-(10**400), Fraction(1, 10**400)])
def test_what_no_float_can_hold_is_no_time_either_if_it_is_not_above_0(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected more than 0 seconds"):
        check_timeout_s(given)


def test_not_given_is_neither_none_nor_a_number() -> None:
    assert UNSET is not None
    assert repr(UNSET) == "UNSET"


def test_a_deadline_never_has_more_left_than_it_was_given_nor_less_than_nothing() -> None:
    assert Deadline(None).remaining_s() is None
    remaining = Deadline(60.0).remaining_s()
    assert remaining is not None
    assert 0 < remaining <= 60
    assert Deadline(1e-9).remaining_s() == 0


def test_a_deadline_goes_by_the_clock_it_is_told(clock: Clock) -> None:
    deadline = Deadline(2.0, clock=clock)
    assert deadline.remaining_s() == 2
    clock.now += 1.5
    assert deadline.remaining_s() == 0.5
    clock.now += 1.5
    assert deadline.remaining_s() == 0
