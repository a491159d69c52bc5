from __future__ import annotations

import errno
import os
import queue
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_loadtest.fault_proxy import (
    BlackHole,
    Counts,
    CutAfter,
    Drip,
    Ending,
    Fault,
    FaultProxy,
    HalfOpen,
    PassThrough,
    Refuse,
    ResetStorm,
    Side,
)

WAIT_S = 20.0  # for what must come
QUIET_S = 0.2  # for what must not
BOTH = pytest.mark.parametrize("ending", list(Ending), ids=lambda ending: ending.name)


class EchoServer(socketserver.ThreadingTCPServer):
    """Greets each client, then sends back what it gets. Notes how each connection ended."""

    allow_reuse_address = True

    def __init__(self, greeting: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.greeting = greeting
        self.received: queue.Queue[bytes] = queue.Queue()
        self.endings: queue.Queue[Ending] = queue.Queue()
        self.url = f"127.0.0.1:{self.server_address[1]}"


class EchoHandler(socketserver.BaseRequestHandler):
    server: EchoServer

    def handle(self) -> None:
        try:
            if self.server.greeting:
                self.request.sendall(self.server.greeting)
            while data := self.request.recv(65536):
                self.server.received.put(data)
                self.request.sendall(data)
            self.server.endings.put(Ending.FIN)
        except ConnectionError:
            self.server.endings.put(Ending.RST)


@contextmanager
def echo_server(greeting: bytes = b"") -> Iterator[EchoServer]:
    with EchoServer(greeting) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with echo_server() as server:
        yield server


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy(echo.url) as proxy:
        yield proxy


@contextmanager
def connected(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(address_of(proxy.url), WAIT_S) as client:
        yield client


def address_of(url: str) -> tuple[str, int]:
    host, port = url.split(":")
    return host, int(port)


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def read_to_the_end(client: socket.socket) -> tuple[bytes, Ending]:
    """What comes until the connection ends, and how it ends."""
    data = b""
    try:
        while more := client.recv(65536):
            data += more
    except ConnectionResetError:
        return data, Ending.RST
    return data, Ending.FIN


def assert_reset_at_once(proxy: FaultProxy) -> None:
    with pytest.raises(ConnectionResetError), connected(proxy) as client:  # connecting itself may see it already
        client.recv(1)


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return read(client, len(data))


def assert_quiet(client: socket.socket) -> None:
    """Nothing comes, and the connection does not end either."""
    client.settimeout(QUIET_S)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(WAIT_S)


# Plain TCP


def test_bytes_pass_both_ways_unharmed_and_are_counted(proxy: FaultProxy) -> None:
    sent = os.urandom(4 << 20)
    with connected(proxy) as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.sendall, sent)
        assert read(client, len(sent)) == sent
        sending.result()
        counts = proxy.wait_until(lambda counts: counts.to_client_bytes == len(sent), WAIT_S)
    assert counts == Counts(
        accepted=1,
        live=1,
        from_client_bytes=len(sent),
        to_server_bytes=len(sent),
        from_server_bytes=len(sent),
        to_client_bytes=len(sent),
    )
    assert proxy.wait_until(lambda counts: counts.live == 0, WAIT_S).cuts == 0


def test_the_server_hears_the_client_hang_up_and_may_still_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, FaultProxy(listening.getsockname()) as proxy:
        with connected(proxy) as client:
            server, _ = listening.accept()
            with server:
                client.sendall(b"the whole question")
                client.shutdown(socket.SHUT_WR)
                assert read_to_the_end(server) == (b"the whole question", Ending.FIN)
                server.sendall(b"the whole answer")
            assert read_to_the_end(client) == (b"the whole answer", Ending.FIN)
        proxy.wait_until(lambda counts: counts.live == 0, WAIT_S)


@pytest.mark.parametrize("side", list(Side), ids=lambda side: side.name)
def test_a_reset_of_one_side_reaches_the_other_as_a_reset(side: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, FaultProxy(listening.getsockname()) as proxy:
        with connected(proxy) as client, listening.accept()[0] as server:
            gone, left = (client, server) if side is Side.CLIENT else (server, client)
            reset(gone)
            assert read_to_the_end(left) == (b"", Ending.RST)
        assert proxy.wait_until(lambda counts: counts.live == 0, WAIT_S).cuts == 0


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


@BOTH
@pytest.mark.parametrize("count", [0, 1, 100_000, 2 << 20])
def test_cut_after_bytes_of_the_server_lets_exactly_these_arrive(count: int, ending: Ending) -> None:
    sent = os.urandom(count + 1000)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        FaultProxy(listening.getsockname()) as proxy,
        connected(proxy) as client,
        listening.accept()[0] as server,
        ThreadPoolExecutor(1) as pool,
    ):
        proxy.inject(CutAfter(Side.SERVER, count, ending))
        pool.submit(server.sendall, sent)  # which the cut may end
        assert read_to_the_end(client) == (sent[:count], ending)
        assert (proxy.counts.cuts, proxy.counts.live) == (1, 0)


@BOTH
@pytest.mark.parametrize("count", [0, 1, 100_000])
def test_cut_after_bytes_of_the_client_lets_exactly_these_arrive_and_no_answer(
    echo: EchoServer, proxy: FaultProxy, count: int, ending: Ending
) -> None:
    proxy.inject(CutAfter(Side.CLIENT, count, ending))
    sent = os.urandom(count + 1000)
    with connected(proxy) as client:
        client.sendall(sent)
        answer, seen = read_to_the_end(client)
        assert seen is ending
        assert len(answer) < count or count == 0
        echo.endings.get(timeout=WAIT_S)
    assert b"".join(echo.received.queue) == sent[:count]
    assert proxy.counts.to_server_bytes == count


def test_cut_after_counts_from_when_it_was_injected(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert ask(client, bytes(1000)) == bytes(1000)
        proxy.inject(CutAfter(Side.SERVER, 100, Ending.RST))
        assert ask(client, bytes(99)) == bytes(99)
        proxy.inject(CutAfter(Side.SERVER, 5, Ending.FIN))
        assert ask(client, b"1234") == b"1234"
        client.sendall(b"5678")
        assert read_to_the_end(client) == (b"5", Ending.FIN)


def test_cut_after_leaves_a_connection_alone_on_which_that_side_is_silent(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.inject(CutAfter(Side.SERVER, 0, Ending.RST))
        assert_quiet(client)
        assert proxy.counts.live == 1
        client.sendall(b"hello")
        assert read_to_the_end(client) == (b"", Ending.RST)


def test_cut_after_cuts_as_many_connections_as_it_is_told_and_then_passes_all_through(proxy: FaultProxy) -> None:
    proxy.inject(CutAfter(Side.CLIENT, 3, Ending.RST, times=2))
    endings = []
    for _ in range(2):
        with connected(proxy) as client:
            client.sendall(b"hello")
            endings.append(read_to_the_end(client)[1])
    assert endings == [Ending.RST, Ending.RST]
    assert proxy.fault == PassThrough()
    with connected(proxy) as client:
        assert ask(client) == b"hello"
    assert proxy.counts.cuts == 2


def test_of_connections_that_race_for_one_cut_one_is_cut(proxy: FaultProxy) -> None:
    with connected(proxy) as one, connected(proxy) as two:
        proxy.inject(CutAfter(Side.CLIENT, 3, Ending.RST))
        one.sendall(b"hello")
        two.sendall(b"hello")
        proxy.wait_until(lambda counts: counts.cuts == 1, WAIT_S)
        proxy.wait_until(lambda counts: counts.to_client_bytes == 5, WAIT_S)
        assert proxy.counts.live == 1


def test_cut_after_without_a_number_of_times_never_heals(proxy: FaultProxy) -> None:
    fault = CutAfter(Side.CLIENT, 0, Ending.RST, times=None)
    proxy.inject(fault)
    for _ in range(3):
        with connected(proxy) as client:
            client.sendall(b"hello")
            assert read_to_the_end(client) == (b"", Ending.RST)
    assert proxy.fault == fault
    assert proxy.wait_until(lambda counts: counts.live == 0, WAIT_S).cuts == 3


@BOTH
def test_a_cut_does_not_wait_for_ever_for_a_client_that_does_not_read(ending: Ending) -> None:
    with echo_server(bytes(500_000)) as echo, FaultProxy(echo.url) as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        proxy.inject(CutAfter(Side.SERVER, 200_000, ending))
        client.connect(address_of(proxy.url))
        proxy.wait_until(lambda counts: counts.cuts == 1, WAIT_S)


@BOTH
def test_cut_all_ends_a_connection_as_told_though_bytes_of_it_are_unread(proxy: FaultProxy, ending: Ending) -> None:
    with connected(proxy) as client:
        proxy.inject(Drip(0.001))
        client.sendall(bytes(300_000))  # more than the proxy reads at a time
        proxy.wait_until(lambda counts: counts.from_client_bytes > 0, WAIT_S)
        assert proxy.cut_all(ending) == 1
        assert read_to_the_end(client) == (b"", ending)


@BOTH
def test_cut_all_ends_a_connection_whose_client_does_not_read(ending: Ending) -> None:
    greeting = bytes(64 << 20)  # more than the kernels of both take
    with echo_server(greeting) as echo, FaultProxy(echo.url) as proxy, connected(proxy):
        proxy.wait_until(lambda counts: counts.to_client_bytes > 0, WAIT_S)
        assert proxy.cut_all(ending) == 1
        assert echo.endings.get(timeout=WAIT_S) is Ending.RST  # it was writing


@BOTH
def test_cut_all_ends_every_connection_both_ways_and_no_later_one(
    echo: EchoServer, proxy: FaultProxy, ending: Ending
) -> None:
    with connected(proxy) as one, connected(proxy) as two:
        assert ask(one) == ask(two) == b"hello"
        assert proxy.cut_all(ending) == 2
        assert (proxy.counts.live, proxy.counts.cuts) == (0, 2)
        assert read_to_the_end(one) == read_to_the_end(two) == (b"", ending)
        assert [echo.endings.get(timeout=WAIT_S) for _ in range(2)] == [ending, ending]
    with connected(proxy) as client:
        assert ask(client) == b"hello"
    assert proxy.counts.cuts == 2


def test_a_black_hole_takes_everything_gives_nothing_and_closes_nothing(echo: EchoServer, proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        assert ask(old) == b"hello"
        proxy.inject(BlackHole())
        with connected(proxy) as new:
            for client in (old, new):
                client.sendall(b"lost")
                assert_quiet(client)
            counts = proxy.wait_until(lambda counts: counts.from_client_bytes == 13, WAIT_S)
            assert (counts.accepted, counts.live, counts.to_server_bytes) == (2, 2, 5)
    assert echo.endings.empty()


def test_what_a_black_hole_swallowed_stays_lost_and_what_comes_later_passes(
    echo: EchoServer, proxy: FaultProxy
) -> None:
    proxy.inject(BlackHole())
    with connected(proxy) as client:
        client.sendall(b"lost")
        proxy.wait_until(lambda counts: counts.from_client_bytes == 4, WAIT_S)
        proxy.inject(PassThrough())
        assert ask(client) == b"hello"


@BOTH
def test_a_hang_up_in_a_black_hole_is_heard_when_it_is_over(
    echo: EchoServer, proxy: FaultProxy, ending: Ending
) -> None:
    with connected(proxy) as client:
        assert ask(client) == b"hello"
        proxy.inject(BlackHole())
        if ending is Ending.RST:
            reset(client)
    with pytest.raises(queue.Empty):
        echo.endings.get(timeout=QUIET_S)
    assert proxy.counts.live == 1
    proxy.inject(PassThrough())
    assert echo.endings.get(timeout=WAIT_S) is ending
    proxy.wait_until(lambda counts: counts.live == 0, WAIT_S)


def test_a_black_hole_hides_that_nobody_is_upstream(closed_address: tuple[str, int]) -> None:
    with FaultProxy(closed_address) as proxy:
        proxy.inject(BlackHole())
        with connected(proxy) as client:
            assert_quiet(client)
            proxy.inject(PassThrough())
            assert read_to_the_end(client) == (b"", Ending.RST)
        assert proxy.counts.refused == 1


@pytest.fixture
def closed_address() -> Iterator[tuple[str, int]]:
    """An address that nothing listens on, nor can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()


def test_half_open_swallows_the_silent_client_and_carries_the_server() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        FaultProxy(listening.getsockname()) as proxy,
        connected(proxy) as client,
        listening.accept()[0] as server,
    ):
        proxy.inject(HalfOpen(Side.CLIENT))
        client.sendall(b"lost")
        assert_quiet(server)
        server.sendall(b"hello")
        assert read(client, 5) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert_quiet(server)


def test_half_open_swallows_the_silent_server_and_carries_the_client(echo: EchoServer, proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.inject(HalfOpen(Side.SERVER))
        client.sendall(b"hello")
        assert echo.received.get(timeout=WAIT_S) == b"hello"
        assert_quiet(client)
        client.shutdown(socket.SHUT_WR)
        assert echo.endings.get(timeout=WAIT_S) is Ending.FIN
        assert_quiet(client)


def test_drip_carries_no_faster_than_it_is_told_and_loses_nothing(proxy: FaultProxy) -> None:
    proxy.inject(Drip(2000))
    sent = os.urandom(400)
    with connected(proxy) as client:
        start = time.monotonic()
        assert ask(client, sent) == sent
        assert time.monotonic() - start >= 0.2


def test_what_a_drip_held_back_goes_on_at_once_when_it_is_over(proxy: FaultProxy) -> None:
    proxy.inject(Drip(0.001))
    sent = os.urandom(10_000)
    with connected(proxy) as client:
        client.sendall(sent)
        proxy.wait_until(lambda counts: counts.from_client_bytes == len(sent), WAIT_S)
        assert proxy.counts.to_server_bytes == 0
        proxy.inject(PassThrough())
        assert read(client, len(sent)) == sent


def test_a_reset_storm_resets_new_connections_and_spares_open_ones(proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        assert ask(old) == b"hello"
        proxy.inject(ResetStorm())
        for _ in range(3):
            assert_reset_at_once(proxy)
        assert ask(old) == b"hello"
        assert (proxy.counts.accepted, proxy.counts.refused, proxy.counts.live) == (4, 3, 1)


def test_refuse_turns_new_connections_away_spares_open_ones_and_listens_again_on_the_same_port(
    proxy: FaultProxy,
) -> None:
    url = proxy.url
    with connected(proxy) as old:
        assert ask(old) == b"hello"
        for _ in range(2):
            proxy.inject(Refuse())
            with pytest.raises(ConnectionRefusedError), connected(proxy):
                pass
            assert ask(old) == b"hello"
            proxy.inject(PassThrough())
            assert proxy.url == url
            with connected(proxy) as new:
                assert ask(new) == b"hello"


def test_refuse_keeps_the_port_from_others(proxy: FaultProxy) -> None:
    proxy.inject(Refuse())
    with socket.socket() as other, pytest.raises(OSError, match="in use") as caught:
        other.bind(address_of(proxy.url))
    assert caught.value.errno == errno.EADDRINUSE


def test_refuse_and_then_cut_all_is_a_dead_server(proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        assert ask(old) == b"hello"
        proxy.inject(Refuse())
        assert proxy.cut_all() == 1
        assert read_to_the_end(old) == (b"", Ending.RST)
        with pytest.raises(ConnectionRefusedError), connected(proxy):
            pass


def test_nobody_upstream_is_a_reset_and_counted_as_refused(closed_address: tuple[str, int]) -> None:
    with FaultProxy(closed_address) as proxy:
        assert_reset_at_once(proxy)
        counts = proxy.wait_until(lambda counts: counts.live == 0, WAIT_S)
        assert (counts.accepted, counts.refused, counts.cuts) == (1, 1, 0)


def test_a_new_upstream_takes_new_connections_and_no_open_ones(proxy: FaultProxy) -> None:
    with echo_server(b"I am new") as second, connected(proxy) as old:
        assert ask(old) == b"hello"
        proxy.upstream = second.url
        assert proxy.upstream == second.server_address
        assert ask(old) == b"hello"
        with connected(proxy) as new:
            assert read(new, 8) == b"I am new"


def test_waiting_in_vain_tells_the_counts(proxy: FaultProxy) -> None:
    with pytest.raises(TimeoutError, match=r"0\.01 s .*cuts=0"):
        proxy.wait_until(lambda counts: counts.cuts == 1, 0.01)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: CutAfter(Side.CLIENT, -1, Ending.RST),
        lambda: CutAfter(Side.CLIENT, 1, Ending.RST, times=0),
        lambda: Drip(0),
        lambda: Drip(float("nan")),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fault: Callable[[], Fault]) -> None:
    with pytest.raises(ValueError, match="more"):
        fault()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "fault",
    [PassThrough(), CutAfter(Side.SERVER, 99, Ending.FIN), BlackHole(), HalfOpen(Side.CLIENT), Drip(1), Refuse()],
    ids=lambda fault: type(fault).__name__,
)
def test_nothing_is_left_behind_whatever_was_going_on(echo: EchoServer, fault: Fault) -> None:
    threads, files = set(threading.enumerate()), open_files()
    with FaultProxy(echo.url) as proxy, connected(proxy) as one, connected(proxy) as two:
        assert ask(one) == ask(two) == b"hello"
        proxy.inject(fault)
        one.sendall(b"hello")
        two.close()
        port = address_of(proxy.url)
        names = {thread.name for thread in threading.enumerate()}
        assert f"fault-proxy-{port[1]}" in names
    for _ in range(2):
        echo.endings.get(timeout=WAIT_S)
    assert not any(thread.name.startswith("fault-proxy") for thread in set(threading.enumerate()) - threads)
    with socket.create_server(port):  # the port is free again
        pass
    for _ in range(500):  # the echo server closes its own ends in its own time
        if open_files() <= files:
            break
        time.sleep(0.01)
    assert open_files() <= files


# gRPC

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", -1),
]
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),  # else its 60 s are waited for
    ("grpc.http2.max_pings_without_data", 0),
]
MEBIBYTE = 1 << 20
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers a request with a mebibyte, once it may."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self.arrived.release()
        self.may_answer.wait(WAIT_S)
        return service_pb2.ModelInferResponse(id=request.id, raw_output_contents=[bytes(MEBIBYTE)])


@pytest.fixture
def servicer() -> Iterator[Servicer]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        servicer = Servicer()
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        servicer.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield servicer
        servicer.may_answer.set()
        server.stop(grace=0).wait()


@pytest.fixture
def wire(servicer: Servicer) -> Iterator[FaultProxy]:
    with FaultProxy(servicer.url) as proxy:
        yield proxy


@contextmanager
def channel_to(proxy: FaultProxy, *options: tuple[str, int]) -> Iterator[Any]:
    """The stub of a channel of its own."""
    with grpc.insecure_channel(proxy.url, options=[*OPTIONS, *options]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def infer(
    stub: Any, *, size_bytes: int = MEBIBYTE, timeout_s: float | None = WAIT_S, wait_for_ready: bool = False
) -> grpc.StatusCode:
    """Send a request of this size. The status that gRPC reports."""
    request = service_pb2.ModelInferRequest(id="7", raw_input_contents=[bytes(size_bytes)])
    try:
        answer = stub.ModelInfer(request, timeout=timeout_s, wait_for_ready=wait_for_ready)
    except grpc.RpcError as exc:
        code: grpc.StatusCode = exc.code()
        return code
    assert answer.id == "7"
    return OK


def infer_again(stub: Any) -> grpc.StatusCode:
    """Ask until the channel has found the server again: a call soon after a cut may still go to the dead connection."""
    until = time.monotonic() + WAIT_S
    while (status := infer(stub, wait_for_ready=True)) is UNAVAILABLE and time.monotonic() < until:
        time.sleep(0.02)
    return status


def test_grpc_works_through_the_proxy_over_one_connection(wire: FaultProxy) -> None:
    with channel_to(wire) as stub:
        for _ in range(3):
            assert infer(stub) is OK
    counts = wire.wait_until(lambda counts: counts.live == 0, WAIT_S)
    assert counts.accepted == 1
    assert counts.to_client_bytes > 3 * MEBIBYTE


@BOTH
@pytest.mark.parametrize(
    ("side", "count"),
    [
        pytest.param(Side.SERVER, 0, id="handshake"),
        pytest.param(Side.CLIENT, MEBIBYTE // 2, id="request"),
        pytest.param(Side.SERVER, MEBIBYTE // 2, id="answer"),
    ],
)
def test_grpc_is_unavailable_where_a_connection_is_cut_and_mends_itself(
    wire: FaultProxy, side: Side, count: int, ending: Ending
) -> None:
    wire.inject(CutAfter(side, count, ending))
    with channel_to(wire) as stub:
        assert infer(stub) is UNAVAILABLE
        assert wire.counts.cuts == 1
        assert infer_again(stub) is OK
        assert wire.counts.accepted == 2


@BOTH
def test_grpc_is_unavailable_where_the_connection_is_cut_while_the_server_works(
    servicer: Servicer, wire: FaultProxy, ending: Ending
) -> None:
    servicer.may_answer.clear()
    with channel_to(wire) as stub, ThreadPoolExecutor(1) as pool:
        status = pool.submit(infer, stub)
        assert servicer.arrived.acquire(timeout=WAIT_S)
        assert wire.cut_all(ending) == 1
        assert status.result() is UNAVAILABLE


def test_grpc_in_a_black_hole_waits_for_its_deadline(servicer: Servicer, wire: FaultProxy) -> None:
    with channel_to(wire) as old, channel_to(wire) as new:
        assert infer(old) is OK
        assert servicer.arrived.acquire(timeout=WAIT_S)
        wire.inject(BlackHole())
        assert infer(old, timeout_s=0.5) is DEADLINE_EXCEEDED
        assert infer(new, timeout_s=0.5) is DEADLINE_EXCEEDED
        assert not servicer.arrived.acquire(blocking=False)
        wire.inject(PassThrough())
        wire.cut_all()
        for stub in (old, new):
            assert infer_again(stub) is OK


def test_grpc_gives_up_connecting_into_a_black_hole_after_its_own_limit_and_not_the_deadline(wire: FaultProxy) -> None:
    wire.inject(BlackHole())
    with channel_to(wire, ("grpc.min_reconnect_backoff_ms", 100)) as stub:
        assert infer(stub) is UNAVAILABLE


def test_grpc_with_keepalive_gives_a_black_hole_up_by_itself(wire: FaultProxy) -> None:
    with channel_to(wire, *KEEPALIVE) as stub:
        assert infer(stub) is OK
        wire.inject(BlackHole())
        assert infer(stub, timeout_s=None) is UNAVAILABLE


@pytest.mark.parametrize("silent", list(Side), ids=lambda side: side.name)
def test_grpc_over_half_a_connection_waits_for_its_deadline(servicer: Servicer, wire: FaultProxy, silent: Side) -> None:
    with channel_to(wire) as stub:
        assert infer(stub) is OK
        assert servicer.arrived.acquire(timeout=WAIT_S)
        wire.inject(HalfOpen(silent))
        assert infer(stub, size_bytes=1, timeout_s=0.5) is DEADLINE_EXCEEDED
        # A silent server has done the work, for nobody.
        assert servicer.arrived.acquire(timeout=WAIT_S if silent is Side.SERVER else QUIET_S) is (silent is Side.SERVER)


def test_grpc_over_a_drip_waits_for_its_deadline_and_goes_on_when_it_is_over(wire: FaultProxy) -> None:
    with channel_to(wire) as stub:
        assert infer(stub) is OK
        wire.inject(Drip(1000))
        assert infer(stub, timeout_s=0.5) is DEADLINE_EXCEEDED
        wire.inject(PassThrough())
        assert infer(stub) is OK
        assert wire.counts.accepted == 1


def test_grpc_is_unavailable_in_a_reset_storm_and_mends_itself(wire: FaultProxy) -> None:
    wire.inject(ResetStorm())
    with channel_to(wire) as stub:
        assert infer(stub) is UNAVAILABLE
        assert wire.counts.refused >= 1
        wire.inject(PassThrough())
        assert infer_again(stub) is OK


def test_grpc_goes_on_over_an_open_connection_while_new_ones_are_refused(wire: FaultProxy) -> None:
    with channel_to(wire) as old, channel_to(wire) as new:
        assert infer(old) is OK
        wire.inject(Refuse())
        assert infer(old) is OK
        assert infer(new) is UNAVAILABLE
        wire.cut_all()
        assert infer(old) is UNAVAILABLE
        wire.inject(PassThrough())
        for stub in (old, new):
            assert infer_again(stub) is OK


def test_grpc_is_unavailable_where_nobody_is_upstream_and_finds_the_one_that_comes(
    servicer: Servicer, closed_address: tuple[str, int]
) -> None:
    with FaultProxy(closed_address) as proxy, channel_to(proxy) as stub:
        assert infer(stub) is UNAVAILABLE
        proxy.upstream = address_of(servicer.url)
        assert infer_again(stub) is OK
