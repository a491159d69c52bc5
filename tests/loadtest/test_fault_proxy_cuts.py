"""Connections that the proxy cuts: after how many bytes, how often, and how they end."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from sketchbridge_loadtest.fault_proxy import CutAfter, Drip, Ending, FaultProxy, PassThrough, Side
from tests.loadtest.echoing import (
    BOTH,
    WAIT_S,
    EchoServer,
    address_of,
    ask,
    assert_quiet,
    connected,
    echo_server,
    read_to_the_end,
)


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
