"""What a status means: which error of ours it is, and whether the same request may succeed if it is sent again.

gRPC's codes are the table; HTTP's are mapped to them first. Triton's codes were read off a running 2.51. Most are clear
by themselves; where one code stands for several things the server's words decide, in MESSAGE_RULES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from sketchbridge_client.errors import (
    AccessDenied,
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
from sketchbridge_client.messages import Failed


class Again(Enum):
    """Whether a request that failed may be sent again. Every verb is idempotent, so it may whenever it could help."""

    NO = "the answer would be the same"
    LOST = "the connection broke; another target at once, or the same one after a pause"
    ELSEWHERE = "this server will not do, whatever is sent to it; on another target, if there is one"
    LATER = "the server said that it cannot now; after a pause"
    FEW_TIMES = "the process that served it died, perhaps of this very request; after a pause, but not for ever"
    IF_LEAVING = "the model is gone; after a pause if the server is stopping or loading it, which has to be asked"


@dataclass(frozen=True)
class Meaning:
    """What a status means. error: the class that callers see."""

    error: type[SketchbridgeError]
    again: Again = Again.NO


MEANING_OF_CODE: dict[str, Meaning] = {
    "OK": Meaning(ResponseInvalid),  # no error carries it
    "CANCELLED": Meaning(ConnectionFailed, Again.LOST),  # a server that stops, or this side that hung up
    "UNKNOWN": Meaning(ServerError),
    "INVALID_ARGUMENT": Meaning(InvalidInput),
    "DEADLINE_EXCEEDED": Meaning(RequestTimeout),
    "NOT_FOUND": Meaning(ModelNotFound),
    "ALREADY_EXISTS": Meaning(ServerError),
    "PERMISSION_DENIED": Meaning(AccessDenied),
    "UNAUTHENTICATED": Meaning(AccessDenied),
    "RESOURCE_EXHAUSTED": Meaning(Overloaded, Again.LATER),
    "FAILED_PRECONDITION": Meaning(ServerError),
    "ABORTED": Meaning(ServerError, Again.LATER),
    "OUT_OF_RANGE": Meaning(InvalidInput),
    "UNIMPLEMENTED": Meaning(ServerError),  # Triton's UNSUPPORTED, and any gRPC server that is no Triton
    "INTERNAL": Meaning(ServerError),
    "UNAVAILABLE": Meaning(ConnectionFailed, Again.LOST),  # gRPC's own; Triton's few are below
    "DATA_LOSS": Meaning(ServerError),
}

# (code, words of the message, meaning): the first that fits goes before the table above.
MESSAGE_RULES: tuple[tuple[str, str, Meaning], ...] = (
    # The model failed to load, is being loaded, or the server is stopping and has unloaded it.
    ("NOT_FOUND", "has no available versions", Meaning(ModelNotReady, Again.IF_LEAVING)),
    ("UNAVAILABLE", "is not at ready state", Meaning(ModelNotReady, Again.IF_LEAVING)),
    ("INVALID_ARGUMENT", "Model version not ready", Meaning(ModelNotReady, Again.IF_LEAVING)),  # over HTTP
    ("UNAVAILABLE", "unknown model", Meaning(ModelNotFound)),
    # The process of a Python model died.
    ("INTERNAL", "is not healthy", Meaning(ModelNotReady, Again.FEW_TIMES)),
    ("INTERNAL", "Stub process", Meaning(ModelNotReady, Again.FEW_TIMES)),
    # The queue of the dynamic batcher is full, or the request has waited in it for too long.
    ("UNAVAILABLE", "Exceeds maximum queue size", Meaning(Overloaded, Again.LATER)),
    ("UNAVAILABLE", "Request timeout expired", Meaning(Overloaded, Again.LATER)),
    # Message limits: ours on the way out, ours on the way back, then the server's or a proxy's.
    ("RESOURCE_EXHAUSTED", "Sent message larger than max", Meaning(InvalidArgument)),
    ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max", Meaning(ResponseInvalid)),
    ("RESOURCE_EXHAUSTED", "message larger than max", Meaning(InvalidInput)),
    # The connection broke, and gRPC says it with another code than UNAVAILABLE.
    ("INTERNAL", "RST_STREAM", Meaning(ConnectionFailed, Again.LOST)),
    ("UNKNOWN", "Stream removed", Meaning(ConnectionFailed, Again.LOST)),
    # Triton was started with --grpc-restricted-protocol.
    ("UNAVAILABLE", "This protocol is restricted", Meaning(AccessDenied)),
    # A certificate that does not fit stays so: the server's here, then what the server says of this side's. Over gRPC
    # with TLS 1.3 it says nothing and hangs up, which cannot be told from a server that stops.
    ("UNAVAILABLE", "CERTIFICATE_VERIFY_FAILED", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "Hostname Verification Check failed", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "Peer name", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "ALERT_UNKNOWN_CA", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "ALERT_HANDSHAKE_FAILURE", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "ALERT_BAD_CERTIFICATE", Meaning(AccessDenied, Again.ELSEWHERE)),
    # _REQUIRED, _EXPIRED, _REVOKED, _UNKNOWN
    ("UNAVAILABLE", "ALERT_CERTIFICATE", Meaning(AccessDenied, Again.ELSEWHERE)),
    ("UNAVAILABLE", "ALERT_UNSUPPORTED_CERTIFICATE", Meaning(AccessDenied, Again.ELSEWHERE)),
    # So does a port that speaks something else.
    ("UNAVAILABLE", "WRONG_VERSION_NUMBER", Meaning(ConnectionFailed, Again.ELSEWHERE)),
    ("UNAVAILABLE", "missing selected ALPN property", Meaning(ConnectionFailed, Again.ELSEWHERE)),
)

# Triton answers 400 for most of its own codes; what it says then decides above, or it is the caller's fault.
CODE_OF_HTTP_STATUS: dict[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "INVALID_ARGUMENT",
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.METHOD_NOT_ALLOWED: "UNIMPLEMENTED",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "UNAUTHENTICATED",
    HTTPStatus.REQUEST_TIMEOUT: "UNAVAILABLE",  # the request did not reach the server in time; it may next time
    HTTPStatus.CONFLICT: "ABORTED",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "OUT_OF_RANGE",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "UNIMPLEMENTED",
    HTTPStatus.UNPROCESSABLE_ENTITY: "INVALID_ARGUMENT",
    HTTPStatus.TOO_MANY_REQUESTS: "RESOURCE_EXHAUSTED",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL",
    HTTPStatus.NOT_IMPLEMENTED: "UNIMPLEMENTED",
    HTTPStatus.BAD_GATEWAY: "UNAVAILABLE",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "UNAVAILABLE",  # a proxy's limit, not the caller's, who may have time left
}
_CLIENT_ERRORS, _SERVER_ERRORS = range(400, 500), range(500, 600)

# What Triton puts before a message: the request id, and the ensemble that the failing step is in.
_PREFIXES = re.compile(r"^(\[request id: [^\]]*\]\s*|in ensemble '[^']*',\s*)+")


@dataclass(frozen=True)
class Attempt:
    """What was tried, for the message: where, which model, under which request id, within which time, how often."""

    url: str
    model: str | None = None
    request_id: str | None = None
    timeout_s: float | None = None
    tries: int = 1


def code_of_http_status(status: int) -> str:
    """The gRPC code that an HTTP status stands for."""
    if status in CODE_OF_HTTP_STATUS:
        return CODE_OF_HTTP_STATUS[HTTPStatus(status)]
    if status in _CLIENT_ERRORS:
        return "FAILED_PRECONDITION"
    return "INTERNAL" if status in _SERVER_ERRORS else "UNIMPLEMENTED"


def meaning_of(failed: Failed) -> Meaning:
    """What a failure means. One that this side refused to send is the caller's to fix."""
    if failed.code is None:
        return Meaning(InvalidArgument)
    for code, words, meaning in MESSAGE_RULES:
        if failed.code == code and words in failed.words:
            return meaning
    return MEANING_OF_CODE[failed.code]


