"""Where the time of a call went: on this side, on the way, and in each step of the model that answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sketchbridge_client.messages import Tensor

TIMINGS = "timings"
"""The output in which a model of Sketchbridge tells the times of its steps, if it is asked for."""


@dataclass(frozen=True)
class StepTimings:
    """How long a request was with one step of a model, in seconds.

    queue_s: from the end of the step before to the beginning of this one; None for the first, which does not know. A
    step that tells nothing of itself, such as a generator in a backend of C++, is within the queue_s of the next one.
    compute_s: from there to the end of this step, with whatever else was in its batch.
    """

    model: str
    queue_s: float | None
    compute_s: float


@dataclass(frozen=True)
class Timings:
    """Where the time of one call went, in seconds.

    total_s: from the call to its result.
    client_s: of that, on this side: reading and encoding the picture, building the request, reading the answer, and the
    pauses between tries. Of a list, both are from the beginning of the call to the answer of this picture's request.
    attempts: how often the request was sent, 1 if the first try succeeded.
    told: what the server says of the steps, its JSON; b"" if it says nothing, as for a model that has no output
    `timings`.
    """

    total_s: float
    client_s: float
    attempts: int
    told: bytes = field(default=b"", repr=False)

    @property
    def steps(self) -> tuple[StepTimings, ...]:
        """The steps of the try that was answered, in their order; () if the server says nothing that can be read."""
        try:
            return tuple(_step(step) for step in json.loads(self.told or b"[]"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return ()

    @property
    def queue_s(self) -> float:
        """Seconds that the request waited between its steps, as far as the server says."""
        return sum(step.queue_s or 0.0 for step in self.steps)

    @property
    def compute_s(self) -> float:
        """Seconds that the steps took, as far as the server says."""
        return sum(step.compute_s for step in self.steps)

    @property
    def network_s(self) -> float:
        """All other seconds: on the way there and back, waiting for the first step, tries that failed, and of a list
        the requests before this one.
        """
        return max(0.0, self.total_s - self.client_s - self.queue_s - self.compute_s)


def told_in(outputs: Iterable[Tensor]) -> bytes:
    """What the output `timings` says, the same for all pictures of the request; b"" if there is none.

    It is read where somebody asks for it: the picture is given to its caller, whatever this says.
    """
    for tensor in outputs:
        if tensor.name == TIMINGS and tensor.datatype == "BYTES":
            data = tensor.data
            return data[4 : 4 + int.from_bytes(data[:4], "little")]
    return b""


def _step(told: Any) -> StepTimings:
    model, queue_us = told["model"], told["queue_us"]
    if not isinstance(model, str):
        raise TypeError
    return StepTimings(model, None if queue_us is None else _seconds(queue_us), _seconds(told["compute_us"]))


def _seconds(microseconds: object) -> float:
    if type(microseconds) is not int or not 0 <= microseconds < 2**63:
        raise ValueError
    return microseconds / 1e6
