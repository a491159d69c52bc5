"""Calls and answers in the shape that tritonclient's gRPC clients take and give, the blocking and the asyncio one."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from sketchbridge_client.calls import Answer, Call
from sketchbridge_client.errors import InvalidArgument, ResponseInvalid
from sketchbridge_client.inputs import MAX_IMAGE_BYTES
from sketchbridge_client.models import IndexEntry, ModelKind, kind_of

_MAX_MESSAGE_BYTES = 2 * MAX_IMAGE_BYTES
"""One picture each way, or the two of a roundtrip, with room for the rest of the message."""

CHANNEL_ARGUMENTS: list[tuple[str, int]] = [
    # Passing any argument drops tritonclient's own, so the limits are said here; gRPC's default would be 4 MiB.
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # gRPC waits up to 120 s before it tries a lost server again; a restarted one should be noticed within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]

_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")
_HIGHEST_PORT = 65535


def check_url(url: str) -> str:
    """The address, if gRPC takes it: host:port, or one of gRPC's own name schemes. Raises InvalidArgument."""
    if not isinstance(url, str):
        raise InvalidArgument(f'`url` is a {type(url).__qualname__}; expected a string such as "127.0.0.1:8001".')
    if url.startswith(_SCHEMES):
        return url
    host, colon, port = url.rpartition(":")
    if "/" in url or not host or not colon or not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise InvalidArgument(
            f'`url` is {url!r}; expected the host and gRPC port, without a scheme, such as "127.0.0.1:8001".'
        )
    return url


def infer_arguments(call: Call) -> dict[str, Any]:
    """The keyword arguments of `infer`, of the blocking client and the asyncio one alike."""
    tensor = InferInput(call.input_name, [1, 1], "BYTES")  # (N, 1)
    tensor.set_data_from_numpy(np.array([[call.picture]], dtype=np.object_))
    return {
        "model_name": call.model,
        "inputs": [tensor],
        "outputs": [InferRequestedOutput(name) for name in call.outputs],
        "request_id": call.request_id,
        "parameters": dict(call.parameters),
    }


def read_answer(call: Call, result: InferResult, elapsed_s: float) -> Answer:
    """What `infer` returned, checked: every output is one element of bytes. Raises ResponseInvalid."""
    response = result.get_response()
    try:
        # (N, 1) with N = 1
        outputs = {output.name: _only_element(result, output.name) for output in response.outputs}
    except (ValueError, TypeError, struct.error, InferenceServerException) as exc:
        raise ResponseInvalid(
            f"The answer of `{call.model}` cannot be read: {exc}", model=call.model, request_id=call.request_id
        ) from exc
    return Answer(
        call=call,
        outputs=outputs,
        model=response.model_name or call.model,
        model_version=response.model_version,
        elapsed_s=elapsed_s,
    )


def _only_element(result: InferResult, name: str) -> bytes:
    output = result.get_output(name)
    shape = tuple(output.shape)
    if output.datatype != "BYTES" or shape != (1, 1):
        raise ValueError(f"`{name}` is {shape} {output.datatype}; expected (1, 1) BYTES.")
    element = result.as_numpy(name).item()
    if not isinstance(element, bytes):
        raise TypeError(f"`{name}` holds a {type(element).__qualname__}; expected bytes.")
    return element


def read_index(index: Any) -> list[IndexEntry]:
    """The server's repository index: one entry for each version of each model."""
    return [IndexEntry(model.name, model.version, model.state, model.reason) for model in index.models]


def read_kind(metadata: Any) -> ModelKind:
    """The kind of the model that this metadata is of."""
    inputs = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    outputs = {tensor.name: tensor.datatype for tensor in metadata.outputs}
    return kind_of(inputs, outputs)
