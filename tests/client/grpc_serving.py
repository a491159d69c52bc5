"""gRPC servers of Triton's protocol that run in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

PNG = b"\x89PNG\r\n\x1a\n"


def painted_answer(data: bytes = PNG) -> Any:
    """What a model called `shoes` answers that painted this picture."""
    answer = service_pb2.ModelInferResponse(model_name="shoes", model_version="1")
    answer.outputs.add(name="photo", datatype="BYTES", shape=[1, 1])
    answer.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    return answer


@contextmanager
def serving_grpc(servicer: Any, *, workers: int, address: str = "127.0.0.1:0") -> Iterator[tuple[grpc.Server, int]]:
    """Serve with so many threads. Yields the server, which may be stopped before its time, and its port."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield server, port
        finally:
            server.stop(grace=0).wait()
