"""What serving costs: the pipeline through Triton against the same steps in one process, in one interleaved run.

    python -m sketchbridge_loadtest.overhead
    python -m sketchbridge_loadtest.overhead --callers 1 4 8 --rounds 10 --json

Both sides take the bytes of a drawing and give the bytes of a photo. Rounds alternate, and so does who goes first, so
that a noisy neighbour hits both; read the ratio, not the milliseconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import tritonclient.grpc

from sketchbridge_client import Client
from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_preprocess import RequestOptions, sketch_for_model, to_wire
from sketchbridge_server import ServerConfig, TritonServer
from sketchbridge_server.stubs import find_stubs

Paint = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Figures:
    """One side of a comparison. throughput: pictures a second (median of rounds); p50_ms, p99_ms: of all calls."""

    throughput: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Comparison:
    """Both sides at one number of callers. ratio: served over in-process throughput, median over pairs of rounds."""

    callers: int
    served: Figures
    in_process: Figures
    ratio: float


class InProcess:
    """The pipeline of `<model>` without a server."""

    def __init__(self, repository: Path, model: str) -> None:
        versions = (repository / f"{model}_generator").glob("*/model.onnx")
        newest = max(versions, key=lambda path: int(path.parent.name))
        self._session = onnxruntime.InferenceSession(newest, providers=["CPUExecutionProvider"])
        self.step_s: dict[str, float] = {"decode": 0.0, "generator": 0.0, "encode": 0.0}
        self.calls = 0

    def paint(self, data: bytes) -> bytes:
        """Bytes of a drawing to bytes of a photo; adds up what each step took (one thread at a time only)."""
        options = RequestOptions()
        times = [time.perf_counter()]
        sketch = sketch_for_model(data, options)
        times.append(time.perf_counter())
        photo = self._session.run(["photo"], {"sketch": sketch[None]})[0][0]
        times.append(time.perf_counter())
        answer = to_wire(photo, options)
        times.append(time.perf_counter())
        for name, seconds in zip(self.step_s, np.diff(times), strict=True):
            self.step_s[name] += float(seconds)
        self.calls += 1
        return answer


def run_round(paint: Paint, pictures: Sequence[bytes], *, callers: int, calls: int) -> tuple[float, list[float]]:
    """`calls` calls by `callers` threads. Returns pictures a second and the latency of each call in seconds."""

    def call(number: int) -> float:
        began = time.perf_counter()
        paint(pictures[number % len(pictures)])
        return time.perf_counter() - began

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        latencies = list(pool.map(call, range(calls)))
        return calls / (time.perf_counter() - began), latencies


def compare(
    served: Paint, in_process: Paint, pictures: Sequence[bytes], *, callers: int, rounds: int, calls: int
) -> Comparison:
    """Alternate rounds of both sides; who goes first alternates too."""
    sides = {"served": served, "in_process": in_process}
    throughput: dict[str, list[float]] = {name: [] for name in sides}
    latency_s: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 0):
            rate, latencies = run_round(sides[name], pictures, callers=callers, calls=calls)
            throughput[name].append(rate)
            latency_s[name] += latencies
    figures = {
        name: Figures(
            throughput=float(np.median(throughput[name])),
            p50_ms=1000 * float(np.percentile(latency_s[name], 50)),
            p99_ms=1000 * float(np.percentile(latency_s[name], 99)),
        )
        for name in sides
    }
    ratio = float(np.median(np.divide(throughput["served"], throughput["in_process"])))
    return Comparison(callers, figures["served"], figures["in_process"], ratio)


@dataclass(frozen=True)
class StepCost:
    """Mean milliseconds a picture of one step at one caller.

    in_process: the function alone. queue: waiting in Triton. compute: what Triton counts for the step, transfer of its
    tensors to and from the step's process included.
    """

    step: str
    in_process_ms: float
    queue_ms: float
    compute_ms: float


def served_steps(grpc_url: str, model: str) -> dict[str, tuple[int, int, int]]:
    """Of each step: pictures so far, nanoseconds in the queue, nanoseconds computing (input and output included)."""
    names = {"decode": "decode", "generator": f"{model}_generator", "encode": "encode"}
    totals = {}
    with tritonclient.grpc.InferenceServerClient(grpc_url) as raw:
        for step, name in names.items():
            statistics = raw.get_inference_statistics(name).model_stats[0].inference_stats
            computing = (statistics.compute_input, statistics.compute_infer, statistics.compute_output)
            totals[step] = (statistics.success.count, statistics.queue.ns, sum(part.ns for part in computing))
    return totals


def measure_steps(
    client: Client, grpc_url: str, model: str, local: InProcess, pictures: Sequence[bytes], *, calls: int
) -> tuple[list[StepCost], float, float]:
    """Where a call's time goes, at one caller: the steps, and the mean of a whole call served and in process, in ms."""
    before = served_steps(grpc_url, model)
    local.step_s = dict.fromkeys(local.step_s, 0.0)
    local.calls = 0
    served_s: list[float] = []
    local_s: list[float] = []
    for number in range(calls):
        picture = pictures[number % len(pictures)]
        began = time.perf_counter()
        client.paint(picture, model=model)
        served_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        local.paint(picture)
        local_s.append(time.perf_counter() - began)
    after = served_steps(grpc_url, model)
    costs = []
    for step, (count, queue, compute) in after.items():
        pictures_done = count - before[step][0]
        costs.append(
            StepCost(
                step=step,
                in_process_ms=1000 * local.step_s[step] / local.calls,
                queue_ms=(queue - before[step][1]) / pictures_done / 1e6,
                compute_ms=(compute - before[step][2]) / pictures_done / 1e6,
            )
        )
    return costs, 1000 * float(np.mean(served_s)), 1000 * float(np.mean(local_s))


