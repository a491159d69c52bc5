"""Sockets that do not block: bytes come through whole, and a peer that does nothing costs no more than the time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sketchbridge_client.sockets import is_quiet, receive_some, send_some

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets of TCP; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    here.settimeout(0)
    with here, there:
        yield here, there


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


def test_more_than_the_system_buffers_comes_through_whole(pair: Pair) -> None:
    here, there = pair
    data = bytes(range(256)) * 40_000  # 10 MB
    came = bytearray()

    def read() -> None:
        while len(came) < len(data):
            time.sleep(0.001)  # so that the writer has to wait
            came.extend(there.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    send_all(here, data, until(30))
    reader.join(30)
    assert came == data


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


def test_without_a_limit_it_waits_for_ever(pair: Pair) -> None:
    here, there = pair
    timer = threading.Timer(0.1, there.sendall, [b"late"])
    timer.start()
    assert receive_some(here, bytearray(10), lambda: None) == 4
    timer.join()


def test_the_end_and_a_reset_are_told_apart(pair: Pair) -> None:
    here, there = pair
    there.shutdown(socket.SHUT_WR)
    assert receive(here, 10, until(30)) == b""
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    there.close()
    with pytest.raises(ConnectionError):
        send_all(here, bytes(50_000_000), until(30))


def test_a_connection_is_quiet_until_something_comes_or_the_peer_hangs_up(pair: Pair) -> None:
    here, there = pair
    assert is_quiet(here)
    there.sendall(b"x")
    assert receive(here, 1, until(30)) == b"x"
    assert is_quiet(here)
    there.close()
    ends_at = until(30)
    while is_quiet(here):
        left(ends_at)
