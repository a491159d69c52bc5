"""Real-time drawing: a session is fed sketches as fast as they change, and gives the newest photo.

One request is on its way at a time, and the next one takes the newest sketch of that moment: more at once would only
wait in the server, and come back older. What a session keeps is in `_Session`; LiveDrawing and
AsyncLiveDrawing add a thread, or a task, that has the sketches painted, and a way to wait.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.batches import is_batch
from sketchbridge_client.calls import Fit, Normalise, paint_call, painted
from sketchbridge_client.canvas import Canvas, Points, Stroke, checked_points, checked_width_px
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver
from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.messages import Failed, Reply
from sketchbridge_client.pictures import Picture
from sketchbridge_client.programs import Pause, Program, Send, Step
from sketchbridge_client.timeouts import UNSET, Timeout, check_timeout_s
from sketchbridge_client.transports import Flight

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_SIZE_PX = 512
_LOOKS_UP_S = 0.1  # from a pause, whether the client was closed

T = TypeVar("T")
Paint = Callable[[PictureInput, bool], Program[Any]]
"""The program that has one sketch painted; its second argument is `bgr`. It returns a Picture."""


def live_paint(
    core: Core,
    *,
    model: str,
    fit: Fit | None,
    normalise: Normalise | None,
    output_format: OutputFormat | None,
    quality: int | None,
    timeout_s: Timeout,
) -> Paint:
    """What a session does with each of its sketches: what `paint` does with one. Raises InvalidArgument."""
    call = paint_call(model=model, fit=fit, normalise=normalise, output_format=output_format, quality=quality)
    if timeout_s is not UNSET:
        check_timeout_s(timeout_s)

    def paint(sketch: PictureInput, bgr: bool) -> Program[Any]:  # noqa: FBT001
        if is_batch(sketch):
            raise InvalidArgument("`sketch` is several pictures; a live drawing takes one at a time: feed each.")
        return core.pictures(call, sketch, bgr, timeout_s, painted)

    return paint


class _Drawing:
    """What both kinds of session have; see LiveDrawing."""

    def __init__(self, session: _Session, *, bgr: bool, size_px: int) -> None:
        self._session = session
        self._bgr = bgr
        self._canvas = Canvas(size_px)

    def feed(self, sketch: PictureInput, /) -> None:
        """Have `sketch` painted next, in place of one that is still waiting. Comes back at once, from any thread.

        sketch: one picture, as for `paint`, copied here if it could change: an array, a Pillow image, a bytearray, a
        memoryview, a BytesIO. A file of another kind and the file of a path are read when their turn comes. What is
        wrong with it is raised where the pictures are taken. Raises InvalidArgument after finish() or close().
        """
        self._session.hand_over(_snapshot(sketch), bgr=self._bgr)

    def stroke(self, points: Points, /, *, width_px: float = 4) -> None:
        """Draw a black line through `points` on the session's white canvas, with round ends, and feed the canvas.

        points: at least one (x, y) in pixels of the canvas, from its top left corner; one alone is a dot, and what lies
        outside is cut off. width_px: above 0, up to 4096. Raises InvalidArgument for others, and after finish() or
        close().
        """
        stroke = Stroke(checked_points(points), checked_width_px(width_px))
        with self._session.changed:  # so that no older canvas is fed after a newer one
            self._session.check_open()
            self._canvas.draw(stroke)
            self._feed_canvas()

    def undo(self) -> None:
        """Take the last stroke off the canvas and feed it; without a stroke, do nothing."""
        with self._session.changed:
            self._session.check_open()
            if self._canvas.undo():
                self._feed_canvas()

    def clear(self) -> None:
        """Make the canvas white, for good, and feed it."""
        with self._session.changed:
            self._session.check_open()
            self._canvas.clear()
            self._feed_canvas()

    def finish(self) -> None:
        """Take no more sketches. The iteration ends once the picture of the last one has been given."""
        self._session.finish()

    @property
    def canvas(self) -> Image.Image:
        """A copy of the canvas as it is now: a Pillow image, mode L. What was fed otherwise is not on it."""
        with self._session.changed:
            return self._canvas.copy()

    @property
    def latest(self) -> Picture | None:
        """The newest picture, taken or not; None before the first."""
        return self._session.latest

    @property
    def painted(self) -> int:
        """How many sketches were painted."""
        return self._session.painted

    @property
    def dropped(self) -> int:
        """How many sketches were given up: a newer one came before they were sent, or the session was closed."""
        return self._session.dropped

    @property
    def failed(self) -> int:
        """How many sketches failed. Each was fed, and is painted, dropped, failed, or still to be so."""
        return self._session.failed

    def _feed_canvas(self) -> None:
        self._session.hand_over(self._canvas.copy(), bgr=False)


class LiveDrawing(_Drawing, Iterator[Picture]):
    """A drawing that is painted while it is drawn; `Client.live` makes it. Use it in a `with` block.

    Iterating gives the newest picture, waits for it if it has been given already, and never goes back. A picture that
    nobody took in time is left out. The error of a sketch is raised where its picture would have been given; of errors
    that nobody took, the newest only. The session goes on then, and so may the iteration. It ends after finish(), with
    the picture of the last sketch, and after close(), at once.

    Threads may share it. It does not go on in a forked child.

    Each sketch is one ordinary `paint` call, with its deadline and its retries. gRPC's stream for inference,
    ModelStreamInfer, has one deadline for all that it carries and breaks for all at once, and saves next to nothing:
    on one connection to a Triton on the same machine, with a model that does nothing, the stream took 0.03 ms less for
    a sketch of 1 KB (of 0.6 ms) and 0.1 ms less for one of 256 KB (of 1.1 ms). Painting takes tens of ms.
    """

    def __init__(self, owner: object, driver: Driver, paint: Paint, *, bgr: bool, size_px: int) -> None:
        """owner: the client, which is not to be collected before this."""
        session = _Session()
        super().__init__(session, bgr=bgr, size_px=size_px)
        self._owner = owner
        # A fake server answers at once, so that there is nothing to give up.
        line = _Line(driver) if type(driver) is Driver else None
        # The thread must not hold this object, or it would never be collected.
        self._thread = threading.Thread(
            target=_paint_each, args=(session, driver, line or driver, paint), name="sketchbridge-live", daemon=True
        )
        self._stop = weakref.finalize(self, _stop, session, line)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Picture:
        try:
            return self._session.wait_for(self._session.take_picture)
        except _Ended:
            raise StopIteration from None

    def close(self) -> None:
        """Stop now: give up the request on its way, and end the iteration. Closing twice does nothing.

        Waits for a sketch that is just being read or encoded.
        """
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join()


class AsyncLiveDrawing(_Drawing, AsyncIterator[Picture]):
    """LiveDrawing for asyncio; `AsyncClient.live` makes it, in a running event loop. Use it in an `async with` block.

    It is iterated by `async for`, and close() is awaited. The rest is called as there, and from any thread.
    """

    def __init__(self, driver: AsyncDriver, paint: Paint, *, bgr: bool, size_px: int) -> None:
        loop = asyncio.get_running_loop()
        self._bell = bell = _Bell(loop)
        session = _Session(bell.ring)
        super().__init__(session, bgr=bgr, size_px=size_px)
        # The task must not hold this object, or it would never be collected.
        self._task = loop.create_task(_paint_each_async(session, bell, driver, paint), name="sketchbridge-live")
        self._stop = weakref.finalize(self, _stop_task, session, loop, self._task)

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
        except _Ended:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """See LiveDrawing.close."""
        self._stop()
        await asyncio.wait([self._task])


class _Ended(Exception):
    """There is nothing more to come."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A sketch that was fed. number: counts them from 0."""

    number: int
    picture: PictureInput
    bgr: bool


