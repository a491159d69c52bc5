"""Which CPU backend paints fastest, and how much alike: one generator served in four ways, in one interleaved run.

    python -m sketchbridge_loadtest.backends
    python -m sketchbridge_loadtest.backends --model shoes --callers 1 4 8 --rounds 10 --json

All four are models of one Triton, behind the same `decode` and `encode`: the bytes of a drawing in, the bytes of a
photo out. Rounds alternate, and so does who goes first, so that a noisy neighbour hits all; read the ratios, not the
milliseconds. Needs the packages of an export too, since it quantises.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sketchbridge_client import Client
from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_loadtest.overhead import Paint, cpu_s, run_round
from sketchbridge_server import ServerConfig, TritonServer
from sketchbridge_server.stubs import find_stubs


@dataclass(frozen=True)
class Variant:
    """One way to serve a generator. parameters: of its configuration."""

    name: str
    backend: str
    file: str
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)


VARIANTS = (
    Variant("onnxruntime_fp32", "onnxruntime", "model.onnx"),
    Variant("openvino_fp32", "openvino", "model.xml"),
    Variant("openvino_bf16", "openvino", "model.xml", {"HINT_BF16": "YES"}),
    Variant("openvino_int8", "openvino", "model_int8.xml"),
)
REFERENCE = VARIANTS[0]


@dataclass(frozen=True)
class Figures:
    """A variant at one number of callers.

    throughput: pictures a second (median of rounds); ratio: over the reference's, median over rounds; p50_ms, p99_ms:
    of all calls; cpu_ms: processor time of the server and all its processes, a picture.
    """

    variant: str
    callers: int
    throughput: float
    ratio: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Likeness:
    """What a variant paints against what the reference does, one picture at a time. ssim: of the worst picture."""

    variant: str
    ssim: float
    max_levels: int


def write_repository(source: Path, model: str, folder: Path) -> None:
    """Fill `folder` with a repository of all variants of `<model>_generator` in `source`, its newest version.

    Takes seconds: the INT8 variant is quantised on the pictures that the exporter ships.
    """
    from sketchbridge_export.artefacts.int8 import quantise_openvino  # noqa: PLC0415 - torch takes seconds to import
    from sketchbridge_export.artefacts.openvino import write_openvino  # noqa: PLC0415
    from sketchbridge_export.calibration import calibration_pictures  # noqa: PLC0415
    from sketchbridge_export.parity import TOLERANCES, paint_with_onnx  # noqa: PLC0415
    from sketchbridge_export.parity_pictures import shipped_pictures  # noqa: PLC0415
    from sketchbridge_export.triton_config import generator_name, paint_config  # noqa: PLC0415

    versions = (source / generator_name(model)).glob("*/model.onnx")
    graph = max(versions, key=lambda path: int(path.parent.name), default=None)
    if graph is None:
        raise FileNotFoundError(f"`{source / generator_name(model)}` has no version with a model.onnx.")
    for block in ("decode", "encode"):
        shutil.copytree(source / block, folder / block)
    files = folder.parent / "artefacts"
    files.mkdir()
    shutil.copy(graph, files)
    write_openvino(graph, files)
    pictures = shipped_pictures()
    quantise_openvino(
        graph,
        files,
        calibration=calibration_pictures(None),
        pictures=pictures,
        expected=np.concatenate([paint_with_onnx(graph)(picture[None]) for picture in pictures]),
        min_ssim=TOLERANCES["int8"].min_ssim or 0.0,
        progress=_say,
    )
    for variant in VARIANTS:
        generator, ensemble = folder / generator_name(variant.name), folder / variant.name
        for made in (generator, ensemble):
            (made / "1").mkdir(parents=True)
        for path in files.glob(f"{Path(variant.file).stem}.*"):
            shutil.copy(path, generator / "1")
        (generator / "config.pbtxt").write_text(_generator_config(variant))
        (ensemble / "config.pbtxt").write_text(paint_config(variant.name))


def measure(
    paints: Mapping[str, Paint], pictures: Sequence[bytes], processes: Sequence[int], *, callers: int, rounds: int
) -> list[Figures]:
    """Alternate rounds of all variants, `len(pictures)` calls each; who goes first moves on by one each round.

    paints: by variant, the first being the reference. processes: those whose processor time counts.
    """
    names = tuple(paints)
    throughput: dict[str, list[float]] = {name: [] for name in names}
    latency_s: dict[str, list[float]] = {name: [] for name in names}
    used_s = dict.fromkeys(names, 0.0)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = sum(map(cpu_s, processes))
            rate, latencies = run_round(paints[name], pictures, callers=callers, calls=len(pictures))
            used_s[name] += sum(map(cpu_s, processes)) - before
            throughput[name].append(rate)
            latency_s[name] += latencies
    return [
        Figures(
            variant=name,
            callers=callers,
            throughput=float(np.median(throughput[name])),
            ratio=float(np.median(np.divide(throughput[name], throughput[names[0]]))),
            p50_ms=1000 * float(np.percentile(latency_s[name], 50)),
            p99_ms=1000 * float(np.percentile(latency_s[name], 99)),
            cpu_ms=1000 * used_s[name] / (rounds * len(pictures)),
        )
        for name in names
    ]


def compare_pictures(grpc_url: str) -> list[Likeness]:
    """Paint the exporter's pictures with every variant's generator, as arrays."""
    from sketchbridge_export.parity import measure as measure_parity  # noqa: PLC0415 - as above
    from sketchbridge_export.parity_pictures import shipped_pictures  # noqa: PLC0415
    from sketchbridge_export.served import paint_with_server  # noqa: PLC0415
    from sketchbridge_export.triton_config import generator_name  # noqa: PLC0415

    pictures = shipped_pictures()
    paints = {one.name: paint_with_server(grpc_url, generator_name(one.name)) for one in VARIANTS}
    expected = np.concatenate([paints[REFERENCE.name](picture[None]) for picture in pictures])
    found = []
    for name, paint in paints.items():
        (batch,) = measure_parity(expected, paint, pictures, batch_sizes=(1,)).batches
        found.append(Likeness(name, batch.ssim, batch.max_levels))
    return found


def main() -> int:
    """Make the variants, start a server of its own, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, default=Path("examples/sketches/shoes"), help="drawings to send (PNG)")
    parser.add_argument("--model", default="shoes", help="painter whose generator is served (default: %(default)s)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4], help="callers at once (default: 1 4)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of each variant (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=36, help="calls a round (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(arguments.pictures.glob("*.png"))]
    if not pictures:
        parser.error(f"there is no PNG in `{arguments.pictures}`")
    calls = [pictures[number % len(pictures)] for number in range(arguments.calls)]

    with tempfile.TemporaryDirectory(prefix="sketchbridge-backends-") as temporary:
        repository = Path(temporary, "repository")
        repository.mkdir()
        try:
            write_repository(arguments.repository, arguments.model, repository)
        except FileNotFoundError as exc:
            parser.error(str(exc))
        config = ServerConfig(repositories=(repository,), http_port=0, grpc_port=0, metrics_port=0)
        with TritonServer(config) as server, Client(server.endpoints.grpc_url) as client:
            paints = {variant.name: partial(_paint, client, variant.name) for variant in VARIANTS}
            processes = [server.process_id, *find_stubs(server.process_id)]
            for paint in paints.values():
                run_round(paint, pictures, callers=max(arguments.callers), calls=2 * len(pictures))
            figures = []
            for callers in arguments.callers:
                _say(f"measuring {callers} caller(s) ...")
                figures += measure(paints, calls, processes, callers=callers, rounds=arguments.rounds)
            likeness = compare_pictures(server.endpoints.grpc_url)
    if arguments.json:
        record = {"machine": machine(), "figures": figures, "likeness": likeness}
        print(json.dumps(record, indent=2, default=dataclasses.asdict))
    else:
        print(as_text(figures, likeness))
    return 0


def machine() -> str:
    """What a figure was measured on."""
    return f"{describe_machine()}, OpenVINO {version('openvino')}"


def as_text(figures: Sequence[Figures], likeness: Sequence[Likeness]) -> str:
    """Everything measured, for a person: Markdown tables."""
    lines = [
        machine(),
        "",
        "| served by | callers | pictures/s | ratio | p50 / p99 ms | processor ms a picture |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.variant} | {one.callers} | {one.throughput:.1f} | {one.ratio:.2f} "
        f"| {one.p50_ms:.0f} / {one.p99_ms:.0f} | {one.cpu_ms:.1f} |"
        for one in figures
    ]
    lines += ["", f"| served by | worst SSIM to {REFERENCE.name} | grey levels apart at most |", "|---|---:|---:|"]
    lines += [f"| {one.variant} | {one.ssim:.4f} | {one.max_levels} |" for one in likeness]
    return "\n".join(lines)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _paint(client: Client, model: str, data: bytes) -> bytes:
    return client.paint(data, model=model).bytes


def _generator_config(variant: Variant) -> str:
    tensor = 'name: "{}" data_type: TYPE_UINT8 dims: [ 256, 256, 3 ]'
    lines = [
        f'backend: "{variant.backend}"',
        f'default_model_filename: "{variant.file}"',
        "max_batch_size: 8",
        f"input {{ {tensor.format('sketch')} }}",
        f"output {{ {tensor.format('photo')} }}",
        "dynamic_batching { max_queue_delay_microseconds: 0 }",
        "instance_group { kind: KIND_CPU count: 1 }",
    ]
    lines += [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in variant.parameters.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
