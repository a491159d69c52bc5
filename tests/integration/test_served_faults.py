"""Calls with the default settings while connections and servers break: what can be answered is, once and in order.

A part of what `python -m sketchbridge_loadtest.faults` goes through, with fewer calls.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sketchbridge_loadtest.faults import SCENARIOS, Bench, Scenario, bench, measure

pytestmark = pytest.mark.server

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
CALLS = 200
LATE_S = 1.0  # a test machine may be busy; `python -m sketchbridge_loadtest.faults` measures how late calls really are


@pytest.fixture(scope="module")
def grpc_bench() -> Iterator[Bench]:
    with bench("grpc") as made:
        yield made


@pytest.fixture(scope="module")
def http_bench() -> Iterator[Bench]:
    with bench("http") as made:
        yield made


def check(scenario: Scenario, made: Bench, client: str) -> None:
    tally, _ = measure(scenario, made, client=client, calls=CALLS)
    assert tally.failures == []
    assert tally.strange == 0
    assert tally.calls >= CALLS
    assert max(tally.overruns_s) < LATE_S


@pytest.mark.parametrize(
    "name",
    ["cut-request", "cut-answer", "black-hole-1-of-2", "sigterm", "stub", "1-of-2-down"],
)
def test_no_call_fails_that_can_be_answered(grpc_bench: Bench, name: str) -> None:
    check(BY_NAME[name], grpc_bench, "blocking")


@pytest.mark.parametrize("name", ["cut-answer", "sigkill"])
def test_nor_does_one_of_the_asyncio_client(grpc_bench: Bench, name: str) -> None:
    check(BY_NAME[name], grpc_bench, "asyncio")


@pytest.mark.parametrize("client", ["blocking", "asyncio"])
def test_nor_does_one_over_http(http_bench: Bench, client: str) -> None:
    check(BY_NAME["cut-answer"], http_bench, client)


@pytest.mark.parametrize("client", ["blocking", "asyncio"])
@pytest.mark.parametrize("name", ["deadline-black-hole", "deadline-drip"])
def test_no_call_outlives_its_deadline(grpc_bench: Bench, name: str, client: str) -> None:
    tally, _ = measure(BY_NAME[name], grpc_bench, client=client, calls=CALLS)
    assert len(tally.failures) > 0
    assert max(tally.overruns_s) < LATE_S
