"""The turns of a Python model: whether a request is still worth the work when its turn comes, and how long turns took.

It is not if its caller has left, which Triton tells of requests to a model itself (asking takes 0.06 ms), or if its
time is over, which `deadlines` tells of requests to an ensemble. What turns took is in `step_times`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import triton_python_backend_utils as pb_utils

from sketchbridge_server import deadlines, step_times
from sketchbridge_server.deadlines import DeadlineTable
from sketchbridge_server.step_times import Stamp, StepTimes

logger = logging.getLogger(__name__)

Table = TypeVar("Table")

# Triton's own words for a request that has waited too long in one of its queues: clients know what they mean.
EXPIRED = "Request timeout expired"
LEFT = "The caller went away before its turn came."


class Turns:
    """Of one model. The server's tables are used where there are any.

    model: its name. is_first: whether it is the first step of ensembles, which notes how long each request has.
    """

    def __init__(self, *, model: str, is_first: bool) -> None:
        self._model = model
        self._is_first = is_first
        self._deadlines = _open(
            deadlines.VARIABLE,
            lambda path: DeadlineTable(path, notes=is_first),
            without=f"ensembles with {model} will work on requests whose time is over",
        )
        self._times = _open(
            step_times.VARIABLE,
            lambda path: StepTimes(path, model=model, is_first=is_first),
            without=f"{model} will tell no times but its own, and no other step will tell of it",
        )

    def begin(self, requests: list[Any]) -> int:
        """To be called with new requests as soon as they have come. Returns when that was, for `end` and `told`."""
        began_ns = time.monotonic_ns()
        if self._deadlines is not None and self._is_first:
            for request in requests:
                timeout_us = request.timeout()
                if timeout_us:
                    self._deadlines.note(request.request_id(), timeout_us)
        return began_ns

    def refusal(self, request: Any) -> Any:
        """The answer to a request that is not worth the work any more; None if it is."""
        if self._deadlines is not None:
            timeout_us = request.timeout()
            if timeout_us and self._deadlines.has_passed(request.request_id(), timeout_us):
                return _refused(EXPIRED, pb_utils.TritonError.UNAVAILABLE)
        if request.is_cancelled():
            return _refused(LEFT, pb_utils.TritonError.CANCELLED)
        return None

    def end(self, requests: list[Any], began_ns: int) -> None:
        """To be called just before the answers are given back, which Triton takes all together."""
        if self._times is None:
            return
        ended_ns = time.monotonic_ns()
        for request in requests:
            self._times.stamp(request.request_id(), request.timeout(), began_ns, ended_ns)

    def told(self, request: Any, began_ns: int) -> bytes:
        """What is known of the times of a request until now, as `step_times.as_json` writes it."""
        if self._times is None:
            return step_times.as_json([Stamp(self._model, self._is_first, began_ns, time.monotonic_ns())])
        return step_times.as_json(self._times.told(request.request_id(), request.timeout(), began_ns))


def _open(variable: str, open_table: Callable[[Path], Table], *, without: str) -> Table | None:
    """The table that an environment variable tells of, if any. without: what to say comes of it if it can't be used."""
    path = os.environ.get(variable)
    if not path:
        return None
    try:
        return open_table(Path(path))
    except (OSError, ValueError) as exc:
        logger.warning("%s: cannot use %s: %s", without, path, exc)
        return None


def _refused(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
