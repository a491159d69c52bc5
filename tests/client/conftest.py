from __future__ import annotations

import io
import runpy
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import Client

# Test files are no package (importlib mode), so what two folders share is run by its path.
stand_in_server = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))["stand_in_server"]


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a real Triton that serves the stand-in repository."""
    with stand_in_server(tmp_path_factory.mktemp("repository")) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
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
