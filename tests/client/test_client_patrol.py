"""Connections that die without a word, through a proxy that swallows what it should carry, before a real Triton."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from sketchbridge_client import NEVER, ConnectionFailed, Hedge, Retry, patrol
from sketchbridge_client.conversation import Servers
from sketchbridge_client.messages import Ask, Failed, Question
from sketchbridge_client.patrol import IDLE_S, PROBE_TIMEOUT_S, ROUND_S, SILENCE_S
from sketchbridge_client.programs import Pause, Renew, Send, Step
from sketchbridge_client.targets import parse_targets
from sketchbridge_loadtest.fault_proxy import BlackHole, Counts, FaultProxy, HalfOpen, PassThrough, Refuse, Side
from sketchbridge_server.config import Endpoints
from tests.client.clock import Clock

OUT_OF_TIME = Failed("DEADLINE_EXCEEDED", "Deadline Exceeded")
LOST = Failed("UNAVAILABLE", "Connection reset")


class Walk:
    """A patrol that is walked step by step. answer: what its questions are answered with."""

    def __init__(self, servers: Servers, clock: Clock) -> None:
        self.answer: Any = True
        self.asked: list[tuple[int, Question]] = []
        self.renewed: list[int] = []
        self._clock = clock
        self._program = patrol.patrol(servers)
        self._step: Step | None = next(self._program)

    def go_on(self, seconds: float) -> bool:
        """Walk until so many seconds have passed. False if it ended before."""
        until = self._clock.now + seconds
        while self._step is not None and self._clock.now < until:
            with suppress(StopIteration):
                outcome, self._step = self._take(self._step), None
                self._step = self._program.send(outcome)
        return self._step is not None

    def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            self._clock.now += step.seconds
        elif isinstance(step, Renew):
            self.renewed.append(step.target)
        else:
            assert isinstance(step, Send)
            assert isinstance(step.request, Ask)
            assert step.timeout_s == PROBE_TIMEOUT_S
            self.asked.append((step.target, step.request.question))
            self._clock.now += PROBE_TIMEOUT_S if self.answer is OUT_OF_TIME else 0.01
            return self.answer
        return None


@pytest.fixture
def servers(clock: Clock) -> Servers:
    return Servers(parse_targets(["127.0.0.1:1", "127.0.0.1:2"], None), Retry(), None, clock=clock)


def test_nothing_is_asked_while_answers_come(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    servers.on_its_way[0][7] = clock.now
    for _ in range(20):
        servers.heard_at[0] = clock.now
        assert walk.go_on(SILENCE_S / 2)
    assert walk.asked == []


def test_a_server_that_owes_an_answer_is_asked_once_it_has_been_silent_for_long(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    servers.on_its_way[1][7] = clock.now
    assert walk.go_on(SILENCE_S)
    assert walk.asked == []
    assert walk.go_on(2 * ROUND_S)
    assert walk.asked == [(1, Question.SERVER_LIVE)]
    assert walk.go_on(SILENCE_S - 2 * ROUND_S)
    assert len(walk.asked) == 1
    assert walk.renewed == []
    assert servers.balancer.resting == ()


@pytest.mark.parametrize("answer", [OUT_OF_TIME, LOST], ids=["silence", "lost"])
def test_a_connection_over_which_nothing_comes_is_given_up(servers: Servers, clock: Clock, answer: Failed) -> None:
    walk = Walk(servers, clock)
    walk.answer = answer
    servers.on_its_way[1][7] = clock.now
    assert walk.go_on(SILENCE_S + PROBE_TIMEOUT_S + 2 * ROUND_S)
    assert set(walk.renewed) == {1}
    assert servers.balancer.resting == (1,)


@pytest.mark.parametrize(
    "answer",
    [True, False, Failed("UNIMPLEMENTED", "?"), Failed("PERMISSION_DENIED", "?"), Failed("RESOURCE_EXHAUSTED", "?")],
)
def test_any_answer_at_all_shows_that_the_connection_lives(servers: Servers, clock: Clock, answer: Any) -> None:
    walk = Walk(servers, clock)
    walk.answer = answer
    servers.on_its_way[0][7] = clock.now
    assert walk.go_on(10 * SILENCE_S)
    assert len(walk.asked) > 3
    assert walk.renewed == []
    assert servers.balancer.resting == ()


def test_an_answer_that_comes_while_the_server_is_asked_saves_the_connection(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    servers.on_its_way[0][7] = clock.now
    walk.go_on(SILENCE_S - ROUND_S)
    walk.answer = OUT_OF_TIME
    servers.heard_at[0] = clock.now + SILENCE_S  # while it is asked
    walk.go_on(2 * SILENCE_S)
    assert walk.renewed == []


def test_a_lost_server_is_asked_until_it_is_ready_and_then_gets_requests(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    walk.answer = False
    servers.balancer.lost(0)
    assert walk.go_on(5)
    assert set(walk.asked) == {(0, Question.SERVER_READY)}
    assert {servers.balancer.pick() for _ in range(4)} == {1}
    walk.answer = True
    servers.called_at = clock.now
    assert walk.go_on(IDLE_S - ROUND_S)
    assert {servers.balancer.pick() for _ in range(4)} == {0, 1}


def test_a_server_that_does_not_let_its_health_be_asked_is_well(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    walk.answer = Failed("PERMISSION_DENIED", "no")
    servers.balancer.lost(0)
    assert walk.go_on(2)
    assert servers.balancer.resting == ()


@pytest.mark.parametrize("lost", [False, True])
def test_the_patrol_ends_when_nothing_was_on_its_way_for_a_while(servers: Servers, clock: Clock, *, lost: bool) -> None:
    walk = Walk(servers, clock)
    walk.answer = LOST
    servers.on_its_way[0][7] = clock.now
    servers.heard_at[0] = clock.now + 100
    assert walk.go_on(50)
    del servers.on_its_way[0][7]
    if lost:
        servers.balancer.lost(1)  # the next call has it asked
    assert walk.go_on(IDLE_S - 2 * ROUND_S)
    assert not walk.go_on(4 * ROUND_S)


def test_a_call_that_has_begun_and_sent_nothing_yet_keeps_the_patrol_up(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    for _ in range(5):
        assert walk.go_on(IDLE_S - ROUND_S)
        servers.called_at = clock.now
    assert not walk.go_on(IDLE_S + ROUND_S)


def test_the_patrol_of_a_closed_client_ends(servers: Servers, clock: Clock) -> None:
    walk = Walk(servers, clock)
    servers.closed = True
    assert not walk.go_on(2 * ROUND_S)


# Over real connections


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patrol that takes less than a second for what takes it seven."""
    for name, value in {"ROUND_S": 0.05, "SILENCE_S": 0.2, "PROBE_TIMEOUT_S": 0.3}.items():
        monkeypatch.setattr(patrol, name, value)


