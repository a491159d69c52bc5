"""Sockets that do not block: bytes come through whole, and a peer that does nothing costs no more than the time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sketchbridge_client.sockets import is_quiet, receive_some, send_some
from tests.client.certificates import server_context

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def connected(certificates: Path | None = None, *, newest: bool = True) -> Iterator[Pair]:
    """Two connected sockets, over TLS if there are certificates; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)  # so that records of TLS come in parts
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(30)
    if certificates is not None:
        there = server_context(certificates, newest=newest).wrap_socket(
            there, server_side=True, do_handshake_on_connect=False
        )
        shaking = threading.Thread(target=there.do_handshake)
        shaking.start()
        here = ssl.create_default_context(cafile=certificates / "ca.pem").wrap_socket(here, server_hostname="localhost")
        shaking.join(30)
        assert here.version() == ("TLSv1.3" if newest else "TLSv1.2")
    here.settimeout(0)
    with here, there:
        yield here, there


@pytest.fixture
def plain_pair() -> Iterator[Pair]:
    """As of `connected`, without TLS."""
    with connected() as pair:
        yield pair


@pytest.fixture(params=["TCP", "TLSv1.2", "TLSv1.3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """As of `connected`, in each way."""
    certificates = None if request.param == "TCP" else request.getfixturevalue("certificates")
    with connected(certificates, newest=request.param == "TLSv1.3") as pair:
        yield pair


def until(seconds: float) -> float:
    return time.monotonic() + seconds


def left(ends_at: float) -> float:
    """As the transport gives it."""
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def send_all(connection: socket.socket, data: bytes, ends_at: float) -> None:
    unsent = memoryview(data)
    while unsent:
        unsent = unsent[send_some(connection, unsent, lambda: left(ends_at)) :]


def receive(connection: socket.socket, count: int, ends_at: float) -> bytes:
    """At most so many bytes, which are waited for."""
    buffer = bytearray(count)
    return bytes(buffer[: receive_some(connection, buffer, lambda: left(ends_at))])


def test_more_than_the_system_buffers_comes_through_whole_both_ways(pair: Pair) -> None:
    here, there = pair
    data = bytes(range(256)) * 16_000  # 4 MB
    came = bytearray()
    back = bytearray()

    def echo() -> None:
        while len(came) < len(data) and (piece := there.recv(1 << 20)):
            came.extend(piece)
            time.sleep(0.001)  # so that the writer has to wait
        for start in range(0, len(came), 100_000):
            there.sendall(came[start : start + 100_000])
            time.sleep(0.001)  # so that the reader has to wait

    peer = threading.Thread(target=echo)
    peer.start()
    ends_at = until(30)
    send_all(here, data, ends_at)
    while len(back) < len(data):
        back += receive(here, 1 << 20, ends_at)
    peer.join(30)
    assert came == data
    assert back == data


def test_a_peer_that_does_not_read_costs_the_time_and_no_more(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        send_all(pair[0], bytes(50_000_000), until(0.2))


def test_a_peer_that_says_nothing_costs_the_time_and_no_more(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        receive(pair[0], 10, until(0.2))


def test_what_comes_late_is_waited_for(pair: Pair) -> None:
    here, there = pair
    timer = threading.Timer(0.1, there.sendall, [b"late"])
    timer.start()
    assert receive(here, 10, until(30)) == b"late"
    timer.join()


def test_without_a_limit_it_waits_for_ever(plain_pair: Pair) -> None:
    here, there = plain_pair
    timer = threading.Timer(0.1, there.sendall, [b"late"])
    timer.start()
    assert receive_some(here, bytearray(10), lambda: None) == 4
    timer.join()


def test_the_end_and_a_reset_are_told_apart(plain_pair: Pair) -> None:
    here, there = plain_pair
    there.shutdown(socket.SHUT_WR)
    assert receive(here, 10, until(30)) == b""
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    there.close()
    with pytest.raises(ConnectionError):
        send_all(here, bytes(50_000_000), until(30))


def test_a_connection_is_quiet_until_something_comes_or_the_peer_hangs_up(pair: Pair) -> None:
    here, there = pair
    there.sendall(b"xy")
    assert receive(here, 1, until(30)) == b"x"
    assert not is_quiet(here)  # TLS has read the rest already
    assert receive(here, 1, until(30)) == b"y"
    assert is_quiet(here)
    there.close()
    ends_at = until(30)
    while is_quiet(here):
        left(ends_at)


def test_a_connection_that_was_closed_on_this_side_is_an_error_of_the_system(pair: Pair) -> None:
    here, _ = pair
    here.close()
    with pytest.raises(OSError, match="closed on this side"):
        is_quiet(here)
    with pytest.raises(OSError):  # noqa: PT011  the system's own words
        receive(here, 10, until(30))
    with pytest.raises(OSError):  # noqa: PT011
        send_all(here, b"x", until(30))
