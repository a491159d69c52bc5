"""Real-time drawing: a session is fed sketches as fast as they change, and gives the newest photo.

One request is on its way at a time, and the next one takes the newest sketch of that moment: more at once would only
wait in the server, and come back older. What a session keeps is in `Session`; LiveDrawing here and AsyncLiveDrawing in
`async_live_drawing` add a thread, or a task, that has the sketches painted, and a way to wait.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from sketchbridge_client.batches import is_batch
from sketchbridge_client.calls import Fit, Normalise, paint_call, painted
from sketchbridge_client.canvas import Canvas, Points, Stroke, checked_points, checked_width_px
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver, Line
from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.live_session import Ended, Frame, Session, snapshot
from sketchbridge_client.pictures import Picture
from sketchbridge_client.programs import Program
from sketchbridge_client.timeouts import UNSET, Timeout, check_timeout_s

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_SIZE_PX = 512

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


class Drawing:
    """What both kinds of session have; see LiveDrawing."""

    def __init__(self, session: Session, *, bgr: bool, size_px: int) -> None:
        self._session = session
        self._bgr = bgr
        self._canvas = Canvas(size_px)

    def feed(self, sketch: PictureInput, /) -> None:
        """Have `sketch` painted next, in place of one that is still waiting. Comes back at once, from any thread.

        sketch: one picture, as for `paint`, copied here if it could change: an array, a Pillow image, a bytearray, a
        memoryview, a BytesIO. A file of another kind and the file of a path are read when their turn comes. What is
        wrong with it is raised where the pictures are taken. Raises InvalidArgument after finish() or close().
        """
        self._session.hand_over(snapshot(sketch), bgr=self._bgr)

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


class LiveDrawing(Drawing, Iterator[Picture]):
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
        session = Session()
        super().__init__(session, bgr=bgr, size_px=size_px)
        self._owner = owner
        line = driver.line()
        # The thread must not hold this object, or it would never be collected.
        self._thread = threading.Thread(
            target=_paint_each, args=(session, driver, line, paint), name="sketchbridge-live", daemon=True
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
        except Ended:
            raise StopIteration from None

    def close(self) -> None:
        """Stop now: give up the request on its way, and end the iteration. Closing twice does nothing.

        Waits for a sketch that is just being read or encoded.
        """
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _paint_each(session: Session, driver: Driver, line: Line, paint: Paint) -> None:
    with suppress(Ended, asyncio.CancelledError):
        while True:
            session.settle(_outcome(session.wait_for(session.take_frame), driver, line, paint))


def _outcome(frame: Frame, driver: Driver, line: Line, paint: Paint) -> Picture | Exception:
    try:
        driver.look_after()
        picture: Picture = line.run(paint(frame.picture, frame.bgr))
    except Exception as exc:  # noqa: BLE001  the caller's own `token` function may raise anything
        return exc
    return picture


def _stop(session: Session, line: Line) -> None:
    session.close()
    line.give_up()
