"""What a server is worth when it is asked for more than it can do: pictures a second that came in time.

    python -m sketchbridge_loadtest.overload
    python -m sketchbridge_loadtest.overload --callers 48 --deadline-factors 6 20 --rounds 10 --json

Many callers, each with a deadline too short for a queue of all of them, ask again at once whether they got their
picture or not. They begin one after the other within one deadline, not all in the same moment. Two servers run
side by side, one that refuses requests whose time is over (as shipped) and one started with
`ServerConfig(refuse_expired=False)`. Rounds alternate between them, and so does which goes first. After each round its
server is left to empty its queue, and how long that takes is the backlog: what the next caller would have waited for.

Deadlines are multiples of how long one caller alone waits, measured first. Read the two servers against each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from statistics import median

from sketchbridge_client import NEVER, Client, Overloaded, RequestTimeout
from sketchbridge_loadtest.interleaving import describe_run, spread, whole_number
from sketchbridge_server import ServerConfig, TritonServer


class Outcome(Enum):
    """What became of a call: its picture came, nothing came in time, or the server said that it was too late."""

    IN_TIME = "in time"
    TOO_LATE = "too late"
    REFUSED = "refused"


@dataclass(frozen=True)
class Capacity:
    """What the server can do while nobody has a deadline.

    alone_s: median time of a call, one caller. per_s: pictures a second at all callers. busy_s: median time of a call
    then.
    """

    alone_s: float
    per_s: float
    busy_s: float


@dataclass(frozen=True)
class Round:
    """One round of one server.

    outcomes: how many calls ended so. painted: pictures that its generator painted. took_s: how long callers called.
    backlog_s: how long the server then took to answer one more, that is to empty its queue.
    """

    outcomes: Mapping[Outcome, int]
    painted: int
    took_s: float
    backlog_s: float

    @property
    def goodput(self) -> float:
        """Pictures that came in time, a second."""
        return self.outcomes.get(Outcome.IN_TIME, 0) / self.took_s


@dataclass(frozen=True)
class Side:
    """Some rounds of one server: medians, but for the shares, which are of all rounds.

    goodput, least_goodput, most_goodput: pictures in time a second, median and range over rounds. in_time: of all
    calls. wasted: of all pictures painted, those that came too late. backlog_s: see Round.
    """

    goodput: float
    least_goodput: float
    most_goodput: float
    in_time: float
    wasted: float
    backlog_s: float


@dataclass(frozen=True)
class Overload:
    """Both servers at one deadline."""

    timeout_s: float
    sides: Mapping[str, Side]


def summarise(rounds: Sequence[Round]) -> Side:
    """Figures over the rounds of one server."""
    goodputs = [one.goodput for one in rounds]
    calls = sum(sum(one.outcomes.values()) for one in rounds)
    in_time = sum(one.outcomes.get(Outcome.IN_TIME, 0) for one in rounds)
    painted = sum(one.painted for one in rounds)
    return Side(
        goodput=spread(goodputs).median,
        least_goodput=min(goodputs),
        most_goodput=max(goodputs),
        in_time=in_time / calls if calls else 0.0,
        wasted=max(0.0, 1 - in_time / painted) if painted else 0.0,  # Triton counts a little late
        backlog_s=median(one.backlog_s for one in rounds),
    )


def call_for(
    ask: Callable[[bytes], Outcome], pictures: Sequence[bytes], *, callers: int, seconds: float, spread_s: float = 0
) -> tuple[Counter[Outcome], float]:
    """`callers` threads, each asking again and again. Returns how many calls ended how, and how long it took.

    spread_s: within which the callers begin. No call begins after `seconds`; the last ones end later, and count.
    """
    began = time.perf_counter()

    def caller(number: int) -> Counter[Outcome]:
        time.sleep(spread_s * number / callers)
        ended: Counter[Outcome] = Counter()
        for picture in itertools.islice(itertools.cycle(pictures), number, None):
            if time.perf_counter() - began > seconds:
                break
            ended[ask(picture)] += 1
        return ended

    with ThreadPoolExecutor(callers) as pool:
        ended = sum(pool.map(caller, range(callers)), start=Counter[Outcome]())
    return ended, time.perf_counter() - began


class Served:
    """One server's model, as a caller that never tries twice sees it."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model

    def paint_s(self, picture: bytes) -> float:
        """Paint without a deadline. Returns the seconds it took."""
        began = time.perf_counter()
        self._client.paint(picture, model=self._model, timeout_s=None)
        return time.perf_counter() - began

    def ask(self, picture: bytes, *, timeout_s: float) -> Outcome:
        """Paint within `timeout_s`. Any failure that has nothing to do with time is raised."""
        try:
            self._client.paint(picture, model=self._model, timeout_s=timeout_s)
        except RequestTimeout:
            return Outcome.TOO_LATE
        except Overloaded:
            return Outcome.REFUSED
        return Outcome.IN_TIME

    def painted(self) -> int:
        """How many pictures the model's generator has painted so far."""
        return sum(one.inferences for one in self._client.stats(f"{self._model}_generator"))


