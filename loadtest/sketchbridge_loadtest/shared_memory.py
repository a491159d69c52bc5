"""What Triton's system shared memory would bring a caller on the same host: it against plain gRPC, with tritonclient.

    python -m sketchbridge_loadtest.shared_memory
    python -m sketchbridge_loadtest.shared_memory --calls 40 --rounds 5 --json

A real Triton serves models that do nothing. Each call is made in three ways, which take turns: "plain" sends what the
caller has in the request; "copied" copies it into a region that was registered once, and copies the answer out of one
where the answer is pixels; "in place" has it lie in the region already and leaves the answer there, which no caller
with a file in hand can do, so it is the most that could be won. A BYTES tensor in a region has its length before it, as
on the wire. An answer that is a file comes in the response: its size is not known before.

A server that `sketchbridge serve` starts refuses to register regions to all who do not send its key; this one runs as
a child of the script, which reads the key off its command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from sketchbridge_loadtest.cheap_server import (
    LARGE_HEIGHT,
    LARGE_WIDTH,
    PAINTER,
    CheapModel,
    cheap_server,
    large_array,
    large_photo,
    small_sketch,
)
from sketchbridge_loadtest.interleaving import Block, Spread, describe_run, interleave, spread, whole_number
from sketchbridge_server import TritonServer

PLAIN, COPIED, IN_PLACE = "plain", "copied", "in place"
KEY_HEADER = "triton-grpc-protocol-sketchbridge-key"
LARGE_PIXELS = CheapModel("large_pixels", "TYPE_UINT8", (LARGE_HEIGHT, LARGE_WIDTH, 3), "TYPE_UINT8", (1,))
GENERATOR = CheapModel("generator", "TYPE_UINT8", (256, 256, 3), "TYPE_UINT8", (256, 256, 3))
_LENGTH_BYTES = 4  # before each element of BYTES
_FEWER_LARGE = 8  # what is large takes that much longer

Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One kind of call. given: the bytes of a file, or uint8 (H, W, 3) pixels. large: whether it gets fewer calls."""

    name: str
    model: CheapModel
    given: bytes | NDArray[np.uint8]
    large: bool = False

    @property
    def size_bytes(self) -> int:
        """Of what is sent."""
        return len(self.given) if isinstance(self.given, bytes) else self.given.nbytes


@dataclass(frozen=True)
class Gain:
    """What shared memory brings to one kind of call.

    plain_ms: p50, median over rounds. copied, in_place: p50 of that way over that of plain; below 1 it is faster.
    """

    case: str
    size_bytes: int
    plain_ms: float
    copied: Spread
    in_place: Spread


def cases() -> list[Case]:
    """The calls to measure."""
    small, large = small_sketch(), large_photo()
    pixels = large_array()
    return [
        Case("sketch file in, PNG out", PAINTER, small),
        Case("4K photo file in, PNG out", PAINTER, large, large=True),
        Case("4K pixels in, one byte out", LARGE_PIXELS, pixels, large=True),
        Case("generator: 256x256 pixels in and out", GENERATOR, np.ascontiguousarray(pixels[:256, :256])),
    ]


def key_of(server: TritonServer) -> str:
    """What the server wants in KEY_HEADER from who registers memory, off its command line."""
    words = Path(f"/proc/{server.process_id}/cmdline").read_bytes().decode().split("\0")
    (restricted,) = (word for word in words if word.startswith("--grpc-restricted-protocol="))
    return restricted.rpartition("sketchbridge-key=")[2]


@contextmanager
def shared_region(client: Any, name: str, size_bytes: int, key: str) -> Iterator[SharedMemory]:
    """Shared memory that the server knows under `name`; gone from both sides afterwards."""
    memory = SharedMemory(create=True, size=size_bytes)
    headers = {KEY_HEADER: key}
    try:
        client.register_system_shared_memory(name, f"/{memory.name}", size_bytes, headers=headers)
        try:
            yield memory
        finally:
            client.unregister_system_shared_memory(name, headers=headers)
    finally:
        memory.close()
        memory.unlink()


@contextmanager
def ways(client: Any, case: Case, key: str) -> Iterator[Ways]:
    """The three ways of making one call; each returns the answer, uint8 (1, ...) or the bytes of a file.

    The answer of "in place" lies in the region: let go of it before leaving.
    """
    with ExitStack() as stack:
        if isinstance(case.given, bytes):
            memory = stack.enter_context(shared_region(client, "given", _LENGTH_BYTES + len(case.given), key))
            yield _ways_of_file(client, case.model.name, case.given, memory)
        else:
            shape = (1, *case.model.output_shape)
            given = stack.enter_context(shared_region(client, "given", case.given.nbytes, key))
            answer = stack.enter_context(shared_region(client, "answer", int(np.prod(shape)), key))
            yield _ways_of_pixels(client, case.model.name, case.given[None], shape, given, answer)


