"""Real-time drawing for asyncio; see `live_drawing`."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.live_drawing import Drawing, Paint
from sketchbridge_client.live_session import Ended, Frame, Session
from sketchbridge_client.pictures import Picture

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class AsyncLiveDrawing(Drawing, AsyncIterator[Picture]):
    """LiveDrawing for asyncio; `AsyncClient.live` makes it, in a running event loop. Use it in an `async with` block.

    It is iterated by `async for`, and close() is awaited. The rest is called as there, and from any thread.
    """

    def __init__(self, driver: AsyncDriver, paint: Paint, *, bgr: bool, size_px: int) -> None:
        loop = asyncio.get_running_loop()
        self._bell = bell = _Bell(loop)
        session = Session(bell.ring)
        super().__init__(session, bgr=bgr, size_px=size_px)
        # The task must not hold this object, or it would never be collected.
        self._task = loop.create_task(_paint_each(session, bell, driver, paint), name="sketchbridge-live")
        self._stop = weakref.finalize(self, _stop, session, loop, self._task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Picture:
        try:
            return await self._bell.wait_for(self._session.take_picture)
        except Ended:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """See LiveDrawing.close."""
        self._stop()
        await asyncio.wait([self._task])


class _Bell:
    """Wakes what waits in an event loop, and may be rung in any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits in it any more
            self._loop.call_soon_threadsafe(self._wake)

    async def wait_for(self, look: Callable[[], T | None]) -> T:
        """What `look` finds, as soon as that is not None."""
        while (found := look()) is None:
            future = self._loop.create_future()  # a ring after `look` comes in a later turn of the loop
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return found

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


async def _paint_each(session: Session, bell: _Bell, driver: AsyncDriver, paint: Paint) -> None:
    try:
        while True:
            session.settle(await _outcome(await bell.wait_for(session.take_frame), driver, paint))
    except Ended:
        return
    except asyncio.CancelledError:
        session.close()
        raise


async def _outcome(frame: Frame, driver: AsyncDriver, paint: Paint) -> Picture | Exception:
    try:
        driver.look_after()
        picture: Picture = await driver.run(paint(frame.picture, frame.bgr))
    except Exception as exc:  # noqa: BLE001  the caller's own `token` function may raise anything
        return exc
    return picture


def _stop(session: Session, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    session.close()
    with suppress(RuntimeError):  # the loop is closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)
