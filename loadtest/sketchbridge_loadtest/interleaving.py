"""Ways of doing the same thing, measured in turns, so that a noisy neighbour hits all of them alike.

A round runs each way twice, there and back: A B B A. Figures are compared within a round, and the median over the
rounds is what counts.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from sketchbridge_loadtest.machine import describe_machine

Call = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Block:
    """Calls made one after the other, or by several callers at once.

    latencies_s: of each call. took_s: of them all. cpu_s: processor time that this process used for them.
    """

    latencies_s: tuple[float, ...]
    took_s: float
    cpu_s: float


@dataclass(frozen=True)
class Round:
    """What one way did in one round. p50_ms: of its calls; per_s: calls a second; cpu_ms: of this process, a call."""

    p50_ms: float
    per_s: float
    cpu_ms: float


@dataclass(frozen=True)
class Spread:
    """A figure over rounds. low, high: the quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def spread(figures: Sequence[float]) -> Spread:
    """The median of figures, and their quartiles."""
    low, median, high = np.percentile(figures, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def interleave(ways: Mapping[str, Callable[[], Block]], *, rounds: int) -> dict[str, list[Round]]:
    """Run each way twice a round, there and back; who goes first moves on by one each round.

    Returns the rounds of each way, in the same order.
    """
    names = tuple(ways)
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        there = names[first:] + names[:first]
        blocks: dict[str, list[Block]] = {name: [] for name in names}
        for name in there + there[::-1]:
            blocks[name].append(ways[name]())
        for name in names:
            found[name].append(_round(blocks[name]))
    return found


class Threads:
    """Calls by threads of its own, which stay, so that what a thread keeps for itself is kept between blocks."""

    def __init__(self, call: Call, *, most: int) -> None:
        self._call = call
        self._pool = ThreadPoolExecutor(most)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def once(self, data: bytes) -> bytes:
        """One call: what it answers."""
        return self._pool.submit(self._call, data).result()

    def block(self, data: bytes, *, callers: int, calls: int) -> Block:
        """At least `calls` calls, the same number by each of `callers` threads."""
        start = threading.Barrier(callers + 1)
        jobs = [self._pool.submit(self._caller, start, data, share(calls, callers)) for _ in range(callers)]
        start.wait()
        began, cpu_began = time.perf_counter(), time.process_time()
        latencies_s = tuple(latency_s for job in jobs for latency_s in job.result())
        return Block(latencies_s, time.perf_counter() - began, time.process_time() - cpu_began)

    def _caller(self, start: threading.Barrier, data: bytes, calls: int) -> list[float]:
        start.wait()
        latencies_s = []
        for _ in range(calls):
            began = time.perf_counter()
            self._call(data)
            latencies_s.append(time.perf_counter() - began)
        return latencies_s


def share(calls: int, callers: int) -> int:
    """How many calls each caller makes, so that they make at least `calls`."""
    return -(-calls // callers)


def whole_number(text: str) -> int:
    """A command line's number of calls or rounds, from 1. For argparse, which says what was wrong."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no whole number from 1")
    return number


def describe_run(command: str) -> str:
    """What figures were measured on and how: machine, versions, date, how busy the machine is, and the command."""
    clients = f"tritonclient {version('tritonclient')}, grpcio {version('grpcio')}"
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return f"{describe_machine()}, {clients}; load average {load}\n{command}"


def _round(blocks: Sequence[Block]) -> Round:
    latencies_s = [latency_s for block in blocks for latency_s in block.latencies_s]
    return Round(
        p50_ms=1000 * float(np.median(latencies_s)),
        per_s=len(latencies_s) / sum(block.took_s for block in blocks),
        cpu_ms=1000 * sum(block.cpu_s for block in blocks) / len(latencies_s),
    )
