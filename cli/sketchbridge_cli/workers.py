"""Works on a few items at a time, in threads that fetch each item when they are free for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Started(Generic[Item]):
    """Work on `item` has begun."""

    item: Item


@dataclass(frozen=True)
class Finished(Generic[Item, Result]):
    """Work on `item` has come to `result`."""

    item: Item
    result: Result


@dataclass(frozen=True)
class _Crashed:
    error: BaseException


class _Gone:
    """The last thing a thread reports."""


_Report = Started[Item] | Finished[Item, Result] | _Crashed | _Gone


class Workers(Generic[Item, Result]):
    """Threads that do `work` on each of `items`. What they report is read in the thread that owns them.

    An item is taken from `items` only when a thread is free for it, by one thread at a time, so `items` may be endless.
    At most a few reports wait to be read; then the threads wait too. What `work` or `items` raises is raised by
    `reports`: what may go wrong with an item is for `work` to return.
    """

    def __init__(self, items: Iterator[Item], work: Callable[[Item], Result], *, threads: int) -> None:
        self._items = items
        self._work = work
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._reports: queue.Queue[_Report[Item, Result]] = queue.Queue(2 * threads)
        self._running = 0
        # Daemons, so that a request nobody waits for any more cannot hold up the end of the process.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for results any more. `work` should leave nothing behind then."""
        return self._abandoned.is_set()

    def reports(self) -> Iterator[Started[Item] | Finished[Item, Result]]:
        """Start, and give what is reported until all is done."""
        for thread in self._threads:
            thread.start()
            self._running += 1
        while self._running:
            yield from self._passed_on(self._reports.get())

    def stop(self, *, wait_s: float) -> Iterator[Finished[Item, Result]]:
        """Begin nothing more, give what is finished within `wait_s` seconds, and abandon the rest."""
        self._stopping.set()
        for report in self._reported_within(wait_s):
            yield from (passed for passed in self._passed_on(report) if isinstance(passed, Finished))
        self._abandoned.set()

    def join(self, *, wait_s: float) -> None:
        """Begin nothing more, and wait at most `wait_s` seconds for the threads to end. What they report is dropped."""
        self._stopping.set()
        self._abandoned.set()
        for report in self._reported_within(wait_s):
            self._running -= isinstance(report, _Gone)

    def _reported_within(self, wait_s: float) -> Iterator[_Report[Item, Result]]:
        ends_at = time.monotonic() + wait_s
        with suppress(queue.Empty):
            while self._running:
                yield self._reports.get(timeout=max(0.0, ends_at - time.monotonic()))

    def _passed_on(self, report: _Report[Item, Result]) -> Iterator[Started[Item] | Finished[Item, Result]]:
        if isinstance(report, _Crashed):
            raise report.error
        if isinstance(report, _Gone):
            self._running -= 1
        else:
            yield report

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._turn:
                    if self._stopping.is_set():
                        break
                    try:
                        item = next(self._items)
                    except StopIteration:
                        break
                self._reports.put(Started(item))
                self._reports.put(Finished(item, self._work(item)))
        except BaseException as exc:  # noqa: BLE001  it is raised again, by reports()
            self._reports.put(_Crashed(exc))
        finally:
            self._reports.put(_Gone())
