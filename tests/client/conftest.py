from __future__ import annotations

import asyncio
import io
import runpy
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import AsyncClient, Client
from sketchbridge_server.config import Endpoints

if TYPE_CHECKING:
    from typing_extensions import Self

# Test files are no package (importlib mode), so what two folders share is run by its path.
stand_in_server = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))["stand_in_server"]


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


class ScriptedServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A real gRPC server that gives the answers Triton cannot be made to give. `infer` is called for each request."""

    def __init__(self) -> None:
        self.url = ""
        self.infer: Callable[[Any, grpc.ServicerContext], Any] = lambda *_: service_pb2.ModelInferResponse()
        self.index: Any = service_pb2.RepositoryIndexResponse()

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """Answer every request with this error."""

        def abort(_: Any, context: grpc.ServicerContext) -> None:
            context.abort(code, details)

        self.infer = abort

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        return self.infer(request, context)

    def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        return self.index


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        servicer = ScriptedServer()
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        servicer.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield servicer
        server.stop(grace=0).wait()
