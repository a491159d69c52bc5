"""Small servers of both protocols that say yes to everything and note what came with each request."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.client.grpc_serving import painted_answer, serving_grpc
from tests.client.raw_server import raw_server


@dataclass
class HttpServer:
    """seen: the headers of each request."""

    seen: list[list[tuple[str, str]]] = field(default_factory=list)
    port: int = 0


@contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server that answers 200 to everything, over HTTPS if there is a context; it notes the headers that came."""
    server = HttpServer()

    def answer(connection: socket.socket) -> None:
        came = b""
        while part := connection.recv(9999):
            came += part
            while b"\r\n\r\n" in came:
                head, _, came = came.partition(b"\r\n\r\n")
                lines = head.decode("ascii").split("\r\n")[1:]
                server.seen.append(
                    [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
                )
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer, context) as server.port:
        yield server


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A gRPC server that says yes to everything, and notes the metadata that came with each call.

    before: called at the start of each call, with its name; it may abort it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[tuple[str, list[tuple[str, str]]]] = []
        self.before: Callable[[str, grpc.ServicerContext], Any] = lambda *_: None

    @property
    def seen(self) -> list[list[tuple[str, str]]]:
        return [metadata for _, metadata in self.calls]

    def ServerLive(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ServerLive", context)
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ServerReady", context)
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelInfer(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ModelInfer", context)
        return painted_answer()

    def _note(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls.append((name, [(one.key, one.value) for one in context.invocation_metadata()]))
        self.before(name, context)


@contextmanager
def grpc_server() -> Iterator[GrpcServer]:
    servicer = GrpcServer()
    with serving_grpc(servicer, workers=4) as (_, servicer.port):
        yield servicer
