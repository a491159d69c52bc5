"""What the SDK's default settings make of faults: callers of a real server, with a proxy between them that does harm.

Each scenario keeps callers busy while something breaks, and counts: calls that failed though they could have been
answered within their deadline, answers that were not those of their request, and how long calls outlived their
deadline.
What a thread that only sleeps oversleeps in the same run is printed beside it: no call can be more punctual than that.

python -m sketchbridge_loadtest.faults
python -m sketchbridge_loadtest.faults --client asyncio --protocol http --only black-hole restart
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_client import AsyncClient, Client, Picture, SketchbridgeError
from sketchbridge_loadtest.cheap_server import CheapModel, small_answer, write_model
from sketchbridge_loadtest.fault_proxy import (
    BlackHole,
    CutAfter,
    Drip,
    Ending,
    Fault,
    HalfOpen,
    PassThrough,
    Refuse,
    ResetStorm,
    Side,
)
from sketchbridge_loadtest.fault_proxy_process import FaultProxyProcess
from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_server import ServerConfig, TritonServer
from sketchbridge_server.stubs import find_stubs

if TYPE_CHECKING:
    from typing_extensions import Self

PAINTER = CheapModel("shoes", echoes=True)
PICTURE_BYTES = 20_000
SHORT_TIMEOUT_S = 0.3
PATIENCE_S = 120.0
CUTS = (0, 9, 100, 1_000, 5_000, 20_000, 100_000)  # bytes into the connection
PAUSE_AFTER_S = 1.0  # how long the callers go on once the fault is over


@dataclass
class Tally:
    """What the callers saw. Threads share it."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    strange: int = 0  # answers that were not those of the request
    tried_again: int = 0
    overruns_s: list[float] = field(default_factory=list)
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self, sent: bytes, timeout_s: float) -> Iterator[list[Picture]]:
        """Count one call, which leaves its picture in the list that this yields."""
        painted: list[Picture] = []
        failure = ""
        started = time.perf_counter()
        try:
            yield painted
        except SketchbridgeError as exc:
            failure = f"{type(exc).__name__}: {exc}"
        elapsed_s = time.perf_counter() - started
        with self.lock:
            self.calls += 1
            self.slowest_s = max(self.slowest_s, elapsed_s)
            self.overruns_s.append(elapsed_s - timeout_s)
            self.failures += [failure] if failure else []
            self.tried_again += any(one.timings.attempts > 1 for one in painted)
            self.strange += not failure and [one.bytes for one in painted] != [sent]


@dataclass(frozen=True)
class Bench:
    """Two servers, each behind a proxy. The second one is asked only in scenarios with two addresses."""

    repository: Path
    servers: list[TritonServer]
    proxies: list[FaultProxyProcess]
    protocol: str

    def upstream(self, index: int) -> str:
        """Where a server answers now."""
        endpoints = self.servers[index].endpoints
        return f"{endpoints.host}:{endpoints.grpc_port if self.protocol == 'grpc' else endpoints.http_port}"

    def hurt(self, fault: Fault, seconds: float, *, index: int = 0) -> None:
        """Let a proxy do harm for so long, and then let what it has swallowed go."""
        proxy = self.proxies[index]
        proxy.inject(fault)
        time.sleep(seconds)
        proxy.inject(PassThrough())
        proxy.cut_all(Ending.RST)

    def cut_often(self, side: Side, counts: Sequence[int]) -> None:
        """Cut connections after so many bytes, again and again."""
        for count, ending in itertools.product(counts, Ending):
            self.proxies[0].inject(CutAfter(side, count, ending))
            time.sleep(0.1)
        self.proxies[0].inject(PassThrough())

    def kill(self, index: int = 0) -> None:
        """SIGKILL to the whole server, as the kernel does when memory is short; then start it again."""
        os.kill(self.servers[index].process_id, signal.SIGKILL)
        self.restart(index)

    def stop(self, index: int = 0, away_s: float = 0.0) -> None:
        """SIGTERM, wait until it has stopped, stay away, start it again."""
        self.servers[index].stop()
        self.proxies[index].inject(Refuse())
        time.sleep(away_s)
        self.restart(index)

    def restart(self, index: int) -> None:
        """Start a server anew."""
        self.servers[index].stop(grace_period_s=0)
        self.servers[index].start()
        self.servers[index].wait_until_ready()
        self.proxies[index].lead_to(self.upstream(index))
        self.proxies[index].inject(PassThrough())
        self.proxies[index].cut_all(Ending.RST)

    def kill_stub(self, index: int = 0) -> None:
        """Kill the Python process of the model; the server goes on without it until it is started again."""
        for stub in find_stubs(self.servers[index].process_id):
            os.kill(stub, signal.SIGKILL)
        time.sleep(2)
        self.restart(index)