def error_of(failed: Failed, attempt: Attempt) -> SketchbridgeError:
    """The error to raise for a failure."""
    words = _PREFIXES.sub("", failed.words).strip() or "no reason given"
    error = meaning_of(failed).error
    return error(
        _message(error, failed.code or "refused", words, attempt),
        status=failed.code,
        model=attempt.model,
        request_id=attempt.request_id,
    )


def _message(error: type[SketchbridgeError], code: str, words: str, attempt: Attempt) -> str:
    tried = f" It was tried {attempt.tries} times." if attempt.tries > 1 else ""
    if error is ConnectionFailed:
        return _connection_message(attempt.url, words) + tried
    if error is AccessDenied:
        for pattern, advice in _ADVICE_ON_CERTIFICATES.items():
            if re.search(pattern, words):
                return advice.format(url=attempt.url, words=words)
    template = _TEMPLATES.get(error, "{model} at {url} failed with {code}: {words}")
    message = template.format(
        url=attempt.url,
        model=f"`{attempt.model}`" if attempt.model else "the server",
        within="in time" if attempt.timeout_s is None else f"within {attempt.timeout_s:g} s",
        code=code,
        words=words,
    )
    return message + tried


_TEMPLATES: dict[type[SketchbridgeError], str] = {
    RequestTimeout: "No answer from {model} at {url} {within}. Give it more time, or look at the server's load.",
    ModelNotFound: "There is no model {model} at {url}: {words}.",
    ModelNotReady: "The model {model} at {url} is not ready: {words}.",
    Overloaded: "{model} at {url} has too much to do: {words}. Try again later.",
    InvalidArgument: "{model} cannot be asked so: {words}",
    InvalidInput: "{model} refused the request: {words}",
    AccessDenied: "{url} does not let this call to {model} in ({code}): {words}. Check `token`, `api_key`, `headers` "
    "and `tls` of the client.",
}


