"""How the blocking client takes the steps of a program, and the thread that looks after its connections."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import queue
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sketchbridge_client.conversation import Servers
from sketchbridge_client.messages import Failed, Reply
from sketchbridge_client.patrol import IDLE_S, patrol
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Renew, Send, Step
from sketchbridge_client.status import Again, meaning_of
from sketchbridge_client.targets import Credentials
from sketchbridge_client.transports import Flight, Transport

logger = logging.getLogger(__name__)

_LAST_STEPS_S = 1.0  # for the patrol's thread to end; it needs milliseconds
_LOOKS_UP_S = 0.1  # from a pause, whether the client was closed

T = TypeVar("T")


class Line(Protocol):
    """A way to the servers for one thread, that another thread can give up."""

    def run(self, program: Program[T]) -> T:
        """What the program returns, or what it raises."""
        ...

    def give_up(self) -> None:
        """Let the program that runs, or the next one, end with a CancelledError, as in asyncio."""


class _Runner(ABC):
    """Takes the steps of programs over blocking transports, in the thread of the caller."""

    def __init__(self, servers: Servers, transports: Sequence[Transport], credentials: Credentials) -> None:
        self._servers = servers
        self._transports = transports
        self._credentials = credentials

    def run(self, program: Program[T]) -> T:
        """What the program returns, or what it raises."""
        try:
            step = next(program)
            while True:
                try:
                    outcome = self.take(step)
                except BaseException as exc:  # noqa: BLE001, PERF203  the program has to know, of Ctrl-C above all
                    step = program.throw(exc)
                else:
                    step = program.send(outcome)
        except StopIteration as done:
            result: T = done.value
            return result

    def take(self, step: Step) -> Any:
        """The outcome of one step."""
        if isinstance(step, Send):
            return self._send(step)
        if isinstance(step, Prepare):
            return step.work()
        if isinstance(step, Pause):
            return self._pause(step.seconds)
        if isinstance(step, Renew):
            return self._transports[step.target].renew()
        return self._race(step)

    @abstractmethod
    def _pause(self, seconds: float) -> None:
        """Wait so long, or until there is nothing left to wait for."""

    def _send(self, step: Send) -> Reply | Failed:
        try:
            return self._transports[step.target].send(
                step.request, step.timeout_s, step.headers + self._credentials.headers()
            )
        except Failed as failed:
            return failed

    def _begin(self, step: Send) -> Flight | Failed:
        try:
            return self._transports[step.target].begin(
                step.request, step.timeout_s, step.headers + self._credentials.headers()
            )
        except Failed as failed:
            return failed

    def _race(self, race: Race) -> tuple[int, Reply | Failed]:
        landed: queue.SimpleQueue[int] = queue.SimpleQueue()
        flights: list[tuple[int, Flight]] = []

        def start(step: Send) -> Failed | None:
            flight = self._begin(step)
            if isinstance(flight, Failed):
                return flight
            number = len(flights)
            flights.append((step.target, flight))
            flight.when_done(lambda: landed.put(number))
            return None

        refused = start(race.first)
        if refused is not None:
            return race.first.target, refused
        try:
            if _landed_within(landed, race.after_s) is None:
                second = race.second()
                if second is not None:
                    start(second)
            else:
                return flights[0][0], flights[0][1].outcome()
            for waiting in range(len(flights), 0, -1):
                target, flight = flights[landed.get()]
                outcome = flight.outcome()
                if waiting == 1 or not is_worse_than_waiting(outcome):
                    return target, outcome
        finally:
            for _, flight in flights:
                flight.cancel()
        raise AssertionError  # the last one of the loop returns


class Driver(_Runner):
    """Runs programs over blocking transports, and looks after these. Threads may share it."""

    def __init__(self, servers: Servers, transports: Sequence[Transport], credentials: Credentials) -> None:
        super().__init__(servers, transports, credentials)
        self._stopping = threading.Event()
        self._patrolled = False
        self._patrolling: threading.Thread | None = None
        self._starting = threading.RLock()  # `close` may come by way of the garbage collector
        _LIVING.add(self)

    def line(self) -> Line:
        """A line of its own for a thread. It needs no closing."""
        return _Line(self._servers, self._transports, self._credentials)

    def look_after(self) -> None:
        """See to it that the connections are looked after while calls are on their way."""
        self._servers.called_at = self._servers.clock()
        if not self._patrolled:
            self._begin_patrol()

    def close(self) -> None:
        """Hang up, and wait until the thread has ended."""
        self._servers.closed = True
        self._stopping.set()
        for transport in self._transports:
            transport.close()
        with self._starting:
            patrolling = self._patrolling
        # A client that is dropped unclosed may be collected in any thread: this one, or one that this one waits for.
        if patrolling is not None and patrolling is not threading.current_thread():
            patrolling.join(_LAST_STEPS_S)

    def forget(self) -> None:
        """In a child process: neither the thread is there, nor those that called or held a lock."""
        self._stopping, self._starting = threading.Event(), threading.RLock()
        self._patrolled, self._patrolling = False, None
        self._servers.forget_callers()
        for transport in self._transports:
            transport.forget()

    def _begin_patrol(self) -> None:
        with self._starting:
            if not self._patrolled and not self._servers.closed:
                patrolling = threading.Thread(target=self._patrol, name="sketchbridge-patrol", daemon=True)
                try:
                    patrolling.start()
                except RuntimeError:  # no thread can be had; the call does without
                    return
                self._patrolling, self._patrolled = patrolling, True

    def _patrol(self) -> None:
        try:
            self.run(patrol(self._servers))
        except Exception as exc:  # noqa: BLE001  such as a caller's own `token` function raises
            # Without its message, which may hold a secret.
            logger.warning("the patrol of %s ended with %s", self._servers.urls, type(exc).__qualname__)
        self._patrolled = False  # before the look: a call that begins now sees this, or is seen
        if self._servers.clock() - self._servers.called_at < IDLE_S:
            self._begin_patrol()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)


class _Line(_Runner):
    """Shares the servers and the transports of a driver, which looks after them."""

    def __init__(self, servers: Servers, transports: Sequence[Transport], credentials: Credentials) -> None:
        super().__init__(servers, transports, credentials)
        self._flights: list[Flight] = []
        self._given_up = False
        # Ends a pause. Unlike an Event it has no lock: `give_up` may come by way of the garbage collector, or in a
        # child process.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def give_up(self) -> None:
        self._given_up = True
        self._news.put(None)
        for flight in tuple(self._flights):
            flight.cancel()

    def take(self, step: Step) -> Any:
        try:
            outcome = super().take(step)
        finally:
            self._flights.clear()
        if self._given_up:
            raise asyncio.CancelledError
        return outcome

    def _pause(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        # The client, which may be closed meanwhile, has an event of its own.
        while not (self._given_up or self._servers.closed) and (left_s := ends_at - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._news.get(timeout=min(left_s, _LOOKS_UP_S))

    def _send(self, step: Send) -> Reply | Failed:
        flight = self._begin(step)
        return flight if isinstance(flight, Failed) else flight.outcome()

    def _begin(self, step: Send) -> Flight | Failed:
        flight = super()._begin(step)
        if not isinstance(flight, Failed):
            self._flights.append(flight)
            if self._given_up:  # since when `give_up` may have looked for flights before this one was there
                flight.cancel()
        return flight


def is_worse_than_waiting(outcome: Reply | Failed) -> bool:
    """Whether the other one of a race may still do better."""
    return isinstance(outcome, Failed) and meaning_of(outcome).again is not Again.NO


_LIVING: weakref.WeakSet[Driver] = weakref.WeakSet()


def _forget_all() -> None:
    for driver in _LIVING:
        driver.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _landed_within(landed: queue.SimpleQueue[int], seconds: float) -> int | None:
    try:
        return landed.get(timeout=None if math.isinf(seconds) else seconds)
    except queue.Empty:
        return None
