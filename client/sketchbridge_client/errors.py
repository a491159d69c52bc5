"""What can go wrong, as one tree. Each branch is something else to do about it.

SketchbridgeError         has .model, .request_id and .status, None where there is none
  InvalidArgument         fix the call; nothing was sent (also a ValueError)
  ConnectionFailed        nothing came back: start the server, or give its right address
    RequestTimeout        nothing came back in time: give more time
  ServerError             an answer came back, and it was no
    ModelNotFound         has .available, the models that could have been meant
    ModelNotReady         the server knows the model and cannot run it now
    InvalidInput          fix the call: the server refused the picture or a parameter (also an InvalidArgument)
    Overloaded            wait, then try again
    AccessDenied          give the token, key or certificate that the server asks for
  ResponseInvalid         an answer came back that does not keep to what the model promises
  BatchFailed             some pictures of a list failed: has .results, what came of the others, and .errors, by index
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SketchbridgeError(Exception):
    """Base of everything this package raises on purpose.

    model: the model the request was for. request_id: what to look for in the server's log.
    status: the protocol's own word for what happened, such as "NOT_FOUND".
    """

    def __init__(
        self, message: str, *, status: str | None = None, model: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.model = model
        self.request_id = request_id


class InvalidArgument(SketchbridgeError, ValueError):
    """The call itself is wrong. Nothing was sent, unless it is an InvalidInput."""


class ConnectionFailed(SketchbridgeError):
    """Nothing came back: no server there, or the connection broke."""


class RequestTimeout(ConnectionFailed):
    """Nothing came back within `timeout_s`. The server may still be working on it."""


class ServerError(SketchbridgeError):
    """An answer came back, and it says that the request failed."""


class ModelNotFound(ServerError):
    """The server has no such model, or no such version of it.

    available: names of the models that would take the same call; empty if that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        available: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, status=status, model=model, request_id=request_id)
        self.available = available


class ModelNotReady(ServerError):
    """The server knows the model and cannot run it now: it failed to load, it died, or the server is stopping."""


class InvalidInput(ServerError, InvalidArgument):
    """The server refused the picture or a parameter. The message says which and why."""


class Overloaded(ServerError):
    """The server has more to do than it takes on. The same request may well be answered later."""


class AccessDenied(ServerError):
    """The server, or what stands before it, does not let this caller in. The credentials are in no message."""


class ResponseInvalid(SketchbridgeError):
    """The answer does not keep to what the model promises: an output is missing, or is no picture."""


class BatchFailed(SketchbridgeError):
    """At least one picture of a list failed. What came of the others is not lost.

    results: one for each picture in the order of the list, what the verb gives for one picture; None where it failed.
    errors: why, by the index of each picture that failed, lowest first. model, request_id, status: only where all the
    errors have the same.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        results: tuple[Any, ...] = (),
        errors: Mapping[int, SketchbridgeError] | None = None,
    ) -> None:
        super().__init__(message, status=status, model=model, request_id=request_id)
        self.results = results
        self.errors: dict[int, SketchbridgeError] = dict(errors or {})
