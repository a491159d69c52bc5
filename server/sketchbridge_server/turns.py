"""Whether a request whose turn has come is still worth the work: what every Python model asks before it begins.

It is not if its caller has left, which Triton tells of requests to a model itself (asking takes 0.06 ms), or if its
time is over, which `deadlines` tells of requests to an ensemble.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from sketchbridge_server.deadlines import VARIABLE, DeadlineTable

logger = logging.getLogger(__name__)

# Triton's own words for a request that has waited too long in one of its queues: clients know what they mean.
EXPIRED = "Request timeout expired"
LEFT = "The caller went away before its turn came."


class Turns:
    """Of one model. The server's table is used where there is one.

    notes: whether the model is the first step of ensembles, which notes how long each request has.
    """

    def __init__(self, *, notes: bool) -> None:
        self._notes = notes
        self._table = _open_table(notes=notes)

    def note(self, requests: list[Any]) -> None:
        """To be called with new requests as soon as they have come."""
        if self._table is None or not self._notes:
            return
        for request in requests:
            timeout_us = request.timeout()
            if timeout_us:
                self._table.note(request.request_id(), timeout_us)

    def refusal(self, request: Any) -> Any:
        """The answer to a request that is not worth the work any more; None if it is."""
        if self._table is not None:
            timeout_us = request.timeout()
            if timeout_us and self._table.has_passed(request.request_id(), timeout_us):
                return _refused(EXPIRED, pb_utils.TritonError.UNAVAILABLE)
        if request.is_cancelled():
            return _refused(LEFT, pb_utils.TritonError.CANCELLED)
        return None


def _open_table(*, notes: bool) -> DeadlineTable | None:
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return DeadlineTable(Path(path), notes=notes)
    except (OSError, ValueError) as exc:
        logger.warning("no deadlines within ensembles: %s is %s: %s", VARIABLE, path, exc)
        return None


def _refused(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