@dataclass(frozen=True)
class Scenario:
    """One fault. timeout_s: of each call. addresses: of how many servers the client is told. callers: at a time.

    answerable: every call could be answered within its deadline, so that none may fail.
    """

    name: str
    what: str
    harm: Callable[[Bench], None]
    timeout_s: float = 30.0
    addresses: int = 1
    callers: int = 16
    answerable: bool = True


SCENARIOS = (
    Scenario("cut-request", "connections cut in the middle of a request", lambda b: b.cut_often(Side.CLIENT, CUTS)),
    Scenario("cut-answer", "connections cut in the middle of an answer", lambda b: b.cut_often(Side.SERVER, CUTS)),
    Scenario("reset-storm", "new connections reset for 3 s", lambda b: _storm(b, 3)),
    Scenario("refused", "the port closed for 3 s", lambda b: _dead(b, 3)),
    Scenario("black-hole", "everything swallowed for 6 s, then reset", lambda b: b.hurt(BlackHole(), 6)),
    Scenario("black-hole-1-of-2", "one of two servers silent for 12 s", lambda b: b.hurt(BlackHole(), 12), addresses=2),
    Scenario("half-open", "answers swallowed for 6 s, then reset", lambda b: b.hurt(HalfOpen(Side.SERVER), 6)),
    Scenario("half-open-requests", "requests swallowed for 6 s", lambda b: b.hurt(HalfOpen(Side.CLIENT), 6)),
    Scenario("drip", "20 kB/s for 5 s", lambda b: b.hurt(Drip(20_000), 5)),
    Scenario("sigkill", "server killed and started again", lambda b: b.kill()),
    Scenario("sigterm", "server stopped in order under load, and started again", lambda b: b.stop()),
    Scenario("stub", "process of the model killed, server started again", lambda b: b.kill_stub()),
    Scenario("1-of-2-down", "one of two servers stopped, 3 s away, back", lambda b: b.stop(away_s=3), addresses=2),
    Scenario("stub-1-of-2", "process of the model killed at one of two", lambda b: b.kill_stub(), addresses=2),
    Scenario(
        "deadline-black-hole",
        "everything swallowed for good",
        lambda b: _forever(b, BlackHole()),
        timeout_s=SHORT_TIMEOUT_S,
        callers=64,
        answerable=False,
    ),
    Scenario(
        "deadline-drip",
        "200 bytes/s for good",
        lambda b: _forever(b, Drip(200)),
        timeout_s=SHORT_TIMEOUT_S,
        callers=64,
        answerable=False,
    ),
    Scenario(
        "deadline-refused",
        "the port closed for good",
        lambda b: _forever(b, Refuse()),
        timeout_s=SHORT_TIMEOUT_S,
        callers=64,
        answerable=False,
    ),
)


def _storm(bench: Bench, seconds: float) -> None:
    bench.proxies[0].inject(ResetStorm())
    bench.proxies[0].cut_all(Ending.RST)
    time.sleep(seconds)
    bench.proxies[0].inject(PassThrough())


def _dead(bench: Bench, seconds: float) -> None:
    bench.proxies[0].inject(Refuse())
    bench.proxies[0].cut_all(Ending.FIN)
    time.sleep(seconds)
    bench.proxies[0].inject(PassThrough())


def _forever(bench: Bench, fault: Fault) -> None:
    bench.proxies[0].inject(fault)
    if isinstance(fault, Refuse):
        bench.proxies[0].cut_all(Ending.FIN)