@pytest.fixture
def proxies(way: Any, endpoints: Endpoints) -> Iterator[list[FaultProxy]]:
    """Two ways to the same Triton."""
    upstream = way.url(endpoints).removeprefix("http://")
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy(upstream)) for _ in range(2)]


def url(way: Any, proxy: FaultProxy) -> str:
    return proxy.url if way.protocol == "grpc" else f"http://{proxy.url}"


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_a_call_over_a_connection_that_died_silently_is_answered_once_a_new_one_can_be_made(
    way: Any, proxies: list[FaultProxy], png: bytes
) -> None:
    proxy = proxies[0]
    with way.kind(url(way, proxy), timeout_s=60) as client, ThreadPoolExecutor(1) as pool:
        client.paint(png)
        proxy.inject(BlackHole())
        before = proxy.counts
        call = pool.submit(client.paint, png)
        proxy.wait_until(lambda now: now.from_client_bytes > before.from_client_bytes, 30)
        wait_for_another_connection(way, proxy, before)
        assert not call.done()
        heal(way, proxy)
        assert call.result(60).format == "png"


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_a_call_without_any_limit_ends_when_its_server_vanishes(
    way: Any, proxies: list[FaultProxy], png: bytes
) -> None:
    proxy = proxies[0]
    with way.kind(url(way, proxy), timeout_s=None, retry=NEVER) as client:
        client.paint(png)
        proxy.inject(HalfOpen(Side.SERVER))
        with pytest.raises(ConnectionFailed):
            client.paint(png)


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_merely_slow_is_left_to_finish(
    way: Any, proxies: list[FaultProxy], png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "PROBE_TIMEOUT_S", 5.0)  # this machine may be slow too
    with way.kind(url(way, proxies[0]), retry=NEVER) as client:  # so that a connection given up would fail the call
        assert client.sketch(png, sleep_s=0.8).format == "png"


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_what_waits_on_a_silent_server_goes_to_the_other_and_the_silent_one_is_taken_back_once_it_answers(
    way: Any, proxies: list[FaultProxy], png: bytes
) -> None:
    with way.kind([url(way, proxy) for proxy in proxies], timeout_s=60) as client:
        for _ in proxies:
            client.paint(png)
        proxies[0].inject(BlackHole())
        for _ in range(3):
            client.paint(png)
        assert servers_of(client).balancer.resting == (0,)
        proxies[0].inject(PassThrough())
        back = threading.Event()
        for _ in range(600):  # a minute; its rest grew while it was silent
            if not servers_of(client).balancer.resting:
                break
            back.wait(0.1)
        carried = proxies[0].counts.to_server_bytes
        for _ in proxies:
            client.paint(png)
        assert proxies[0].counts.to_server_bytes > carried


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_a_server_that_refuses_rests_and_costs_no_call(way: Any, proxies: list[FaultProxy], png: bytes) -> None:
    proxies[0].inject(Refuse())
    with way.kind([url(way, proxy) for proxy in proxies], timeout_s=60) as client:
        for _ in range(4):
            client.paint(png)
        assert servers_of(client).balancer.resting == (0,)


@pytest.mark.server
@pytest.mark.usefixtures("impatient")
def test_two_copies_on_two_silent_servers_are_both_noticed(way: Any, proxies: list[FaultProxy], png: bytes) -> None:
    urls = [url(way, proxy) for proxy in proxies]
    with way.kind(urls, timeout_s=60, hedge=Hedge(after_s=0.1)) as client, ThreadPoolExecutor(1) as pool:
        for _ in proxies:
            client.paint(png)
        before = [proxy.counts for proxy in proxies]
        for proxy in proxies:
            proxy.inject(BlackHole())
        call = pool.submit(client.paint, png)
        for proxy, counts in zip(proxies, before, strict=True):
            wait_for_another_connection(way, proxy, counts)
        assert not call.done()
        for proxy in proxies:
            heal(way, proxy)
        assert call.result(60).format == "png"


def wait_for_another_connection(way: Any, proxy: FaultProxy, before: Counts) -> None:
    """Wait until the one of a request was given up; for HTTP the first other one is that of the question."""
    proxy.wait_until(lambda now: now.accepted > before.accepted + (way.protocol == "http"), 30)


def heal(way: Any, proxy: FaultProxy) -> None:
    """What was swallowed stays lost, so that only a new connection can help."""
    proxy.inject(PassThrough())
    if way.protocol == "http":
        # Each request has a connection of its own, so that the question goes well and says nothing of that one.
        proxy.cut_all()


def servers_of(client: Any) -> Servers:
    servers: Servers = getattr(client, "inner", client)._core.servers
    return servers
