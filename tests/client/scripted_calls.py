"""Calls as programs: taken step by step, with scripted outcomes and a clock that is moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sketchbridge_client import Retry, SketchbridgeError
from sketchbridge_client.conversation import Hedge, Servers, Settled
from sketchbridge_client.messages import Failed, Infer, Inferred, Reply
from sketchbridge_client.programs import Pause, Program, Send, Step
from sketchbridge_client.targets import parse_targets
from sketchbridge_client.telemetry import Observation
from sketchbridge_client.timeouts import Deadline
from tests.client.clock import Clock

INFER = Infer("shoes", "", (), (), {}, "0" * 32)
ANSWER = Inferred("shoes", "1", ())
LOST = Failed("UNAVAILABLE", "Connection reset")
BUSY = Failed("UNAVAILABLE", "Exceeds maximum queue size")
DIED = Failed("INTERNAL", "Stub process 'shoes_0' is not healthy.")
LEAVING = Failed("UNAVAILABLE", "Model 'shoes' is not at ready state")
STRANGER = Failed("UNAVAILABLE", "CERTIFICATE_VERIFY_FAILED: self-signed certificate")
REFUSED = Failed("INVALID_ARGUMENT", "no picture")
OUT_OF_TIME = Failed("DEADLINE_EXCEEDED", "Deadline Exceeded")

Script = Callable[[Send], "tuple[float, Reply | Failed]"]
"""From what is sent: how many seconds it takes, and what comes back."""


def servers_of(
    count: int,
    retry: Retry | None = None,
    hedge: Hedge | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Servers:
    targets = parse_targets([f"127.0.0.1:{port}" for port in range(1, count + 1)], None)
    return Servers(targets, retry or Retry(), hedge, clock=clock)


def in_turn(*outcomes: Reply | Failed, takes_s: float = 0.0) -> Script:
    """These outcomes one after the other, the last one for ever."""
    left = iter(outcomes[:-1])
    return lambda _: (takes_s, next(left, outcomes[-1]))


class Taken(list[Step]):
    """The steps that were taken. sent_s: how long requests were on their way."""

    sent_s = 0.0

    @property
    def to(self) -> list[int]:
        """The targets that the request was sent to."""
        return [step.target for step in self if isinstance(step, Send) and isinstance(step.request, Infer)]

    @property
    def pauses_s(self) -> list[float]:
        return [step.seconds for step in self if isinstance(step, Pause)]


def play(program: Program[Any], script: Script, clock: Clock, taken: Taken) -> Any:
    """Take the steps of a program. Time passes as the script and the pauses say."""
    outcome: Any = None
    try:
        while True:
            step = program.send(outcome)
            taken.append(step)
            outcome = None
            if isinstance(step, Send):
                took_s, outcome = script(step)
                if step.timeout_s is not None and took_s >= step.timeout_s:
                    took_s, outcome = step.timeout_s, OUT_OF_TIME
                clock.now += took_s
            elif isinstance(step, Pause):
                clock.now += step.seconds
            else:
                raise TypeError(step)
    except StopIteration as done:
        return done.value


def converse(
    servers: Servers, script: Script, clock: Clock, *, timeout_s: float | None = 30.0
) -> tuple[Settled | SketchbridgeError, Taken]:
    taken, observation = Taken(), Observation(())
    program = servers.converse(INFER, Deadline(timeout_s, clock=clock), observation, request_id="0" * 32)
    try:
        result: Settled | SketchbridgeError = play(program, script, clock, taken)
    except SketchbridgeError as error:
        result = error
    assert not any(servers.on_its_way)
    taken.sent_s = observation.sent_s
    return result, taken