def measure_capacity(served: Served, pictures: Sequence[bytes], *, callers: int, calls: int) -> Capacity:
    """Latency of one caller, then latency and throughput of `callers`, after a warm-up."""
    cycle = [pictures[number % len(pictures)] for number in range(calls)]
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(served.paint_s, cycle[:callers]))
        alone = [served.paint_s(picture) for picture in cycle]
        began = time.perf_counter()
        busy = list(pool.map(served.paint_s, cycle * 4))
        took_s = time.perf_counter() - began
    return Capacity(median(alone), len(busy) / took_s, median(busy))


def run_round(served: Served, pictures: Sequence[bytes], *, callers: int, seconds: float, timeout_s: float) -> Round:
    """Overload one server for a while, then wait until its queue is empty."""
    before = served.painted()
    outcomes, took_s = call_for(
        partial(served.ask, timeout_s=timeout_s), pictures, callers=callers, seconds=seconds, spread_s=timeout_s
    )
    backlog_s = served.paint_s(pictures[0])
    return Round(outcomes, served.painted() - before - 1, took_s, backlog_s)


def alternate(sides: Mapping[str, Callable[[], Round]], *, rounds: int) -> dict[str, list[Round]]:
    """`rounds` rounds of each side in turn; who goes first alternates."""
    found: dict[str, list[Round]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 1):
            found[name].append(sides[name]())
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Start two servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, default=Path("examples/sketches/shoes"), help="drawings to send (PNG)")
    parser.add_argument("--model", default="shoes", help="painter to call (default: %(default)s)")
    parser.add_argument("--callers", type=whole_number, default=24, help="callers at once (default: %(default)s)")
    parser.add_argument(
        *("--deadline-factors", "-f"),
        type=float,
        nargs="+",
        default=[6.0, 9.0, 12.0],
        help="deadlines, as multiples of one caller's latency (default: 6 9 12)",
    )
    parser.add_argument(
        "--rounds", type=whole_number, default=4, help="rounds of each server and deadline (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=whole_number, default=8, help="seconds a round (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(words)
    pictures = [path.read_bytes() for path in sorted(arguments.pictures.glob("*.png"))]
    if not pictures:
        parser.error(f"there is no PNG in `{arguments.pictures}`")

    with ExitStack() as stack:
        servers = {}
        for name, refuse_expired in (("refuses", True), ("paints on", False)):
            config = ServerConfig(
                (arguments.repository,), http_port=0, grpc_port=0, metrics_port=0, refuse_expired=refuse_expired
            )
            server = stack.enter_context(TritonServer(config))
            client = stack.enter_context(Client(server.endpoints.grpc_url, retry=NEVER))
            servers[name] = Served(client, arguments.model)
        factors = " ".join(f"{factor:g}" for factor in arguments.deadline_factors)
        run = describe_run(
            f"python -m sketchbridge_loadtest.overload --model {arguments.model} --callers {arguments.callers} "
            f"--deadline-factors {factors} --rounds {arguments.rounds} --seconds {arguments.seconds}"
        )
        sys.stderr.write("measuring the capacity ...\n")
        for served in servers.values():  # each is warm then
            capacity = measure_capacity(served, pictures, callers=arguments.callers, calls=40)
        found = []
        for factor in arguments.deadline_factors:
            timeout_s = factor * capacity.alone_s
            sys.stderr.write(f"overloading, deadline {1000 * timeout_s:.0f} ms ...\n")
            settings = {"callers": arguments.callers, "seconds": arguments.seconds, "timeout_s": timeout_s}
            runs = {name: partial(run_round, one, pictures, **settings) for name, one in servers.items()}
            rounds = alternate(runs, rounds=arguments.rounds)
            found.append(Overload(timeout_s, {name: summarise(some) for name, some in rounds.items()}))
    if arguments.json:
        record = {
            "run": run,
            "capacity": dataclasses.asdict(capacity),
            "overloads": [dataclasses.asdict(one) for one in found],
        }
        print(json.dumps(record, indent=2))
    else:
        print(as_text(run, capacity, found))
    return 0


def as_text(run: str, capacity: Capacity, overloads: Sequence[Overload]) -> str:
    """Everything measured, for a person: a Markdown table."""
    lines = [
        run,
        "",
        f"One caller alone waits {1000 * capacity.alone_s:.0f} ms; all callers without a deadline "
        f"{1000 * capacity.busy_s:.0f} ms, at {capacity.per_s:.1f} pictures/s.",
        "",
        "| deadline ms | server | in time, pictures/s (least to most) | of all calls | painted too late | backlog s |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {1000 * overload.timeout_s:.0f} | {name} "
        f"| {side.goodput:.2f} ({side.least_goodput:.2f} to {side.most_goodput:.2f}) "
        f"| {side.in_time:.0%} | {side.wasted:.0%} | {side.backlog_s:.1f} |"
        for overload in overloads
        for name, side in overload.sides.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
