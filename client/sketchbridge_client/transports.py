"""What a way to a server can do. Each protocol has one module for the blocking way and one for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sketchbridge_client.messages import Failed, Headers, Reply, Request


class Flight(Protocol):
    """A request on its way, so that another can be sent meanwhile."""

    def cancel(self) -> None:
        """Give it up, and tell the server so."""

    def outcome(self) -> Reply | Failed:
        """What came of it; waits until something has."""

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, as soon as there is an outcome; at once if there is."""


class Transport(Protocol):
    """A way to one server that blocks. Threads share it."""

    def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """Send and wait for the answer. timeout_s: None waits without limit. Raises Failed, and nothing else."""

    def begin(self, request: Request, timeout_s: float | None, headers: Headers) -> Flight:
        """Send and come back at once."""

    def renew(self) -> None:
        """Give the connection up: what is on its way ends as Failed UNAVAILABLE, what comes next connects anew."""

    def close(self) -> None:
        """Hang up for good. What is on its way ends as Failed CANCELLED. Closing twice does nothing."""

    def forget(self) -> None:
        """In a child process after a fork: leave the parent's connection as it is, and connect anew."""


class AsyncTransport(Protocol):
    """A way to one server for one event loop. Cancelling the task that sends cancels the request on the server."""

    async def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """As of Transport."""

    async def renew(self) -> None:
        """As of Transport."""

    async def close(self) -> None:
        """As of Transport."""
