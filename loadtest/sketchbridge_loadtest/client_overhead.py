"""What the SDK costs a caller: `paint` of a picture's bytes against the same call made with bare tritonclient.

    python -m sketchbridge_loadtest.client_overhead
    python -m sketchbridge_loadtest.client_overhead --protocol http --client asyncio --calls 100 --rounds 5 --json

A real Triton serves a painter that does nothing, so that the way there and back is all that a call takes. It is
measured with a sketch of 1 KB and with a 4K photo of some MB, which gets an eighth of the calls: the time of one
caller's calls, and the throughput of eight callers (threads, or tasks of one event loop). A third way is tritonclient
told what the SDK tells the server with each call: a deadline, an id, a trace and the outputs that are wanted. All run
in this process and take turns, A B C C B A; read the differences and the ratios, not the milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Protocol

import numpy as np

from sketchbridge_client import AsyncClient, Client
from sketchbridge_client.core import DEFAULT_TIMEOUT_S
from sketchbridge_loadtest.cheap_server import ECHO, PAINTER, cheap_server, large_photo, small_sketch
from sketchbridge_loadtest.interleaving import (
    Block,
    Call,
    Round,
    Spread,
    Threads,
    describe_run,
    interleave,
    share,
    spread,
    whole_number,
)

AsyncCall = Callable[[bytes], Awaitable[bytes]]

MOST_ADDED_MS = 0.3
LEAST_RATIO = 0.95
CALLERS = 8
_FEWER_LARGE = 8  # a large picture takes that much longer
_OURS, _BARE, _TOLD = "ours", "bare", "bare, told as much"


@dataclass(frozen=True)
class Cost:
    """What the SDK costs with one picture.

    added_ms: p50 of one caller's calls, ours less bare. ours_ms, bare_ms: those p50, medians over rounds. ratio: ours
    over bare throughput with CALLERS callers. told_ratio: the same over bare calls that tell the server as much.
    ours_per_s, bare_per_s: those throughputs, medians over rounds. ours_cpu_ms, bare_cpu_ms: processor time of this
    process a call, with CALLERS callers; other programs disturb it least.
    """

    picture: str
    size_bytes: int
    added_ms: Spread
    ours_ms: float
    bare_ms: float
    ratio: Spread
    told_ratio: Spread
    ours_per_s: float
    bare_per_s: float
    ours_cpu_ms: float
    bare_cpu_ms: float

    @property
    def verdict(self) -> str:
        """Whether both targets are met, or which are not."""
        missed = [
            *(["added p50"] if self.added_ms.median > MOST_ADDED_MS else []),
            *(["throughput"] if self.ratio.median < LEAST_RATIO else []),
        ]
        return f"missed: {', '.join(missed)}" if missed else "met"


class Way(Protocol):
    """One way of calling, with however many callers at once."""

    def once(self, data: bytes) -> bytes:
        """One call: what it answers."""
        ...

    def block(self, data: bytes, *, callers: int, calls: int) -> Block:
        """At least `calls` calls, the same number by each caller."""
        ...


class Tasks:
    """Calls by tasks of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: AsyncCall) -> None:
        self._loop = loop
        self._call = call

    def once(self, data: bytes) -> bytes:
        """As of Way."""

        async def call() -> bytes:
            return await self._call(data)

        return self._loop.run_until_complete(call())

    def block(self, data: bytes, *, callers: int, calls: int) -> Block:
        """As of Way."""
        return self._loop.run_until_complete(self._block(data, callers, calls))

    async def _block(self, data: bytes, callers: int, calls: int) -> Block:
        began, cpu_began = time.perf_counter(), time.process_time()
        shares = await asyncio.gather(*(self._caller(data, share(calls, callers)) for _ in range(callers)))
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return Block(tuple(latency_s for one in shares for latency_s in one), took_s, cpu_s)

    async def _caller(self, data: bytes, calls: int) -> list[float]:
        latencies_s = []
        for _ in range(calls):
            began = time.perf_counter()
            await self._call(data)
            latencies_s.append(time.perf_counter() - began)
        return latencies_s


