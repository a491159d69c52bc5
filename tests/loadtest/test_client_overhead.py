"""The arithmetic of the SDK's cost and its verdict, and once the whole of it; the figures are nothing to assert."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

from sketchbridge_loadtest.cheap_server import ECHO, cheap_server, large_photo, small_sketch
from sketchbridge_loadtest.client_overhead import CALLERS, Cost, as_text, check_same, main, measure, ways
from sketchbridge_loadtest.interleaving import Block, Threads, interleave, share, spread, whole_number


class Steady:
    """A way whose calls take a time that is only said."""

    def __init__(self, latency_s: float, answer: bytes = b"") -> None:
        self._latency_s = latency_s
        self._answer = answer

    def once(self, data: bytes) -> bytes:
        return self._answer or data

    def block(self, data: bytes, *, callers: int, calls: int) -> Block:
        return Block((self._latency_s,) * calls, took_s=calls * self._latency_s / callers, cpu_s=calls * 0.001)


def cost(added_ms: float, ratio: float) -> Cost:
    return Cost(
        picture="sketch",
        size_bytes=1033,
        added_ms=spread([added_ms]),
        ours_ms=1.0,
        bare_ms=0.9,
        ratio=spread([ratio]),
        told_ratio=spread([1.25]),
        ours_per_s=1000,
        bare_per_s=1010,
        ours_cpu_ms=0.3,
        bare_cpu_ms=0.2,
    )


def test_a_round_goes_there_and_back_and_who_goes_first_moves_on() -> None:
    order: list[str] = []

    def way(name: str) -> Block:
        order.append(name)
        return Block((0.001,), 0.001, 0.001)

    interleave({name: lambda name=name: way(name) for name in "abc"}, rounds=3)  # type: ignore[misc]
    assert "".join(order) == "abccba" + "bcaacb" + "cabbac"


def test_each_thread_makes_its_share_of_the_calls() -> None:
    callers: dict[int, int] = {}

    def call(data: bytes) -> bytes:
        callers[threading.get_ident()] = callers.get(threading.get_ident(), 0) + 1
        time.sleep(0.001)
        return data

    threads = Threads(call, most=4)
    block = threads.block(b"x", callers=4, calls=10)
    assert threads.once(b"y") == b"y"
    threads.close()
    assert sorted(callers.values())[:3] == [3, 3, 3]
    assert len(block.latencies_s) == 4 * share(10, 4) == 12
    assert block.took_s >= 0.003


def test_a_call_that_fails_is_not_measured_but_told() -> None:
    def call(data: bytes) -> bytes:
        raise ConnectionError(data.decode())

    threads = Threads(call, most=2)
    with pytest.raises(ConnectionError, match="no way"):
        threads.block(b"no way", callers=2, calls=4)
    threads.close()


def test_what_is_added_is_a_difference_and_throughput_a_ratio() -> None:
    sides = {"ours": Steady(0.003), "bare": Steady(0.002), "bare, told as much": Steady(0.006)}
    found = measure(sides, "sketch", b"x", calls=8, rounds=3)
    assert dataclasses.astuple(found.added_ms) == pytest.approx((1.0, 1.0, 1.0))
    assert dataclasses.astuple(found.ratio) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert dataclasses.astuple(found.told_ratio) == pytest.approx((2.0, 2.0, 2.0))
    assert found.ours_ms == pytest.approx(3.0)
    assert found.bare_ms == pytest.approx(2.0)
    assert found.bare_per_s == pytest.approx(CALLERS / 0.002)
    assert found.ours_cpu_ms == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("added_ms", "ratio", "verdict"),
    [
        (0.3, 0.95, "met"),
        (0.31, 1.0, "missed: added p50"),
        (-0.1, 0.94, "missed: throughput"),
        (1.0, 0.5, "missed: added p50, throughput"),
    ],
)
def test_the_verdict_says_which_target_is_missed(added_ms: float, ratio: float, verdict: str) -> None:
    assert cost(added_ms, ratio).verdict == verdict
    assert f"| {verdict} |" in as_text([cost(added_ms, ratio)], "the run")


def test_other_bytes_than_were_sent_are_noticed() -> None:
    with pytest.raises(ValueError, match=r"bare: 6 bytes of the sketch were sent, and 5 others came\."):
        check_same({"ours": Steady(0), "bare": Steady(0, answer=b"other")}, {"sketch": b"sketch"})


def test_the_pictures_are_the_same_each_time_and_of_the_sizes_that_are_said() -> None:
    assert small_sketch() == small_sketch()
    assert 900 < len(small_sketch()) < 1200
    assert 3_000_000 < len(large_photo()) < 8_000_000


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "٣"])
def test_calls_and_rounds_are_whole_numbers_from_1(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--calls", text])
    assert refused.value.code == 2
    assert f"`{text}` is no whole number from 1" in capsys.readouterr().err
    assert whole_number("12") == 12


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("client", ["blocking", "asyncio"])
def test_both_ways_bring_the_same_bytes_and_several_callers_can_go(protocol: str, client: str) -> None:
    with cheap_server([ECHO]) as server:
        url = server.endpoints.grpc_url if protocol == "grpc" else server.endpoints.http_url
        with ways(url, protocol, client, ECHO.name) as sides:
            check_same(sides, {"sketch": small_sketch()})
            for way in sides.values():
                assert len(way.block(small_sketch(), callers=CALLERS, calls=16).latencies_s) == 16


@pytest.mark.server
def test_the_whole_of_it_says_how_it_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--calls", "8", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "client_overhead --calls 8 --rounds 1 --protocol grpc --client blocking" in found["run"]
    assert [one["picture"] for one in found["costs"]] == ["sketch", "4K photo"]
    assert all(one["ours_per_s"] > 0 and one["verdict"] for one in found["costs"])
