from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sketchbridge_cli.workers import Finished, Started, Workers


def results(workers: Workers[Any, Any]) -> list[Any]:
    return [report.result for report in workers.reports() if isinstance(report, Finished)]


def test_every_item_is_worked_on_once() -> None:
    workers = Workers(iter(range(200)), lambda item: item * 2, threads=7)
    assert sorted(results(workers)) == [2 * item for item in range(200)]


def test_nothing_to_do_is_done_at_once() -> None:
    assert results(Workers(iter([]), lambda item: item, threads=3)) == []


def test_one_thread_reports_in_order() -> None:
    reports = list(Workers(iter("ab"), str.upper, threads=1).reports())
    assert reports == [Started("a"), Finished("a", "A"), Started("b"), Finished("b", "B")]


def test_as_many_items_are_worked_on_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(4)
    assert len(results(Workers(iter(range(8)), lambda _: together.wait(20), threads=4))) == 8


def test_items_are_taken_only_when_a_thread_is_free_and_reports_are_read() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    workers = Workers(endless(), lambda item: item, threads=2)
    reports = workers.reports()
    read = [next(reports) for _ in range(1000)]
    # Read, waiting to be read (two a thread), and in the hands of each thread.
    assert taken <= sum(isinstance(report, Started) for report in read) + 4 + 2
    workers.join(wait_s=20)


def test_items_are_taken_by_one_thread_at_a_time() -> None:
    inside = threading.Lock()

    def guarded() -> Iterator[int]:
        for item in range(500):
            assert inside.acquire(blocking=False)
            inside.release()
            yield item

    assert len(results(Workers(guarded(), lambda item: item, threads=8))) == 500


@pytest.mark.parametrize("where", ["work", "items"])
def test_what_nobody_expected_is_raised_to_the_reader(where: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        if where == "items":
            raise RuntimeError("unexpected")

    def work(item: int) -> int:
        if where == "work":
            raise RuntimeError("unexpected")
        return item

    workers = Workers(items(), work, threads=2)
    with pytest.raises(RuntimeError, match="unexpected"):
        results(workers)
    workers.join(wait_s=20)


def test_a_stop_begins_nothing_more_and_gives_what_is_in_flight() -> None:
    go_on = threading.Event()

    def work(item: int) -> int:
        go_on.wait(20)
        return item

    workers = Workers(itertools.count(), work, threads=3)
    reports = workers.reports()
    begun = [next(reports) for _ in range(3)]
    assert [type(report) for report in begun] == [Started] * 3
    threading.Timer(0.1, go_on.set).start()
    assert sorted(finished.result for finished in workers.stop(wait_s=20)) == [0, 1, 2]


def test_what_takes_longer_than_a_stop_waits_is_abandoned() -> None:
    go_on, seen = threading.Event(), threading.Event()

    def work(item: int) -> bool:
        go_on.wait(20)
        if workers.abandoned:
            seen.set()
        return workers.abandoned

    workers: Workers[int, bool] = Workers(itertools.count(), work, threads=1)
    reports = workers.reports()
    next(reports)
    assert not workers.abandoned
    assert list(workers.stop(wait_s=0)) == []
    go_on.set()
    assert seen.wait(20)
    workers.join(wait_s=20)


def test_workers_that_were_never_started_stop_at_once() -> None:
    workers = Workers(itertools.count(), lambda item: item, threads=1)
    assert list(workers.stop(wait_s=1000)) == []
    workers.join(wait_s=1000)