class BareTriton:
    """The call as one writes it with tritonclient. Over HTTP each thread has a client of its own, as it must.

    tells: whether it tells the server what the SDK does.
    """

    def __init__(self, url: str, protocol: str, model: str, *, tells: bool) -> None:
        self._module = importlib.import_module(f"tritonclient.{protocol}")
        self._address = _address(url)
        self._model = model
        self._options = partial(_told, self._module) if tells else dict
        self._own = threading.local()
        self._shared = self._connect() if protocol == "grpc" else None

    def call(self, data: bytes) -> bytes:
        """Paint."""
        client = self._shared or getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = self._connect()
        return _bare_answer(client.infer(self._model, [_bare_input(self._module, data)], **self._options()))

    def close(self) -> None:
        """Hang up; those of threads hang up as their threads end."""
        if self._shared is not None:
            self._shared.close()

    def _connect(self) -> Any:
        return self._module.InferenceServerClient(self._address)


@contextmanager
def ways(url: str, protocol: str, client: str, model: str) -> Iterator[dict[str, Way]]:
    """The ways of calling a model, connected. client: "blocking" or "asyncio"."""
    with ExitStack() as stack:
        if client == "blocking":
            ours = stack.enter_context(Client(url))
            calls: dict[str, Call] = {_OURS: lambda data: ours.paint(data, model=model).bytes}
            for name, tells in ((_BARE, False), (_TOLD, True)):
                calls[name] = stack.enter_context(closing(BareTriton(url, protocol, model, tells=tells))).call
            yield {name: stack.enter_context(closing(Threads(call, most=CALLERS))) for name, call in calls.items()}
            return
        loop = stack.enter_context(closing(asyncio.new_event_loop()))
        connections = AsyncExitStack()
        stack.callback(lambda: loop.run_until_complete(connections.aclose()))
        async_calls = loop.run_until_complete(_connect(connections, url, protocol, model))
        yield {name: Tasks(loop, call) for name, call in async_calls.items()}


async def _connect(connections: AsyncExitStack, url: str, protocol: str, model: str) -> dict[str, AsyncCall]:
    """The ways in the running event loop; `connections` hangs up."""
    module = importlib.import_module(f"tritonclient.{protocol}.aio")
    ours = await connections.enter_async_context(AsyncClient(url))
    bare = await connections.enter_async_context(module.InferenceServerClient(_address(url)))

    async def paint(data: bytes) -> bytes:
        return (await ours.paint(data, model=model)).bytes

    async def paint_bare(data: bytes) -> bytes:
        return _bare_answer(await bare.infer(model, [_bare_input(module, data)]))

    async def paint_told(data: bytes) -> bytes:
        return _bare_answer(await bare.infer(model, [_bare_input(module, data)], **_told(module)))

    return {_OURS: paint, _BARE: paint_bare, _TOLD: paint_told}


def _address(url: str) -> str:
    return url.removeprefix("http://")


def _bare_input(module: Any, data: bytes) -> Any:
    tensor = module.InferInput("sketch", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[data]], dtype=np.object_))
    return tensor


def _told(module: Any) -> dict[str, Any]:
    """What the SDK tells the server with each call, as options of tritonclient's `infer`."""
    request_id = uuid.uuid4().hex
    told = {
        "outputs": [module.InferRequestedOutput(name) for name in ("photo", "timings")],
        "request_id": request_id,
        "timeout": round(1e6 * DEFAULT_TIMEOUT_S),
        "headers": {"traceparent": f"00-{request_id}-{request_id[16:]}-00"},
    }
    return {**told, "client_timeout": DEFAULT_TIMEOUT_S} if "grpc" in module.__name__ else told  # HTTP's has none


def _bare_answer(result: Any) -> bytes:
    photo: bytes = result.as_numpy("photo").item()
    return photo


def check_same(sides: Mapping[str, Way], pictures: Mapping[str, bytes]) -> None:
    """Raise ValueError unless all bytes of each picture come back both ways. sides: of a model that echoes."""
    for name, data in pictures.items():
        for side, way in sides.items():
            came = way.once(data)
            if came != data:
                raise ValueError(f"{side}: {len(data):,} bytes of the {name} were sent, and {len(came):,} others came.")