# words of gRPC or of Python's own TLS: what to tell
_ADVICE_ON_CERTIFICATES = {
    "Hostname Verification|Hostname mismatch|IP address mismatch|Peer name": "The certificate of {url} is for another "
    "name: {words}. If it is the right server, say which name it has with `Tls(server_name=...)`.",
    "CERTIFICATE_VERIFY_FAILED": "The certificate of {url} is not trusted: {words}. If it was signed by an authority "
    "of your own, give that with `Tls(ca=...)`.",
    "ALERT_": "{url} does not trust this side: {words}. Give a certificate that it knows the authority of with "
    "`Tls(certificate=..., key=...)`.",
}


def _connection_message(url: str, words: str) -> str:
    if re.search("Connection refused|Connect call failed", words):
        return (
            f"Nothing answers at {url}. Start it with `sketchbridge serve`, or give the address of a server that runs."
        )
    if re.search(r"resol(v|ution)|Name or service not known|nodename nor servname", words):
        return f"The host of {url} is not known: {words}. Check its name."
    if "No such file or directory" in words:  # a unix socket
        return f"There is no socket at {url}. Start the server, or give the path of the socket it listens on."
    if "WRONG_VERSION_NUMBER" in words:
        return (
            f"What answers at {url} does not speak TLS: {words}. Use `grpc://` or `http://` if that is as it should be."
        )
    if "ALPN" in words:
        return f"What answers at {url} speaks TLS but no gRPC: {words}. Is it the HTTP port? Use `https://` for that."
    return (
        f"The connection to {url} failed: {words}. Does the server still run, and is this the port of this protocol "
        "(by default gRPC 8001, HTTP 8000)? Does it speak TLS if and only if the address says so, and does it ask for "
        "a certificate of this side (`Tls(certificate=..., key=...)`)?"
    )
