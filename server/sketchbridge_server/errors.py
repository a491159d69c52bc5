"""What can go wrong around a server.

ServeError
  InvalidConfiguration    the call was wrong: a port out of range, a repository that is not there or holds no model
  TritonNotFound          no `tritonserver`, or a part that it needs on this machine is missing
  PortUnavailable         another program has the port, or this user may not open it; has .port
  StartCancelled          the caller asked to stop before the server was ready
  StartFailed             Triton ended, or did not get ready in time; the message ends with its last log lines
    ModelLoadFailed       Triton runs but could not load a model; has .reasons, model name -> Triton's own words
  ServerDied              it was ready, then the server or a model's Python process ended by itself
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServeError(Exception):
    """The root: everything this package raises on purpose."""


class InvalidConfiguration(ServeError):
    """The call was wrong; nothing was started."""


class TritonNotFound(ServeError):
    """There is no Triton here, or a part of it is missing; the message names the part and how to install it."""


class PortUnavailable(ServeError):
    """A port cannot be opened.

    port: the port in question.
    """

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class StartCancelled(ServeError):
    """The caller asked to stop before the server was ready."""


class StartFailed(ServeError):
    """Triton ended during its start, or did not get ready in time."""


class ModelLoadFailed(StartFailed):
    """At least one model could not be loaded.

    reasons: model name -> the reason in Triton's own words, for a program to read.
    """

    def __init__(self, message: str, *, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class ServerDied(ServeError):
    """A server that had been ready ended by itself, or lost the Python process of a model."""
