from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sketchbridge_loadtest.fault_proxy import FaultProxy
from tests.loadtest.echoing import EchoServer, echo_server


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with echo_server() as server:
        yield server


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy(echo.url) as proxy:
        yield proxy


@pytest.fixture
def closed_address() -> Iterator[tuple[str, int]]:
    """An address that nothing listens on, nor can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()
