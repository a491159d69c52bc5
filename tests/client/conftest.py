from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client import AsyncClient, Client
from sketchbridge_server.config import Endpoints
from tests.client.certificates import OPENSSL, make_certificates
from tests.client.clock import Clock
from tests.client.easel import Easel, live_threads
from tests.client.http_transports import Send, send_async, send_blocking
from tests.client.noting_servers import grpc_server, http_server
from tests.client.scripted_grpc import ScriptedGrpcServer, scripted_grpc_server
from tests.client.scripted_http import ScriptedHttpServer, scripted_http_server
from tests.client.stand_in import stand_in_server

if TYPE_CHECKING:
    from typing_extensions import Self


class Awaited:
    """An AsyncClient with the verbs of a Client, so that one test body is for both: each runs in a loop of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.inner = AsyncClient(*args, **options)
        except BaseException:
            self._end_loop()
            raise

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncClient", "Client")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._end_loop()

    def close(self) -> None:
        self._await(self.inner.close())

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *args, **options: self._await(getattr(self.inner, verb)(*args, **options))

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_loop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@dataclass(frozen=True)
class Way:
    """One protocol and one kind of client."""

    protocol: str
    kind: Callable[..., Any]

    def url(self, endpoints: Endpoints) -> str:
        return endpoints.grpc_url if self.protocol == "grpc" else endpoints.http_url

    def connect(self, endpoints: Endpoints, **options: Any) -> Client:
        client: Client = self.kind(self.url(endpoints), **options)
        return client


WAYS = {
    f"{protocol} {name}": Way(protocol, kind)
    for protocol in ("grpc", "http")
    for name, kind in (("blocking", Client), ("asyncio", Awaited))
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    """Each protocol with each kind of client."""
    way: Way = request.param
    return way


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each kind of client."""
    kind: Callable[..., Any] = request.param
    return kind


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Where a real Triton answers that serves the stand-in repository."""
    with stand_in_server(tmp_path_factory.mktemp("repository")) as endpoints:
        yield endpoints


@pytest.fixture
def client(way: Way, endpoints: Endpoints) -> Iterator[Client]:
    with way.connect(endpoints) as client:
        yield client


@pytest.fixture
def drawing() -> NDArray[np.uint8]:
    """(48, 64, 3) uint8 RGB, every pixel its own colour, so that any loss or turn shows."""
    return np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def png(drawing: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def closed_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def clock() -> Clock:
    """What is told the time instead of the real one."""
    return Clock()


@pytest.fixture
def scripted() -> Iterator[ScriptedGrpcServer]:
    with scripted_grpc_server() as server:
        yield server


@pytest.fixture
def easel(scripted: ScriptedGrpcServer) -> Easel:
    return Easel(scripted)


@pytest.fixture
def no_drawing_is_left_running() -> Iterator[None]:
    """Asked for by every test of live drawings."""
    yield
    assert live_threads() == []


@pytest.fixture
def scripted_http() -> Iterator[ScriptedHttpServer]:
    with scripted_http_server() as server:
        yield server


@pytest.fixture
def noting(way: Way) -> Iterator[Any]:
    """A server of the protocol of `way` that notes what came, with its `url`."""
    kind: Any = grpc_server if way.protocol == "grpc" else http_server
    with kind() as server:
        server.url = f"{way.protocol}://127.0.0.1:{server.port}"
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates of `make_certificates`."""
    if OPENSSL is None:
        pytest.skip("needs the command `openssl` to make certificates")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(params=[send_blocking, send_async], ids=["blocking", "asyncio"])
def send(request: pytest.FixtureRequest) -> Send:
    """Sends over each HTTP transport."""
    send: Send = request.param
    return send
