"""A server within the caller's own process, for tests: no network, no threads, and no waiting.

Requests are tried again as over a network, but nobody sleeps between the tries: a pause is taken off the time that the
call has left, and that is all. Time that really passes is not, so that a slow machine gets no other results.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.conversation import Hedge, Servers
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver
from sketchbridge_client.messages import Failed, Reply, Request
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Send, Step
from sketchbridge_client.retries import Retry, RetryBudget
from sketchbridge_client.targets import Credentials, Target, Wire
from sketchbridge_client.telemetry import Observation, Telemetry
from sketchbridge_client.timeouts import Deadline, Timeout

T = TypeVar("T")


@dataclass
class OngoingCall:
    """One call of a verb, all its requests and tries. skipped_s: seconds that it would have waited by now.

    failure, failing_model: what each of its requests about a model fails with, once a whole call is to fail.
    """

    verb: str
    skipped_s: float = 0.0
    failure: Failed | None = None
    failing_model: str = ""


class InProcess(ABC):
    """A server that a client is given instead of an address. url: what messages call it."""

    url: str

    @abstractmethod
    def receive(
        self, request: Request, timeout_s: float | None, headers: Mapping[str, str], call: OngoingCall
    ) -> Reply:
        """Answer at once. For clients to call, from any thread. timeout_s: of the whole call. Raises Failed."""


_call: ContextVar[OngoingCall] = ContextVar("_call")


class InProcessCore(Core):
    """The verbs, whose time passes only by what is skipped."""

    def __init__(
        self, server: InProcess, timeout_s: float | None, retry: Retry, hedge: Hedge | None, telemetry: Telemetry
    ) -> None:
        targets = (Target(Wire.GRPC, server.url, secure=True, url=server.url),)
        super().__init__(targets, timeout_s, retry, hedge, telemetry)
        self.servers = _Servers(targets, retry, hedge)

    def _deadline(self, timeout_s: Timeout) -> Deadline:
        return _StandingDeadline(super()._deadline(timeout_s).timeout_s)

    def _observed(self, verb: str, model: str | None, work: Callable[[Observation, str], Program[T]]) -> Program[T]:
        token = _call.set(OngoingCall(verb))
        try:
            return (yield from super()._observed(verb, model, work))
        finally:
            _call.reset(token)


class InProcessDriver(Driver):
    """Takes the steps of a program in the caller's thread."""

    def __init__(self, servers: Servers, server: InProcess, credentials: Credentials) -> None:
        super().__init__(servers, (), credentials)
        self._server = server

    def look_after(self) -> None:
        """Do nothing: there is no connection that could be lost."""

    def _take(self, step: Step, stopping: threading.Event) -> Any:  # noqa: ARG002  nobody waits
        return _taken(step, self._server, self._credentials)


class InProcessAsyncDriver(AsyncDriver):
    """Takes the steps of a program in the caller's task; others get their turn between them."""

    def __init__(self, servers: Servers, server: InProcess, credentials: Credentials) -> None:
        super().__init__(servers, (), credentials)
        self._server = server

    def look_after(self) -> None:
        """Do nothing: there is no connection that could be lost."""

    async def _take(self, step: Step) -> Any:
        await asyncio.sleep(0)
        return _taken(step, self._server, self._credentials)


class _Servers(Servers):
    def __init__(self, targets: Sequence[Target], retry: Retry, hedge: Hedge | None) -> None:
        super().__init__(targets, retry, hedge)
        self._budget = _Budget(retry)

    def _left_s(self, story: Any) -> float:
        return super()._left_s(story) - _call.get().skipped_s


class _Budget(RetryBudget):
    def take(self, now_s: float) -> bool:
        return super().take(now_s + _call.get().skipped_s)


class _StandingDeadline(Deadline):
    def remaining_s(self) -> float | None:
        return self.timeout_s


def _taken(step: Step, server: InProcess, credentials: Credentials) -> Any:
    """The outcome of a step. The first of a race always wins it, and a connection cannot be renewed."""
    if isinstance(step, Prepare):
        return step.work()
    if isinstance(step, Send):
        headers = dict(step.headers + credentials.headers())
        try:
            return server.receive(step.request, step.timeout_s, headers, _call.get())
        except Failed as failed:
            return failed
    if isinstance(step, Race):
        return step.first.target, _taken(step.first, server, credentials)
    if isinstance(step, Pause):
        _call.get().skipped_s += step.seconds
    return None
