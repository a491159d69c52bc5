"""How the asyncio client takes the steps of a program, and the task that looks after its connections."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from sketchbridge_client.conversation import Servers
from sketchbridge_client.driving import is_worse_than_waiting
from sketchbridge_client.messages import Failed, Reply
from sketchbridge_client.patrol import patrol
from sketchbridge_client.programs import Pause, Prepare, Program, Race, Renew, Send, Step
from sketchbridge_client.targets import Credentials
from sketchbridge_client.transports import AsyncTransport

logger = logging.getLogger(__name__)

T = TypeVar("T")


class AsyncDriver:
    """Runs programs over asyncio transports, in one event loop."""

    def __init__(self, servers: Servers, transports: Sequence[AsyncTransport], credentials: Credentials) -> None:
        self._servers = servers
        self._transports = transports
        self._credentials = credentials
        self._patrolling: asyncio.Task[None] | None = None
        self._pauses: set[asyncio.Future[None]] = set()

    async def run(self, program: Program[T]) -> T:
        """What the program returns, or what it raises."""
        try:
            step = next(program)
            while True:
                try:
                    outcome = await self.take(step)
                except BaseException as exc:  # noqa: BLE001, PERF203  the program has to know, of cancellation above all
                    step = program.throw(exc)
                else:
                    step = program.send(outcome)
        except StopIteration as done:
            result: T = done.value
            return result

    async def take(self, step: Step) -> Any:
        """The outcome of one step."""
        if isinstance(step, Send):
            return await self._send(step)
        if isinstance(step, Prepare):
            return await asyncio.to_thread(step.work)
        if isinstance(step, Pause):
            return await self._pause(step.seconds)
        if isinstance(step, Renew):
            return await self._transports[step.target].renew()
        return await self._race(step)

    def look_after(self) -> None:
        """See to it that the connections are looked after while calls are on their way."""
        self._servers.called_at = self._servers.clock()
        if self._patrolling is None or self._patrolling.done():
            self._patrolling = asyncio.get_running_loop().create_task(self._patrol(), name="sketchbridge-patrol")

    async def close(self) -> None:
        """Hang up, and wait until the task has ended."""
        self._servers.closed = True
        patrolling, self._patrolling = self._patrolling, None
        for pause in self._pauses:
            if not pause.done():
                pause.set_result(None)
        if patrolling is not None and not patrolling.done():
            patrolling.cancel()
            await asyncio.wait([patrolling])
        for transport in self._transports:
            await transport.close()

    async def _patrol(self) -> None:
        try:
            await self.run(patrol(self._servers))
        except Exception as exc:  # noqa: BLE001  such as a caller's own `token` function raises; the next call starts it anew
            # Without its message, which may hold a secret.
            logger.warning("the patrol of %s ended with %s", self._servers.urls, type(exc).__qualname__)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the client is open."""
        pause = asyncio.get_running_loop().create_future()
        self._pauses.add(pause)
        try:
            await asyncio.wait([pause], timeout=seconds)
        finally:
            self._pauses.discard(pause)

    async def _send(self, step: Send) -> Reply | Failed:
        try:
            return await self._transports[step.target].send(
                step.request, step.timeout_s, step.headers + self._credentials.headers()
            )
        except Failed as failed:
            return failed

    async def _race(self, race: Race) -> tuple[int, Reply | Failed]:
        flights = {asyncio.ensure_future(self._send(race.first)): race.first.target}
        waiting = set(flights)
        try:
            done, waiting = await asyncio.wait(waiting, timeout=None if math.isinf(race.after_s) else race.after_s)
            if not done:
                second = race.second()
                if second is not None:
                    flight = asyncio.ensure_future(self._send(second))
                    flights[flight] = second.target
                    waiting.add(flight)
            while True:
                for flight in done:
                    outcome = flight.result()
                    if not waiting or not is_worse_than_waiting(outcome):
                        return flights[flight], outcome
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for flight in waiting:
                flight.cancel()
            if waiting:
                await asyncio.wait(waiting)