@contextmanager
def bench(protocol: str) -> Iterator[Bench]:
    """Two servers over one repository, and their proxies."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sketchbridge-faults-")))
        write_model(PAINTER, folder)
        config = ServerConfig(repositories=(folder,), http_port=0, grpc_port=0, metrics_port=0, grace_period_s=2)
        servers = [stack.enter_context(TritonServer(config)) for _ in range(2)]
        made = Bench(folder, servers, [], protocol)
        made.proxies.extend(stack.enter_context(FaultProxyProcess(made.upstream(index))) for index in range(2))
        yield made


def picture(number: int) -> bytes:
    """A PNG of its own for each number; what follows the end of one is ignored."""
    return small_answer() + number.to_bytes(8, "little") * (PICTURE_BYTES // 8)


def run_blocking(scenario: Scenario, bench: Bench, urls: list[str], calls: int) -> Tally:
    """Callers in threads that share a Client."""
    tally, numbers, over = Tally(), itertools.count(), threading.Event()

    def call_on() -> None:
        while not over.is_set() or tally.calls < calls:
            sent = picture(next(numbers))
            with tally.counted(sent, scenario.timeout_s) as painted:
                painted.append(client.paint(sent, timeout_s=scenario.timeout_s))

    with Client(urls) as client, ThreadPoolExecutor(scenario.callers) as pool:
        client.paint(picture(0))
        callers = [pool.submit(call_on) for _ in range(scenario.callers)]
        try:
            _do_harm(scenario, bench)
        finally:
            over.set()
        for caller in callers:
            caller.result(PATIENCE_S)
    return tally


async def run_asyncio(scenario: Scenario, bench: Bench, urls: list[str], calls: int) -> Tally:
    """Callers in tasks that share an AsyncClient."""
    tally, numbers, over = Tally(), itertools.count(), threading.Event()

    async def call_on() -> None:
        while not over.is_set() or tally.calls < calls:
            sent = picture(next(numbers))
            with tally.counted(sent, scenario.timeout_s) as painted:
                painted.append(await client.paint(sent, timeout_s=scenario.timeout_s))

    async with AsyncClient(urls) as client:
        await client.paint(picture(0))
        callers = [asyncio.create_task(call_on()) for _ in range(scenario.callers)]
        try:
            await asyncio.to_thread(_do_harm, scenario, bench)
        finally:
            over.set()
        await asyncio.wait_for(asyncio.gather(*callers), PATIENCE_S)
    return tally


def _do_harm(scenario: Scenario, bench: Bench) -> None:
    time.sleep(0.3)
    scenario.harm(bench)
    time.sleep(PAUSE_AFTER_S)


class Sleeper:
    """A thread that does nothing but sleep, and notes how much longer it slept than it meant to."""

    def __init__(self) -> None:
        self.overslept_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sleep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sleep(self) -> None:
        while not self._over.is_set():
            started = time.perf_counter()
            time.sleep(0.01)
            self.overslept_s = max(self.overslept_s, time.perf_counter() - started - 0.01)


def measure(scenario: Scenario, bench: Bench, *, client: str, calls: int) -> tuple[Tally, float]:
    """Run one scenario; what its callers saw, and what the sleeper overslept, in seconds."""
    scheme = "http://" if bench.protocol == "http" else ""
    urls = [f"{scheme}{proxy.url}" for proxy in bench.proxies[: scenario.addresses]]
    with Sleeper() as sleeper:
        if client == "blocking":
            tally = run_blocking(scenario, bench, urls, calls)
        else:
            tally = asyncio.run(run_asyncio(scenario, bench, urls, calls))
    for proxy in bench.proxies:
        proxy.inject(PassThrough())
        proxy.cut_all(Ending.RST)
    return tally, sleeper.overslept_s


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios and print a table. Returns 1 if a promise was broken."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000, help="in each scenario, at least (default: %(default)s)")
    parser.add_argument("--client", choices=["blocking", "asyncio"], default="blocking", help="default: %(default)s")
    parser.add_argument("--protocol", choices=["grpc", "http"], default="grpc", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args(argv)
    print(f"{describe_machine()}\npython -m sketchbridge_loadtest.faults {' '.join(argv or sys.argv[1:])}".rstrip())
    print(
        "\n| scenario | calls | failed that could have been answered | answers of another request | tried again | "
        "slowest s | outlived deadline by ms | a sleeper overslept ms |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    broken = False
    with bench(arguments.protocol) as made:
        for scenario in SCENARIOS:
            if scenario.name not in arguments.only:
                continue
            tally, overslept_s = measure(scenario, made, client=arguments.client, calls=arguments.calls)
            failed = len(tally.failures) if scenario.answerable else 0
            overrun_ms = max(0.0, 1000 * max(tally.overruns_s))
            print(
                f"| {scenario.name}: {scenario.what} | {tally.calls} | {failed} | {tally.strange} | "
                f"{tally.tried_again} | {tally.slowest_s:.2f} | {overrun_ms:.0f} | {1000 * overslept_s:.0f} |",
                flush=True,
            )
            for failure in sorted(set(tally.failures))[: 3 if scenario.answerable else 0]:
                sys.stderr.write(f"  {failure}\n")
            broken = broken or failed > 0 or tally.strange > 0 or overrun_ms > 50 + 1000 * overslept_s
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