def measure(sides: Mapping[str, Way], picture: str, data: bytes, *, calls: int, rounds: int) -> Cost:
    """What the SDK costs with one picture."""

    def rounds_of(callers: int) -> dict[str, list[Round]]:
        blocks = {side: partial(way.block, data, callers=callers, calls=calls) for side, way in sides.items()}
        for block in blocks.values():  # warm
            block()
        return interleave(blocks, rounds=rounds)

    alone, together = rounds_of(1), rounds_of(CALLERS)
    ours, bare = alone[_OURS], alone[_BARE]
    ours_together, bare_together = together[_OURS], together[_BARE]

    def ratio_to(other: str) -> Spread:
        return spread([one.per_s / than.per_s for one, than in zip(ours_together, together[other], strict=True)])

    return Cost(
        picture=picture,
        size_bytes=len(data),
        added_ms=spread([one.p50_ms - other.p50_ms for one, other in zip(ours, bare, strict=True)]),
        ours_ms=median([one.p50_ms for one in ours]),
        bare_ms=median([one.p50_ms for one in bare]),
        ratio=ratio_to(_BARE),
        told_ratio=ratio_to(_TOLD),
        ours_per_s=median([one.per_s for one in ours_together]),
        bare_per_s=median([one.per_s for one in bare_together]),
        ours_cpu_ms=median([one.cpu_ms for one in ours_together]),
        bare_cpu_ms=median([one.cpu_ms for one in bare_together]),
    )


def main(words: Sequence[str] | None = None) -> int:
    """Start a server of its own, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=whole_number, default=200, help="calls a block (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=15, help="rounds (default: %(default)s)")
    parser.add_argument("--protocol", choices=["grpc", "http"], default="grpc", help="default: %(default)s")
    parser.add_argument("--client", choices=["blocking", "asyncio"], default="blocking", help="default: %(default)s")
    parser.add_argument("--only", choices=["sketch", "4K photo"], help="one of the pictures (default: both)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(words)
    command = (
        f"python -m sketchbridge_loadtest.client_overhead --calls {arguments.calls} --rounds {arguments.rounds} "
        f"--protocol {arguments.protocol} --client {arguments.client}"
    )
    pictures = {"sketch": small_sketch(), "4K photo": large_photo()}
    if arguments.only:
        command += f" --only {arguments.only!r}"
        pictures = {arguments.only: pictures[arguments.only]}
    calls = {"sketch": arguments.calls, "4K photo": -(-arguments.calls // _FEWER_LARGE)}
    with cheap_server([PAINTER, ECHO]) as server:
        url = server.endpoints.grpc_url if arguments.protocol == "grpc" else server.endpoints.http_url
        with ways(url, arguments.protocol, arguments.client, ECHO.name) as sides:
            check_same(sides, pictures)
        with ways(url, arguments.protocol, arguments.client, PAINTER.name) as sides:
            costs = []
            for picture, data in pictures.items():
                sys.stderr.write(f"measuring the {picture} ...\n")
                costs.append(measure(sides, picture, data, calls=calls[picture], rounds=arguments.rounds))
    run = describe_run(command)
    if arguments.json:
        record = {"run": run, "costs": [{**dataclasses.asdict(one), "verdict": one.verdict} for one in costs]}
        print(json.dumps(record, indent=2))
    else:
        print(as_text(costs, run))
    return 0


def as_text(costs: Sequence[Cost], run: str) -> str:
    """Everything measured, for a person: a Markdown table."""
    lines = [
        run,
        "",
        f"One caller's p50, and the throughput of {CALLERS} callers; medians over rounds, quartiles in brackets.",
        f"Targets: at most {MOST_ADDED_MS} ms added, and a ratio of at least {LEAST_RATIO}.",
        "Each way, every byte of each picture came back from a model that echoes.",
        "Told: over bare calls with a deadline, an id, a trace and the wanted outputs, as the SDK's have.",
        "",
        "| picture | bytes | ours p50 ms | bare p50 ms | added ms | ours / bare calls/s | ratio | ratio, told | "
        "ours / bare cpu ms | targets |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {one.picture} | {one.size_bytes:,} | {one.ours_ms:.3f} | {one.bare_ms:.3f} | {one.added_ms} "
        f"| {one.ours_per_s:.0f} / {one.bare_per_s:.0f} | {one.ratio} | {one.told_ratio} "
        f"| {one.ours_cpu_ms:.2f} / {one.bare_cpu_ms:.2f} | {one.verdict} |"
        for one in costs
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