class _Session:
    """The sketch that waits, what came of the last ones, and the counters. For any thread, and never waits by itself.

    changed: its lock, notified at each change. It is reentrant, since a collected session is closed in whatever thread
    the garbage collector runs. ring: what else to call at each change.
    """

    def __init__(self, ring: Callable[[], None] = lambda: None) -> None:
        self.changed = threading.Condition()
        self.latest: Picture | None = None
        self.painted = self.dropped = self.failed = 0
        self._ring = ring
        self._fed = 0
        self._waiting: _Frame | None = None
        self._on_its_way: _Frame | None = None
        self._picture: tuple[int, Picture] | None = None  # with the number of its frame, until it is taken
        self._error: tuple[int, Exception] | None = None
        self._finished = False
        self._closed = False

    def check_open(self) -> None:
        """Raise InvalidArgument if no more sketches are taken."""
        if self._finished or self._closed:
            state = "closed" if self._closed else "finished"
            raise InvalidArgument(f"This live drawing is {state} and takes no more sketches. Begin a new one.")

    def hand_over(self, picture: PictureInput, *, bgr: bool) -> None:
        with self.changed:
            self.check_open()
            self.dropped += self._waiting is not None
            self._waiting = _Frame(self._fed, picture, bgr)
            self._fed += 1
            self._announce()

    def finish(self) -> None:
        with self.changed:
            self._finished = True
            self._announce()

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.dropped += (self._waiting is not None) + (self._on_its_way is not None)
            self._waiting = self._on_its_way = None
            self._announce()

    def take_frame(self) -> _Frame | None:
        """The sketch to send next, which is on its way from now on; None if there is none yet. Raises _Ended."""
        with self.changed:
            if self._waiting is None:
                if self._finished or self._closed:
                    raise _Ended
                return None
            self._on_its_way, self._waiting = self._waiting, None
            return self._on_its_way

    def settle(self, outcome: Picture | Exception) -> None:
        """What came of the sketch on its way."""
        with self.changed:
            if self._on_its_way is None:  # closed meanwhile
                return
            number, self._on_its_way = self._on_its_way.number, None
            if isinstance(outcome, Exception):
                self.failed += 1
                self._error = number, outcome
            else:
                self.painted += 1
                self._picture = number, outcome
                self.latest = outcome
            self._announce()

    def take_picture(self) -> Picture | None:
        """The newest picture if nobody has taken it, else None. An older error goes first: it is raised, or _Ended."""
        with self.changed:
            if self._closed:
                raise _Ended
            picture, error = self._picture, self._error
            if error is not None and (picture is None or error[0] < picture[0]):
                self._error = None
                raise error[1]
            if picture is not None:
                self._picture = None
                return picture[1]
            if self._finished and self._waiting is None and self._on_its_way is None:
                raise _Ended
            return None

    def wait_for(self, look: Callable[[], T | None]) -> T:
        """What `look` finds, as soon as that is not None."""
        with self.changed:
            while (found := look()) is None:
                self.changed.wait()
            return found

    def _announce(self) -> None:
        self.changed.notify_all()
        self._ring()


