"""A server of gRPC that gives the answers Triton cannot be made to give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.client.grpc_serving import serving_grpc


class ScriptedGrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
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


@contextmanager
def scripted_grpc_server() -> Iterator[ScriptedGrpcServer]:
    servicer = ScriptedGrpcServer()
    with serving_grpc(servicer, workers=2) as (_, port):
        servicer.url = f"127.0.0.1:{port}"
        yield servicer
