"""What a live drawing keeps: the sketch that waits, what came of the last ones, and the counters. It never paints."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.pictures import Picture

T = TypeVar("T")


class Ended(Exception):
    """There is nothing more to come."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A sketch that was fed. number: counts them from 0."""

    number: int
    picture: PictureInput
    bgr: bool


class Session:
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
        self._waiting: Frame | None = None
        self._on_its_way: Frame | None = None
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
        """Let this sketch be the next, in place of one that waits."""
        with self.changed:
            self.check_open()
            self.dropped += self._waiting is not None
            self._waiting = Frame(self._fed, picture, bgr)
            self._fed += 1
            self._announce()

    def finish(self) -> None:
        """Take no more sketches."""
        with self.changed:
            self._finished = True
            self._announce()

    def close(self) -> None:
        """Give up what waits and what is on its way, and end."""
        with self.changed:
            self._closed = True
            self.dropped += (self._waiting is not None) + (self._on_its_way is not None)
            self._waiting = self._on_its_way = None
            self._announce()

    def take_frame(self) -> Frame | None:
        """The sketch to send next, which is on its way from now on; None if there is none yet. Raises Ended."""
        with self.changed:
            if self._waiting is None:
                if self._finished or self._closed:
                    raise Ended
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
        """The newest picture if nobody has taken it, else None. An older error goes first: it is raised, or Ended."""
        with self.changed:
            if self._closed:
                raise Ended
            picture, error = self._picture, self._error
            if error is not None and (picture is None or error[0] < picture[0]):
                self._error = None
                raise error[1]
            if picture is not None:
                self._picture = None
                return picture[1]
            if self._finished and self._waiting is None and self._on_its_way is None:
                raise Ended
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


def snapshot(sketch: PictureInput) -> PictureInput:
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
