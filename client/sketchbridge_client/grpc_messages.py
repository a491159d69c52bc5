"""Requests and replies as the protobuf messages of Triton's gRPC service, for both of its transports."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client.inputs import MAX_IMAGE_BYTES
from sketchbridge_client.messages import (
    Failed,
    Infer,
    Inferred,
    Parameter,
    Question,
    Reply,
    Request,
    Tensor,
    queue_timeout_us,
)
from sketchbridge_client.targets import Target, Tls

_MAX_MESSAGE_BYTES = 2 * MAX_IMAGE_BYTES
"""One picture each way, or the two of a roundtrip, with room for the rest of the message."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # gRPC's default for what comes in would be 4 MiB.
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # gRPC waits up to 120 s before it tries a lost server again; a restarted one should be noticed within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name, how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Triton hangs up on who pings oftener than every 300 s, or at all while no call is on its way; patrol.py notices a
    # lost peer sooner. With this on, the kernel too gives a connection up whose bytes nobody acknowledged for 20 s.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # A name with several addresses, as that of a headless service, is taken in turns.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # Retries are this package's own, with a budget and the words of the server in mind; two layers would multiply.
    ("grpc.enable_retries", 0),
    # As over HTTP: with http_proxy in the environment, even what is for this machine would go through the proxy.
    ("grpc.enable_http_proxy", 0),
    # Each client has connections of its own: giving one up must not end the calls of another client.
    ("grpc.use_local_subchannel_pool", 1),
)

# name of the stub's method, class of its request, what its reply is read with
_METHODS: dict[Question, tuple[str, Any]] = {
    Question.SERVER_LIVE: ("ServerLive", service_pb2.ServerLiveRequest),
    Question.SERVER_READY: ("ServerReady", service_pb2.ServerReadyRequest),
    Question.MODEL_READY: ("ModelReady", service_pb2.ModelReadyRequest),
    Question.MODEL_METADATA: ("ModelMetadata", service_pb2.ModelMetadataRequest),
    Question.MODEL_CONFIG: ("ModelConfig", service_pb2.ModelConfigRequest),
    Question.REPOSITORY_INDEX: ("RepositoryIndex", service_pb2.RepositoryIndexRequest),
    Question.STATISTICS: ("ModelStatistics", service_pb2.ModelStatisticsRequest),
}
# Of the fields of a ModelInferRequest that are written here: their numbers, and that a length follows.
_ID_TAG, _PARAMETERS_TAG, _CONTENTS_TAG = (bytes([number << 3 | 2]) for number in (3, 4, 7))
_KEY_TAG, _VALUE_TAG = (bytes([number << 3 | 2]) for number in (1, 2))  # of an entry of a map
_OF_ONE_MODEL = frozenset(
    {Question.MODEL_READY, Question.MODEL_METADATA, Question.MODEL_CONFIG, Question.STATISTICS},
)
_TRUTHS = {Question.SERVER_LIVE: "live", Question.SERVER_READY: "ready", Question.MODEL_READY: "ready"}


def channel_options(tls: Tls | None) -> list[tuple[str, int | str]]:
    """The options of every channel."""
    name = tls.server_name if tls else None
    return [*CHANNEL_OPTIONS, *([("grpc.ssl_target_name_override", name)] if name else [])]


def channel_credentials(target: Target, tls: Tls | None) -> Any:
    """The credentials of a channel to `target`, or None for one without TLS.

    Raises InvalidArgument for files of `tls` that cannot be used; gRPC itself would say so in its log only.
    """
    if not target.secure:
        return None
    if tls is not None:
        tls.context()
    trusted, certificate, key = (_content(tls, name) for name in ("ca", "certificate", "key"))
    return grpc.ssl_channel_credentials(trusted or _authorities_of_the_system(), key, certificate)


