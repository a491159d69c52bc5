"""A server of TCP that sends back what it gets, and what a client can do and see through a proxy before it."""

from __future__ import annotations

import queue
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sketchbridge_loadtest.fault_proxy import Ending, FaultProxy

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


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return read(client, len(data))


def assert_quiet(client: socket.socket) -> None:
    """Nothing comes, and the connection does not end either."""
    client.settimeout(QUIET_S)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(WAIT_S)


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()