def _snapshot(sketch: PictureInput) -> PictureInput:
    """A copy of what the caller could go on drawing into; the rest as it is."""
    try:
        if isinstance(sketch, np.ndarray):
            return sketch.copy()
        if isinstance(sketch, (bytearray, memoryview)):
            return bytes(sketch)
        if isinstance(sketch, Image.Image):
            return ImageOps.exif_transpose(sketch)  # a copy; what `copy` makes has lost a TIFF's orientation
        if isinstance(sketch, io.BytesIO):
            return sketch.read() or sketch
    except Exception:  # noqa: BLE001  a broken file raises what it likes; it is said better when its turn comes
        return sketch
    return sketch


# The blocking way


class _Line(Driver):
    """A client's way to its servers, for requests that another thread can give up. It is used by one thread."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver._servers, driver._transports, driver._credentials)  # noqa: SLF001  they are shared
        self._flights: list[Flight] = []

    def give_up(self) -> None:
        """Let the program that runs, or the next one, end with a CancelledError, as in asyncio."""
        self._stopping.set()
        for flight in tuple(self._flights):
            flight.cancel()

    def _take(self, step: Step, stopping: threading.Event) -> Any:
        try:
            outcome = self._pause(step.seconds) if isinstance(step, Pause) else super()._take(step, stopping)
        finally:
            self._flights.clear()
        if stopping.is_set():
            raise asyncio.CancelledError
        return outcome

    def _pause(self, seconds: float) -> bool:
        """Whether it was cut short."""
        ends_at = time.monotonic() + seconds
        # The client, which may be closed meanwhile, has an event of its own.
        while not self._servers.closed and (left_s := ends_at - time.monotonic()) > 0:
            if self._stopping.wait(min(left_s, _LOOKS_UP_S)):
                return True
        return False

    def _send(self, step: Send) -> Reply | Failed:
        flight = self._begin(step)
        return flight if isinstance(flight, Failed) else flight.outcome()

    def _begin(self, step: Send) -> Flight | Failed:
        flight = super()._begin(step)
        if not isinstance(flight, Failed):
            self._flights.append(flight)
            if self._stopping.is_set():  # since when `give_up` may have looked for flights before this one was there
                flight.cancel()
        return flight


def _paint_each(session: _Session, driver: Driver, line: Driver, paint: Paint) -> None:
    with suppress(_Ended, asyncio.CancelledError):
        while True:
            session.settle(_outcome(session.wait_for(session.take_frame), driver, line, paint))


def _outcome(frame: _Frame, driver: Driver, line: Driver, paint: Paint) -> Picture | Exception:
    try:
        driver.look_after()
        picture: Picture = line.run(paint(frame.picture, frame.bgr))
    except Exception as exc:  # noqa: BLE001  the caller's own `token` function may raise anything
        return exc
    return picture


def _stop(session: _Session, line: _Line | None) -> None:
    session.close()
    if line is not None:
        line.give_up()


# The asyncio way


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


async def _paint_each_async(session: _Session, bell: _Bell, driver: AsyncDriver, paint: Paint) -> None:
    try:
        while True:
            session.settle(await _outcome_async(await bell.wait_for(session.take_frame), driver, paint))
    except _Ended:
        return
    except asyncio.CancelledError:
        session.close()
        raise


async def _outcome_async(frame: _Frame, driver: AsyncDriver, paint: Paint) -> Picture | Exception:
    try:
        driver.look_after()
        picture: Picture = await driver.run(paint(frame.picture, frame.bgr))
    except Exception as exc:  # noqa: BLE001  the caller's own `token` function may raise anything
        return exc
    return picture


def _stop_task(session: _Session, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    session.close()
    with suppress(RuntimeError):  # the loop is closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)
