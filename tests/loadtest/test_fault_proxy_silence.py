"""Connections that go silent without an end: black holes, half-open ones and drips."""

from __future__ import annotations

import os
import queue
import socket
import time

import pytest

from sketchbridge_loadtest.fault_proxy import BlackHole, Drip, Ending, FaultProxy, HalfOpen, PassThrough, Side
from tests.loadtest.echoing import (
    BOTH,
    QUIET_S,
    WAIT_S,
    EchoServer,
    ask,
    assert_quiet,
    connected,
    read,
    read_to_the_end,
    reset,
)


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
