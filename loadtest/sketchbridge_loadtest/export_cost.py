"""What an export costs: seconds and peak memory for each kind of artefact, each in a process of its own.

    python -m sketchbridge_loadtest.export_cost
    python -m sketchbridge_loadtest.export_cost --ngf 32 --artefacts onnx openvino --json
    python -m sketchbridge_loadtest.export_cost --checkpoint latest_net_G.pth

Without --checkpoint a U-Net-256 with random weights is exported. Every kind includes making and certifying the ONNX
file that it is made from; the row `onnx` says how much that is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sketchbridge_export.production import KINDS
from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_training.networks import UNetGenerator


@dataclass(frozen=True)
class Cost:
    """One export. peak_bytes: the most memory the process held (ru_maxrss). status: 0 if it succeeded, and
    -N if signal N ended it, as the kernel does where memory runs out.

    size_bytes: of the artefact's own files. message: why it failed, else the last line the command wrote.
    """

    kind: str
    wall_s: float
    peak_bytes: int
    size_bytes: int
    status: int
    message: str


def measure_export(checkpoint: Path, kind: str, folder: Path, options: Sequence[str] = ()) -> Cost:
    """Export `checkpoint` as `kind` into a new repository in `folder` and say what it took."""
    repository = folder / kind
    command = [sys.executable, "-m", "sketchbridge_cli", "export", str(checkpoint), "--name", "measured"]
    command += ["--repository", str(repository), "--artefacts", kind, "--evidence", str(folder), "--json", *options]
    report, said = folder / f"{kind}.json", folder / f"{kind}.txt"
    began = time.perf_counter()
    with report.open("wb") as out, said.open("wb") as err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    size_bytes = 0
    if child.returncode == 0:
        exported = json.loads(report.read_text())
        size_bytes = sum(
            (Path(exported["path"]) / name).stat().st_size for name in exported["artefacts"][kind]["files"]
        )
    lines = said.read_text(errors="replace").strip().splitlines()
    message = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
    if child.returncode < 0:
        message = f"ended by {signal.Signals(-child.returncode).name}: {message}"
    return Cost(kind, wall_s, usage.ru_maxrss * 1024, size_bytes, child.returncode, message)


def random_checkpoint(ngf: int, path: Path) -> None:
    """A U-Net-256 with the weights it is born with, from a fixed seed."""
    torch.manual_seed(0)
    torch.save(UNetGenerator(ngf=ngf).state_dict(), path)


def as_text(costs: Sequence[Cost], title: str) -> str:
    """A table in Markdown."""
    lines = [f"{describe_machine()}; {title}", "", "| artefact | seconds | peak memory, GiB | files, MB | |"]
    lines.append("|---|---:|---:|---:|---|")
    lines += [
        f"| {cost.kind} | {cost.wall_s:.1f} | {cost.peak_bytes / 1024**3:.2f} | {cost.size_bytes / 1e6:.1f} | "
        f"{'' if cost.status == 0 else cost.message} |"
        for cost in costs
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Measure each kind in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ngf", type=int, default=64, help="width of the random U-Net-256 (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="export this one instead")
    parser.add_argument("--artefacts", nargs="+", choices=KINDS, default=KINDS, help="kinds (default: all)")
    parser.add_argument("--calibration", type=Path, help="folder of pictures to quantise with")
    parser.add_argument("--min-ssim", help="what INT8 must reach (default: that of `sketchbridge export`)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(words)
    of_int8 = {"--min-ssim": arguments.min_ssim, "--calibration": arguments.calibration}
    options = [str(word) for option in of_int8.items() if option[1] is not None for word in option]
    with tempfile.TemporaryDirectory(prefix="sketchbridge-cost-") as name:
        folder = Path(name)
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            checkpoint = folder / "unet256.pt"
            random_checkpoint(arguments.ngf, checkpoint)
        costs = []
        for kind in arguments.artefacts:
            sys.stderr.write(f"exporting {kind}\n")
            costs.append(measure_export(checkpoint, kind, folder, options if kind.endswith("-int8") else ()))
    title = f"U-Net-256 of ngf {arguments.ngf}" if arguments.checkpoint is None else str(arguments.checkpoint.name)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(cost) for cost in costs], indent=2))
    else:
        print(as_text(costs, title))
    return int(any(cost.status for cost in costs))


if __name__ == "__main__":
    sys.exit(main())
