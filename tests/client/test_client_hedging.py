"""Second copies of slow requests, between two real gRPC servers that hold requests back when they are told to."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import NEVER, AsyncClient, Client, Hedge, InvalidArgument, InvalidInput, RequestTimeout, Retry
from sketchbridge_loadtest.fault_proxy import BlackHole, FaultProxy
from sketchbridge_server.config import Endpoints
from tests.client.grpc_serving import serving_grpc
from tests.client.waiting import LONG_S, wait_until


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers with the parameter `number` and its own name; holds requests back while `holds` is set."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.url = ""
        self.holds = False
        self.code: grpc.StatusCode | None = None
        self.came = 0
        self.cancelled = threading.Semaphore(0)
        self.release = threading.Event()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self.came += 1
        if self.holds:
            over = threading.Event()
            context.add_callback(over.set)
            while not (self.release.is_set() or over.wait(0.01)):
                pass
            if over.is_set():
                self.cancelled.release()
                return service_pb2.ModelInferResponse()
        if self.code is not None:
            context.abort(self.code, "as asked")
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        response.outputs.add(name="who", datatype="INT64", shape=[1])
        response.raw_output_contents.append(np.int64(self.name).tobytes())
        return response


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        servers = Server(0), Server(1)
        for server in servers:
            stack.enter_context(serving(server))
        yield servers
        for server in servers:
            server.release.set()


@contextmanager
def serving(servicer: Server) -> Iterator[None]:
    with serving_grpc(servicer, workers=8) as (_, port):
        servicer.url = f"127.0.0.1:{port}"
        yield
        servicer.release.set()


def ask(client: Any, **options: Any) -> int:
    """Which server answered."""
    return int(client.infer("m", {"a": np.zeros(1, np.uint8)}, **options).outputs["who"][0])


def connect(kind: Callable[..., Any], servers: tuple[Server, Server], **options: Any) -> Any:
    return kind([server.url for server in servers], timeout_s=LONG_S, **options)


def test_the_second_copy_is_answered_by_the_other_server_and_the_first_is_cancelled(
    kind: Callable[..., Any], servers: tuple[Server, Server]
) -> None:
    slow, quick = servers
    slow.holds = True
    with connect(kind, servers, hedge=Hedge(after_s=0.05)) as client:
        assert ask(client) == 1
        assert slow.cancelled.acquire(timeout=LONG_S)
    assert (slow.came, quick.came) == (1, 1)


def test_the_first_one_may_still_win_and_the_second_copy_is_cancelled(
    kind: Callable[..., Any], servers: tuple[Server, Server]
) -> None:
    first, second = servers
    first.holds = second.holds = True
    with connect(kind, servers, hedge=Hedge(after_s=0.05)) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client)
        wait_until(lambda: second.came == 1)
        first.release.set()
        assert answer.result(LONG_S) == 0
        assert second.cancelled.acquire(timeout=LONG_S)


def test_quick_answers_have_no_second_copy(kind: Callable[..., Any], servers: tuple[Server, Server]) -> None:
    with connect(kind, servers, hedge=Hedge(after_s=LONG_S)) as client:
        assert [ask(client) for _ in range(4)] == [0, 1, 0, 1]
    assert [server.came for server in servers] == [2, 2]


def test_second_copies_stop_when_the_budget_is_spent(kind: Callable[..., Any], servers: tuple[Server, Server]) -> None:
    slow, quick = servers
    slow.holds = True
    retry = Retry(budget=1, budget_per_s=0.0001)
    with connect(kind, servers, hedge=Hedge(after_s=0.05), retry=retry) as client, ThreadPoolExecutor(1) as pool:
        assert ask(client) == 1
        answer = pool.submit(ask, client)
        wait_until(lambda: slow.came == 2)
        with pytest.raises(TimeoutError):
            answer.result(0.5)  # many times `after_s`
        assert quick.came == 1
        slow.release.set()
        assert answer.result(LONG_S) == 0


def test_the_95th_percentile_of_the_last_answers_says_what_is_slow(
    kind: Callable[..., Any], servers: tuple[Server, Server]
) -> None:
    slow, _ = servers
    with connect(kind, servers, hedge=Hedge(at_least=10)) as client:
        for _ in range(12):
            ask(client)
        slow.holds = True
        assert [ask(client) for _ in range(4)] == [1] * 4
        assert slow.cancelled.acquire(timeout=LONG_S)


def test_a_failure_that_another_try_may_better_waits_for_the_other_copy(
    kind: Callable[..., Any], servers: tuple[Server, Server]
) -> None:
    slow, failing = servers
    slow.holds = True
    failing.code = grpc.StatusCode.UNAVAILABLE
    with connect(kind, servers, hedge=Hedge(after_s=0.05)) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client)
        wait_until(lambda: failing.came >= 1)
        slow.release.set()
        assert answer.result(LONG_S) == 0


def test_a_refusal_of_either_copy_is_the_answer(kind: Callable[..., Any], servers: tuple[Server, Server]) -> None:
    slow, refusing = servers
    slow.holds = True
    refusing.code = grpc.StatusCode.INVALID_ARGUMENT
    with connect(kind, servers, hedge=Hedge(after_s=0.05)) as client, pytest.raises(InvalidInput):
        ask(client)
    assert slow.cancelled.acquire(timeout=LONG_S)


def test_a_server_that_fails_before_a_second_copy_is_due_is_tried_again_as_ever(
    kind: Callable[..., Any], servers: tuple[Server, Server]
) -> None:
    servers[0].code = grpc.StatusCode.UNAVAILABLE
    with connect(kind, servers, hedge=Hedge(after_s=LONG_S)) as client:
        assert ask(client) == 1


def test_a_deadline_ends_both_copies(kind: Callable[..., Any], servers: tuple[Server, Server]) -> None:
    for server in servers:
        server.holds = True
    with connect(kind, servers, hedge=Hedge(after_s=0.05)) as client, pytest.raises(RequestTimeout):
        ask(client, timeout_s=0.5)
    for server in servers:
        assert server.cancelled.acquire(timeout=LONG_S)


def test_a_lone_server_gets_the_second_copy_too(kind: Callable[..., Any], servers: tuple[Server, Server]) -> None:
    server = servers[0]
    server.holds = True
    with kind(server.url, hedge=Hedge(after_s=0.05)) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client)
        wait_until(lambda: server.came == 2)
        server.release.set()
        assert answer.result(LONG_S) == 0


def test_cancelling_the_task_cancels_both_copies(servers: tuple[Server, Server]) -> None:
    async def scenario() -> None:
        async with AsyncClient([server.url for server in servers], hedge=Hedge(after_s=0.05)) as client:
            call = asyncio.ensure_future(client.infer("m", {"a": np.zeros(1, np.uint8)}))
            await asyncio.to_thread(wait_until, lambda: servers[1].came == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not any(client._core.servers.on_its_way)

    for server in servers:
        server.holds = True
    asyncio.run(scenario())
    for server in servers:
        assert server.cancelled.acquire(timeout=LONG_S)


@pytest.mark.parametrize("hedge", [None, Hedge(after_s=0.05), Hedge()], ids=["none", "soon", "later"])
def test_ctrl_c_cancels_the_request_on_the_server(servers: tuple[Server, Server], hedge: Hedge | None) -> None:
    server = servers[0]
    server.holds = True

    def interrupt() -> None:
        wait_until(lambda: server.came > 0)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Client(server.url, hedge=hedge) as client, ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(client)
        assert not any(client._core.servers.on_its_way)
        assert server.cancelled.acquire(timeout=LONG_S)


def test_closing_ends_both_copies(servers: tuple[Server, Server]) -> None:
    for server in servers:
        server.holds = True
    client = Client([server.url for server in servers], hedge=Hedge(after_s=0.05), timeout_s=None)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client)
        wait_until(lambda: servers[1].came == 1)
        client.close()
        assert "closed during the call" in str(answer.exception(LONG_S))
    for server in servers:
        assert server.cancelled.acquire(timeout=LONG_S)


@pytest.mark.server
def test_a_copy_goes_round_a_server_that_is_silent(way: Any, endpoints: Endpoints, png: bytes) -> None:
    upstream = way.url(endpoints).removeprefix("http://")
    with FaultProxy(upstream) as silent, FaultProxy(upstream) as well:
        urls = [proxy.url if way.protocol == "grpc" else f"http://{proxy.url}" for proxy in (silent, well)]
        silent.inject(BlackHole())
        with way.kind(urls, timeout_s=LONG_S, hedge=Hedge(after_s=0.05)) as client:
            for _ in range(4):
                assert client.paint(png).format == "png"


@pytest.mark.parametrize("after_s", [0, -1, math.nan, math.inf, "1", True, [1], 1e10, 10**400])
def test_a_hedge_takes_seconds_of_a_year_at_most(after_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected more than 0 seconds"):
        Hedge(after_s=after_s)


@pytest.mark.parametrize("at_least", [1, "1", "20", True, 2.5, None])
def test_a_percentile_takes_two_answers_at_least(at_least: Any) -> None:
    with pytest.raises(InvalidArgument, match="takes 2 or more"):
        Hedge(at_least=at_least)


def test_a_client_that_never_tries_again_has_no_second_copies_either(kind: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgument, match="Leave one of them out"):
        kind("127.0.0.1:1", hedge=Hedge(after_s=0.02), retry=NEVER)