def measure_cpu(
    served: Paint, in_process: Paint, server: TritonServer, pictures: Sequence[bytes], *, callers: int, calls: int
) -> dict[str, float]:
    """Processor milliseconds a picture, by process: what serving costs whatever else the machine is doing."""
    processes = {"caller (SDK)": os.getpid(), "tritonserver": server.process_id}
    processes |= {instance: pid for pid, instance in find_stubs(server.process_id).items()}
    before = {name: cpu_s(pid) for name, pid in processes.items()}
    run_round(served, pictures, callers=callers, calls=calls)
    used = {name: cpu_s(pid) - before[name] for name, pid in processes.items()}
    began = time.process_time()
    run_round(in_process, pictures, callers=callers, calls=calls)
    used["in process, all together"] = time.process_time() - began
    return {name: 1000 * seconds / calls for name, seconds in used.items() if seconds > 0}


def cpu_s(pid: int) -> float:
    """User and system time of a process so far (proc_pid_stat(5), fields 14 and 15)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Start a server of its own, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, default=Path("examples/sketches/shoes"), help="drawings to send (PNG)")
    parser.add_argument("--model", default="shoes", help="painter to call (default: %(default)s)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4], help="callers at once (default: 1 4)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of each side (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=40, help="calls a round (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(arguments.pictures.glob("*.png"))]
    if not pictures:
        parser.error(f"there is no PNG in `{arguments.pictures}`")

    config = ServerConfig(repositories=(arguments.repository,), http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(config) as server, Client(server.endpoints.grpc_url) as client:
        url = server.endpoints.grpc_url
        local = InProcess(arguments.repository, arguments.model)

        def served(data: bytes) -> bytes:
            return client.paint(data, model=arguments.model).bytes

        for warm in (served, local.paint):
            run_round(warm, pictures, callers=max(arguments.callers), calls=2 * len(pictures))
        comparisons = []
        for callers in arguments.callers:
            sys.stderr.write(f"measuring {callers} caller(s) ...\n")
            settings = {"callers": callers, "rounds": arguments.rounds, "calls": arguments.calls}
            comparisons.append(compare(served, local.paint, pictures, **settings))
        sys.stderr.write("measuring the steps ...\n")
        costs, served_ms, local_ms = measure_steps(client, url, arguments.model, local, pictures, calls=60)
        busiest = max(arguments.callers)
        cpu_ms = measure_cpu(served, local.paint, server, pictures, callers=busiest, calls=60)
    if arguments.json:
        print(json.dumps(as_record(comparisons, costs, served_ms, local_ms, cpu_ms), indent=2))
    else:
        print(as_text(comparisons, costs, served_ms, local_ms, cpu_ms))
    return 0


def as_record(
    comparisons: Sequence[Comparison],
    costs: Sequence[StepCost],
    served_ms: float,
    local_ms: float,
    cpu_ms: Mapping[str, float],
) -> dict[str, object]:
    """Everything measured, for a machine."""
    return {
        "machine": describe_machine(),
        "comparisons": [dataclasses.asdict(one) for one in comparisons],
        "steps": [dataclasses.asdict(one) for one in costs],
        "served_ms": served_ms,
        "in_process_ms": local_ms,
        "cpu_ms": dict(cpu_ms),
    }


def as_text(
    comparisons: Sequence[Comparison],
    costs: Sequence[StepCost],
    served_ms: float,
    local_ms: float,
    cpu_ms: Mapping[str, float],
) -> str:
    """Everything measured, for a person: Markdown tables."""
    lines = [
        describe_machine(),
        "",
        "| callers | served, pictures/s | in process | ratio | served p50 / p99 ms | in process p50 / p99 ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.callers} | {one.served.throughput:.1f} | {one.in_process.throughput:.1f} | {one.ratio:.2f} "
        f"| {one.served.p50_ms:.0f} / {one.served.p99_ms:.0f} "
        f"| {one.in_process.p50_ms:.0f} / {one.in_process.p99_ms:.0f} |"
        for one in comparisons
    ]
    lines += ["", "Where one caller's time goes, mean ms a picture:", ""]
    lines += ["| step | in process | served: compute | served: queue |", "|---|---:|---:|---:|"]
    lines += [f"| {c.step} | {c.in_process_ms:.2f} | {c.compute_ms:.2f} | {c.queue_ms:.2f} |" for c in costs]
    between = served_ms - sum(cost.queue_ms + cost.compute_ms for cost in costs)
    lines.append(
        f"| between the steps, gRPC and the SDK | {local_ms - sum(c.in_process_ms for c in costs):.2f} "
        f"| {between:.2f} | |"
    )
    lines.append(f"| whole call | {local_ms:.2f} | {served_ms:.2f} | |")
    busiest = max(one.callers for one in comparisons)
    lines += ["", f"Processor time at {busiest} callers, ms a picture:", "", "| process | ms |", "|---|---:|"]
    lines += [f"| {name} | {used:.1f} |" for name, used in cpu_ms.items()]
    lines.append(f"| served, all together | {sum(cpu_ms.values()) - cpu_ms['in process, all together']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
