"""The benchmark's arithmetic and its report; the figures themselves are nothing to assert."""

from __future__ import annotations

import threading
import time

import pytest

from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_loadtest.overhead import Comparison, Figures, StepCost, as_text, compare, run_round
from tests.loadtest.paints import noting, taking


def test_a_round_makes_every_call_once_with_that_many_callers_at_most() -> None:
    sent: list[bytes] = []
    inside = threading.Semaphore(3)

    def paint(data: bytes) -> bytes:
        assert inside.acquire(blocking=False), "more callers at once than asked for"
        sent.append(data)
        time.sleep(0.002)
        inside.release()
        return b""

    rate, latencies = run_round(paint, [b"a", b"b"], callers=3, calls=10)
    assert sorted(sent) == [b"a"] * 5 + [b"b"] * 5
    assert len(latencies) == 10
    assert rate > 0


def test_rounds_alternate_and_so_does_who_goes_first() -> None:
    order: list[str] = []
    compare(noting("s", order), noting("i", order), [b"x"], callers=1, rounds=3, calls=1)
    assert "".join(order) == "siissi"


def test_the_ratio_is_served_over_in_process() -> None:
    found = compare(taking(0.02), taking(0.002), [b"x"], callers=1, rounds=3, calls=5)
    assert found.ratio == pytest.approx(found.served.throughput / found.in_process.throughput, rel=0.5)
    assert found.ratio < 1


def test_the_report_names_the_machine_and_adds_up() -> None:
    figures = Figures(throughput=10, p50_ms=90, p99_ms=120)
    steps = [StepCost("decode", in_process_ms=5, queue_ms=1, compute_ms=6)]
    text = as_text(
        [Comparison(4, figures, figures, 1.0)], steps, 9, 5.5, {"tritonserver": 3, "in process, all together": 2}
    )
    assert describe_machine() in text
    assert "| 4 | 10.0 | 10.0 | 1.00 | 90 / 120 | 90 / 120 |" in text
    assert "| between the steps, gRPC and the SDK | 0.50 | 2.00 | |" in text
    assert "| served, all together | 3.0 |" in text