def stub_of(channel: Any) -> Any:
    """The methods of the service over a channel, which take what `method_and_message` gives."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    stub.ModelInfer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=None,  # it is given the bytes
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return stub


def method_and_message(request: Request, timeout_s: float | None) -> tuple[str, Any]:
    """The name of the stub's method for a request, and what to call it with. Raises Failed for what gRPC cannot carry.

    timeout_s: what the request is given, which is also how long it may wait in the server's queues. An Infer is written
    here: what fails within gRPC's own call is told differently by each of its ways.
    """
    if isinstance(request, Infer):
        try:
            return "ModelInfer", _serialised(request, timeout_s)
        except (TypeError, ValueError) as exc:
            raise Failed(None, f"gRPC cannot carry it: {exc}.") from exc
    method, message = _METHODS[request.question]
    return method, message(name=request.model, version=request.version) if request.question in _OF_ONE_MODEL else (
        message()
    )


def read_reply(request: Request, message: Any) -> Reply:
    """What a message of the server says. Raises Failed if it cannot be an answer to the request."""
    if isinstance(request, Infer):
        return _inferred(message)
    if request.question in _TRUTHS:
        return bool(getattr(message, _TRUTHS[request.question]))
    read: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return read.get("config", {}) if request.question is Question.MODEL_CONFIG else read


def failed_of(error: Any) -> Failed:
    """What gRPC's error says."""
    code = error.code()
    return Failed(code.name if code is not None else "UNKNOWN", error.details() or "")


def _serialised(request: Infer, timeout_s: float | None) -> bytes:
    """The bytes of a ModelInferRequest: what its like have in common, and what is its own, joined in one go.

    protobuf would copy a picture into the message and again out of it. A message is its fields one after the other, in
    any order. Source: the encoding of protocol buffers, protobuf.dev/programming-guides/encoding.
    """
    inputs = [(tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs]
    parts = [_head(request.model, request.version, tuple(inputs), request.outputs)]
    request_id = request.request_id.encode()
    parts += (_ID_TAG, _varint(len(request_id)), request_id)
    for name, value in request.parameters.items():
        parts += _parameter(name, value)
    if timeout_s is not None:
        parts += _parameter("timeout", queue_timeout_us(timeout_s))
    for tensor in request.inputs:
        parts += (_CONTENTS_TAG, _varint(tensor.size_bytes), *tensor.parts)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """A whole number from 0 as protobuf writes it: seven bits to a byte, the lowest first, all but the last marked."""
    if number <= 0x7F:
        return bytes((number,))
    written = bytearray()
    while number > 0x7F:
        written.append(0x80 | number & 0x7F)
        number >>= 7
    written.append(number)
    return bytes(written)


@lru_cache(maxsize=256)  # callers ask for the same again and again
def _head(
    model: str, version: str, inputs: tuple[tuple[str, str, tuple[int, ...]], ...], outputs: tuple[str, ...]
) -> bytes:
    """What a request is about, and the names, datatypes and shapes of its inputs."""
    message: Any = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    for name in outputs:
        message.outputs.add(name=name)
    head: bytes = message.SerializeToString()
    return head


def _parameter(name: str, value: Parameter) -> tuple[bytes, ...]:
    """An entry of the map of parameters, which is a message of its key and its value."""
    written: bytes
    if isinstance(value, bool):
        written = service_pb2.InferParameter(bool_param=value).SerializeToString()
    elif isinstance(value, str):
        written = service_pb2.InferParameter(string_param=value).SerializeToString()
    elif isinstance(value, int):
        written = service_pb2.InferParameter(int64_param=value).SerializeToString()
    else:
        written = service_pb2.InferParameter(double_param=value).SerializeToString()
    key = name.encode()
    entry = b"".join((_KEY_TAG, _varint(len(key)), key, _VALUE_TAG, _varint(len(written)), written))
    return _PARAMETERS_TAG, _varint(len(entry)), entry


def _inferred(message: Any) -> Inferred:
    outputs, contents = message.outputs, message.raw_output_contents
    if len(outputs) != len(contents):
        raise Failed("OK", f"{len(outputs)} outputs came with the contents of {len(contents)}")
    tensors = [
        Tensor(output.name, output.datatype, tuple(output.shape), (content,))
        for output, content in zip(outputs, contents, strict=True)
    ]
    parameters = {name: _value(value) for name, value in message.parameters.items()}
    return Inferred(message.model_name, message.model_version, tuple(tensors), parameters)


def _value(parameter: Any) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, which) if which else ""


def _authorities_of_the_system() -> bytes | None:
    """The certificates that Python's own TLS trusts, PEM; None where there are none, and gRPC takes those it has."""
    paths = ssl.get_default_verify_paths()
    files: list[Path] = []
    if paths.cafile:
        files = [Path(paths.cafile)]
    elif paths.capath:
        files = sorted(Path(paths.capath).glob("*.[0-9]"))  # named after the hashes of their subjects
    return b"\n".join(file.read_bytes() for file in files) or None


def _content(tls: Tls | None, name: str) -> bytes | None:
    path = getattr(tls, name) if tls else None
    if path is None:
        return None
    with open(path, "rb") as file:  # noqa: PTH123  a path-like of any kind
        return file.read()
