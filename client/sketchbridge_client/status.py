"""From gRPC's status codes to our errors. Callers see only the right-hand side.

Triton's codes were read off a running 2.51. Most are clear by themselves; where one code stands for several things the
server's words decide, in MESSAGE_RULES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc

from sketchbridge_client.errors import (
    ConnectionFailed,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    ResponseInvalid,
    ServerError,
    SketchbridgeError,
)

ERROR_OF_CODE: dict[grpc.StatusCode, type[SketchbridgeError]] = {
    grpc.StatusCode.OK: ResponseInvalid,  # no error carries it
    grpc.StatusCode.CANCELLED: ConnectionFailed,  # this side hung up, as by closing the client
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.DEADLINE_EXCEEDED: RequestTimeout,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.ALREADY_EXISTS: ServerError,
    grpc.StatusCode.PERMISSION_DENIED: ServerError,
    grpc.StatusCode.UNAUTHENTICATED: ServerError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: ServerError,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,  # Triton's UNSUPPORTED, and any gRPC server that is no Triton
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: ConnectionFailed,  # gRPC's own; Triton's few are below
    grpc.StatusCode.DATA_LOSS: ServerError,
}

# (code, words of the message, class): the first that fits goes before the table above.
MESSAGE_RULES: tuple[tuple[grpc.StatusCode, str, type[SketchbridgeError]], ...] = (
    # The model failed to load, or the server is stopping and has unloaded it.
    (grpc.StatusCode.NOT_FOUND, "has no available versions", ModelNotReady),
    (grpc.StatusCode.UNAVAILABLE, "is not at ready state", ModelNotReady),
    (grpc.StatusCode.UNAVAILABLE, "unknown model", ModelNotFound),
    # The process of a Python model died.
    (grpc.StatusCode.INTERNAL, "is not healthy", ModelNotReady),
    # The queue of the dynamic batcher is full, or the request has waited in it for too long.
    (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", Overloaded),
    (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", Overloaded),
    # Message limits: ours on the way out, ours on the way back, then the server's or a proxy's.
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max", InvalidArgument),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max", ResponseInvalid),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max", InvalidInput),
)

_CODES_BY_NAME = {str(code): code for code in grpc.StatusCode}
# What Triton puts before a message: the request id, and the ensemble that the failing step is in.
_PREFIXES = re.compile(r"^(\[request id: [^\]]*\]\s*|in ensemble '[^']*',\s*)+")


@dataclass(frozen=True)
class Attempt:
    """What was tried, for the message: where, which model, under which request id, within how many seconds."""

    url: str
    model: str | None = None
    request_id: str | None = None
    timeout_s: float | None = None


def error_class(code: grpc.StatusCode, details: str) -> type[SketchbridgeError]:
    """The class of error that a status code and the server's words for it mean."""
    for its_code, words, error in MESSAGE_RULES:
        if code is its_code and words in details:
            return error
    return ERROR_OF_CODE[code]


def error_from_status(status: str | None, details: str | None, attempt: Attempt) -> SketchbridgeError:
    """The error to raise for what tritonclient reports.

    status: as tritonclient gives it, "StatusCode.NOT_FOUND"; None if tritonclient refused before sending.
    """
    words = _PREFIXES.sub("", details or "").strip() or "no reason given"
    code = _CODES_BY_NAME.get(status or "")
    error = InvalidArgument if code is None else error_class(code, words)
    return error(
        _message(error, code.name if code else "refused", words, attempt),
        status=code.name if code else None,
        model=attempt.model,
        request_id=attempt.request_id,
    )


def _message(error: type[SketchbridgeError], code: str, words: str, attempt: Attempt) -> str:
    if error is ConnectionFailed:
        return _connection_message(attempt.url, words)
    return _TEMPLATES.get(error, "{model} at {url} failed with {code}: {words}").format(
        url=attempt.url,
        model=f"`{attempt.model}`" if attempt.model else "the server",
        within="in time" if attempt.timeout_s is None else f"within {attempt.timeout_s:g} s",
        code=code,
        words=words,
    )


_TEMPLATES: dict[type[SketchbridgeError], str] = {
    RequestTimeout: "No answer from {model} at {url} {within}. Give it more time, or look at the server's load.",
    ModelNotFound: "There is no model {model} at {url}: {words}.",
    ModelNotReady: "The model {model} at {url} is not ready: {words}.",
    Overloaded: "{model} at {url} has too much to do: {words}. Try again later.",
    InvalidArgument: "{model} cannot be asked so: {words}",
    InvalidInput: "{model} refused the request: {words}",
}


def _connection_message(url: str, words: str) -> str:
    if "Connection refused" in words:
        return (
            f"Nothing answers at {url}. Start it with `sketchbridge serve`, or give the address of a server that runs "
            "(host and gRPC port)."
        )
    if re.search(r"resol(v|ution)", words):  # gRPC has said it both ways
        return f"The host of {url} is not known: {words}. Check its name."
    return (
        f"The connection to {url} failed: {words}. Is this the gRPC port (8001 by default) and not the HTTP port, and "
        "does the server still run?"
    )
