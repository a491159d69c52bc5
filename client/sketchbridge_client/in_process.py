"""A server within the caller's own process, for tests: no network, no threads, and no waiting.

Requests are tried again as over a network, but nobody sleeps between the tries: a pause is taken off the time that the
call has left, and that is all. Time that really passes is not, so that a slow machine gets no other results.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.conversation import Hedge, Servers
from sketchbridge_client.core import Core, Work
from sketchbridge_client.driving import Driver, Line
from sketchbridge_client.messages import Failed, Reply, Request
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Send, Step
from sketchbridge_client.retries import Retry
from sketchbridge_client.targets import Credentials, Target, Wire
from sketchbridge_client.telemetry import Telemetry
from sketchbridge_client.timeouts import LONGEST_S

T = TypeVar("T")


@dataclass
class OngoingCall:
    """One call of a verb, all its requests and tries. skipped_s: seconds that it would have waited by now.

    limit_s: seconds that it may take, None for no limit. failure, failing_model: what each of its requests about a
    model fails with, once a whole call is to fail.
    """

    verb: str
    limit_s: float | None
    skipped_s: float = 0.0
    failure: Failed | None = None
    failing_model: str = ""


class InProcess(ABC):
    """A server that a client is given instead of an address. url: what messages call it."""

    url: str

    @abstractmethod
    def receive(self, request: Request, headers: Mapping[str, str], call: OngoingCall) -> Reply:
        """Answer at once. For clients to call, from any thread. Raises Failed."""


_call: ContextVar[OngoingCall] = ContextVar("_call")


class InProcessCore(Core):
    """The verbs, by a clock of each call's own that stands still but for what the call skips."""

    def __init__(
        self, server: InProcess, timeout_s: float | None, retry: Retry, hedge: Hedge | None, telemetry: Telemetry
    ) -> None:
        if not retry.never:
            # How often it may fail must not hang on how long the pauses happen to be, nor on a budget that all calls
            # share while each has a clock of its own.
            first_contact_s = LONGEST_S if retry.first_contact_s else 0  # it is there
            retry = replace(retry, first_contact_s=first_contact_s, budget=int(LONGEST_S))
        targets = (Target(Wire.GRPC, server.url, secure=True, url=server.url),)
        super().__init__(targets, timeout_s, retry, hedge, telemetry, clock=lambda: _call.get().skipped_s)

    def call_of(self, verb: str, model: str | None, limit_s: float | None, work: Work[T]) -> Program[T]:
        """As of Core."""
        token = _call.set(OngoingCall(verb, limit_s))
        try:
            return (yield from super().call_of(verb, model, limit_s, work))
        finally:
            _call.reset(token)


class InProcessDriver(Driver):
    """Takes the steps of a program in the caller's thread."""

    def __init__(self, servers: Servers, server: InProcess, credentials: Credentials) -> None:
        super().__init__(servers, (), credentials)
        self._outcome = partial(_outcome, server, credentials)

    def take(self, step: Step) -> Any:
        """As of Driver."""
        return self._outcome(step)

    def line(self) -> Line:
        """Itself, as whatever it runs ends at once."""
        return self

    def give_up(self) -> None:
        """Do nothing: there is nothing on its way."""

    def look_after(self) -> None:
        """Do nothing: there is no connection that could be lost."""


class InProcessAsyncDriver(AsyncDriver):
    """Takes the steps of a program in the caller's task; others get their turn between them."""

    def __init__(self, servers: Servers, server: InProcess, credentials: Credentials) -> None:
        super().__init__(servers, (), credentials)
        self._outcome = partial(_outcome, server, credentials)

    async def take(self, step: Step) -> Any:
        """As of AsyncDriver."""
        await asyncio.sleep(0)
        return self._outcome(step)

    def look_after(self) -> None:
        """Do nothing: there is no connection that could be lost."""


def _outcome(server: InProcess, credentials: Credentials, step: Step) -> Any:
    """The outcome of a step. The first of a race always wins it, and a connection cannot be renewed."""
    if isinstance(step, Prepare):
        return step.work()
    if isinstance(step, Send):
        headers = dict(step.headers + credentials.headers())
        try:
            return server.receive(step.request, headers, _call.get())
        except Failed as failed:
            return failed
    if isinstance(step, Race):
        return step.first.target, _outcome(server, credentials, step.first)
    if isinstance(step, Pause):
        _call.get().skipped_s += step.seconds
    return None
