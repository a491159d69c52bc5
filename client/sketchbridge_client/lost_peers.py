"""How a TCP connection notices that its other end is gone without a word, as with a machine that lost its power.

The patrol asks over a connection of its own, so over HTTP it cannot tell of one that died. The kernel can.
"""

from __future__ import annotations

import socket
from typing import Any

_OPTIONS = (
    ("TCP_KEEPIDLE", 10),  # seconds of silence before the other end is asked
    ("TCP_KEEPINTVL", 5),  # seconds between the questions
    ("TCP_KEEPCNT", 3),  # so many without an answer, and it is gone
    ("TCP_USER_TIMEOUT", 25_000),  # milliseconds that sent bytes may stay unacknowledged
)


def notice_when_gone(connection: Any) -> None:
    """Have the kernel end a connection whose peer has been gone for about 25 seconds. Linux has all of it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