def _ways_of_file(client: Any, model: str, data: bytes, given: SharedMemory) -> Ways:
    size_bytes = _LENGTH_BYTES + len(data)

    def plain() -> bytes:
        tensor = tritonclient.grpc.InferInput("sketch", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[data]], dtype=np.object_))
        return _file(client.infer(model, [tensor]))

    def in_place() -> bytes:
        tensor = tritonclient.grpc.InferInput("sketch", [1, 1], "BYTES")
        tensor.set_shared_memory("given", size_bytes)
        return _file(client.infer(model, [tensor]))

    def copied() -> bytes:
        region: NDArray[np.uint8] = np.ndarray((size_bytes,), np.uint8, buffer=given.buf)
        region[:_LENGTH_BYTES] = np.frombuffer(len(data).to_bytes(_LENGTH_BYTES, "little"), np.uint8)
        region[_LENGTH_BYTES:] = np.frombuffer(data, np.uint8)
        return in_place()

    copied()  # from here on it is in place
    return {PLAIN: plain, COPIED: copied, IN_PLACE: in_place}


def _file(result: Any) -> bytes:
    photo: bytes = result.as_numpy("photo").item()
    return photo


def _ways_of_pixels(
    client: Any,
    model: str,
    pixels: NDArray[np.uint8],  # (1, H, W, 3)
    answer_shape: tuple[int, ...],
    given: SharedMemory,
    answer: SharedMemory,
) -> Ways:
    def plain() -> NDArray[np.uint8]:
        tensor = tritonclient.grpc.InferInput("sketch", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels)
        answered: NDArray[np.uint8] = client.infer(model, [tensor]).as_numpy("photo")
        return answered

    def in_place() -> NDArray[np.uint8]:
        tensor = tritonclient.grpc.InferInput("sketch", list(pixels.shape), "UINT8")
        tensor.set_shared_memory("given", pixels.nbytes)
        output = tritonclient.grpc.InferRequestedOutput("photo")
        output.set_shared_memory("answer", int(np.prod(answer_shape)))
        client.infer(model, [tensor], outputs=[output])
        return np.ndarray(answer_shape, np.uint8, buffer=answer.buf)

    def copied() -> NDArray[np.uint8]:
        np.ndarray(pixels.shape, np.uint8, buffer=given.buf)[:] = pixels
        return in_place().copy()

    copied()
    return {PLAIN: plain, COPIED: copied, IN_PLACE: in_place}


def measure(found: Ways, case: Case, *, calls: int, rounds: int) -> Gain:
    """What shared memory brings to one kind of call, at one caller."""
    blocks = {name: partial(_block, call, calls) for name, call in found.items()}
    for block in blocks.values():  # warm
        block()
    done = interleave(blocks, rounds=rounds)

    def over_plain(name: str) -> Spread:
        return spread([one.p50_ms / plain.p50_ms for one, plain in zip(done[name], done[PLAIN], strict=True)])

    return Gain(
        case=case.name,
        size_bytes=case.size_bytes,
        plain_ms=median([one.p50_ms for one in done[PLAIN]]),
        copied=over_plain(COPIED),
        in_place=over_plain(IN_PLACE),
    )


def _block(call: Callable[[], object], calls: int) -> Block:
    latencies_s = []
    cpu_began = time.process_time()
    for _ in range(calls):
        began = time.perf_counter()
        call()
        latencies_s.append(time.perf_counter() - began)
    return Block(tuple(latencies_s), sum(latencies_s), time.process_time() - cpu_began)


def main(words: Sequence[str] | None = None) -> int:
    """Start a server of its own, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=whole_number, default=80, help="calls a block (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=12, help="rounds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(words)
    command = f"python -m sketchbridge_loadtest.shared_memory --calls {arguments.calls} --rounds {arguments.rounds}"
    gains = []
    with cheap_server([PAINTER, LARGE_PIXELS, GENERATOR]) as server:
        key = key_of(server)
        with tritonclient.grpc.InferenceServerClient(server.endpoints.grpc_url) as client:
            for case in cases():
                sys.stderr.write(f"measuring: {case.name} ...\n")
                calls = -(-arguments.calls // _FEWER_LARGE) if case.large else arguments.calls
                with ways(client, case, key) as found:
                    gains.append(measure(found, case, calls=calls, rounds=arguments.rounds))
    run = describe_run(command)
    if arguments.json:
        print(json.dumps({"run": run, "gains": [dataclasses.asdict(one) for one in gains]}, indent=2))
    else:
        print(as_text(gains, run))
    return 0


def as_text(gains: Sequence[Gain], run: str) -> str:
    """Everything measured, for a person: a Markdown table."""
    lines = [
        run,
        "",
        "One caller's p50 over that of plain gRPC, below 1 is faster; medians over rounds, quartiles in brackets.",
        "",
        "| call | bytes sent | plain p50 ms | copied / plain | in place / plain |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.case} | {one.size_bytes:,} | {one.plain_ms:.3f} | {one.copied} | {one.in_place} |" for one in gains
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
