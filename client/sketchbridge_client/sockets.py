"""Writing to and reading from sockets that do not block, with or without TLS, in the time that is left.

Python's own sockets with a timeout ask the system three times for each piece: to set the time, to wait, to move the
bytes. Each time the thread gives the interpreter away and queues for it again, which many threads with small pictures
feel.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

LeftS = Callable[[], "float | None"]
"""Gives the seconds that are left, None for no limit. Raises TimeoutError if there are none."""


def send_some(connection: socket.socket, data: memoryview, left_s: LeftS) -> int:
    """Send as much of `data` as the system takes, and wait until it takes some. Raises TimeoutError, OSError."""
    while True:
        try:
            return connection.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):  # noqa: PERF203  it seldom goes round
            _wait(connection, left_s(), to_write=True)
        except ssl.SSLWantReadError:
            _wait(connection, left_s())


def receive_some(connection: socket.socket, buffer: Any, left_s: LeftS) -> int:
    """Wait until something comes, and put it into `buffer`; 0 at the end. Raises TimeoutError, OSError."""
    if not isinstance(connection, ssl.SSLSocket):  # that may hold what has come already
        _wait(connection, left_s())
    while True:
        try:
            return connection.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):  # noqa: PERF203  it seldom goes round
            _wait(connection, left_s())
        except ssl.SSLWantWriteError:
            _wait(connection, left_s(), to_write=True)


def is_quiet(connection: socket.socket) -> bool:
    """Whether nothing has come. A server with nothing to answer has only to say that it hangs up. Raises OSError."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return False
    return not _is_there(connection, 0)


def _wait(connection: socket.socket, left_s: float | None, *, to_write: bool = False) -> None:
    if not _is_there(connection, left_s, to_write=to_write):
        raise TimeoutError


def _is_there(connection: socket.socket, seconds: float | None, *, to_write: bool = False) -> bool:
    """Whether there is something to read, or room to write, within this time. What has failed is there too."""
    number = connection.fileno()
    if number < 0:  # neither of the two below would take it
        raise ConnectionAbortedError("the connection was closed on this side")
    if not hasattr(select, "poll"):  # Windows
        reading, writing = ([], [number]) if to_write else ([number], [])
        return any(select.select(reading, writing, [], seconds))
    poll = select.poll()
    poll.register(number, select.POLLOUT if to_write else select.POLLIN)
    return bool(poll.poll(None if seconds is None else math.ceil(1000 * seconds)))
