"""Calls that end early: their client is closed, they are interrupted or dropped, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sketchbridge_client import BatchFailed, ConnectionFailed, InvalidArgument, InvalidInput, Retry
from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.calls import paint_call, painted
from sketchbridge_client.conversation import Hedge, Servers, Settled
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver
from sketchbridge_client.messages import Ask, Failed, Headers, Inferred, Reply, Request, bytes_tensor
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Send
from sketchbridge_client.targets import Credentials, parse_targets
from sketchbridge_client.telemetry import Observation, Telemetry
from sketchbridge_client.timeouts import Deadline
from tests.client.clock import Clock
from tests.client.scripted_calls import BUSY, DIED, INFER, LEAVING, LOST, REFUSED, servers_of


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
    servers = servers_of(1, clock=clock)
    program = servers.converse(INFER, Deadline(30.0, clock=clock), Observation(()))
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


# The drivers


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
