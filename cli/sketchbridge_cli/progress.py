"""Shows on stderr how far several pictures are, and keeps what is printed meanwhile apart from that."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from typing_extensions import Self

STATUS_EVERY_S = 10.0
"""How often plain lines are followed by one about the whole."""


class Progress(Protocol):
    """How far it is. Used from one thread, in a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def started(self, number: int, source: str) -> None:
        """The picture of this number, from 1, is on its way."""

    def finished(self, *, failed: bool) -> None:
        """One more is through."""

    def print(self, text: str, file: TextIO) -> None:
        """Print a line that is no progress."""


def make_progress(total: int, *, as_bar: bool) -> Progress:
    """The progress of `total` pictures. as_bar: a bar, if tqdm is there to draw one; else lines."""
    if as_bar:
        with suppress(ImportError):
            return _Bar(total)
    return _Lines(total)


def pace(done: int, failed: int, total: int, elapsed_s: float) -> str:
    """How it goes, as "120 of 1000, 2 failed, 35.2 pictures/s, 25 s left". done: failed ones included."""
    each_s = elapsed_s / done if done else 0.0
    rate = f", {1 / each_s:.3g} pictures/s, {round((total - done) * each_s)} s left" if each_s else ""
    return f"{done} of {total}, {failed} failed{rate}"


def printable(text: str, file: TextIO) -> str:
    """`text` as `file` can take it. A file name may have bytes that are no text; they become escapes."""
    encoding = file.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class _Lines:
    """A line for each picture that is started, and one about the whole now and then. None for a single picture."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._failed = 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def started(self, number: int, source: str) -> None:
        if self._total > 1:
            self.print(f"[{number}/{self._total}] {source}", sys.stderr)

    def finished(self, *, failed: bool) -> None:
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if now - self._said >= STATUS_EVERY_S and self._done < self._total:
            self._said = now
            self.print(pace(self._done, self._failed, self._total, now - self._began), sys.stderr)

    def print(self, text: str, file: TextIO) -> None:
        file.write(printable(text, file) + "\n")


class _Bar:
    """One line of the terminal that is drawn over and over."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm  # noqa: PLC0415  optional

        self._bar: Any = tqdm(
            total=total,
            file=sys.stderr,
            dynamic_ncols=True,
            unit=" pictures",
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{rate_noinv_fmt}, {remaining} left{postfix}]",
        )
        self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def started(self, number: int, source: str) -> None:
        pass

    def finished(self, *, failed: bool) -> None:
        self._failed += failed
        self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update()

    def print(self, text: str, file: TextIO) -> None:
        self._bar.write(printable(text, file), file=file)
