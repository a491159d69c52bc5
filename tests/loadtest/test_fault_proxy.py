"""What the proxy carries, whom it turns away, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
from tests.loadtest.echoing import (
    WAIT_S,
    EchoServer,
    address_of,
    ask,
    connected,
    echo_server,
    read,
    read_to_the_end,
    reset,
)


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


def assert_reset_at_once(proxy: FaultProxy) -> None:
    with pytest.raises(ConnectionResetError), connected(proxy) as client:  # connecting itself may see it already
        client.recv(1)


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
