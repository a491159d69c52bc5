"""Runs the export command on spoiled checkpoints: `python -m tests.export.fuzz_checkpoints --count 10000`.

Each is read, and then goes through the command, in a worker process that is killed when either takes ten seconds.
Whatever a file holds, the command must end with status 1 and one line of error, or with 0; it must leave nothing
behind, and run nothing that the file brings along.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LIMIT_S = 10.0
_START_LIMIT_S = 120.0  # a worker imports torch first
_FULL_EXPORT_EVERY = 200  # of the files that are still good


@dataclass(frozen=True)
class Outcome:
    """What became of one file. kind: "refused", "accepted", or what is wrong: "problem", "crash", "hang"."""

    seed: int
    label: str
    kind: str
    seconds: float
    detail: str = ""


@dataclass
class Summary:
    """All outcomes, and how long they took together."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Outcome]:
        """What must not be."""
        return [outcome for outcome in self.outcomes if outcome.kind not in ("refused", "accepted")]

    def as_text(self) -> str:
        """Lines for a person."""
        slowest = max(self.outcomes, key=lambda outcome: outcome.seconds)
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(o.kind for o in self.outcomes).most_common())
        lines = [
            f"{len(self.outcomes)} files in {self.seconds:.0f} s: {counts}",
            f"slowest: {slowest.seconds:.2f} s (seed {slowest.seed}, {slowest.label})",
        ]
        lines += [f"{o.kind}: seed {o.seed}, {o.label}: {o.detail}" for o in self.failures[:50]]
        return "\n".join(lines)


def fuzz(seeds: range, *, workers: int = 1) -> Summary:
    """Spoil and export one file for each seed."""
    began = time.monotonic()
    summary = Summary()
    left = iter(seeds)
    with tempfile.TemporaryDirectory() as folder:
        crew = [_Worker(Path(folder)) for _ in range(min(workers, len(seeds)))]
        for worker in crew:
            worker.give(next(left, None))
        while busy := [worker for worker in crew if worker.seed is not None]:
            wait([worker.connection for worker in busy], timeout=0.2)
            for worker in busy:
                outcome = worker.look()
                if outcome is not None:
                    summary.outcomes.append(outcome)
                    worker.give(next(left, None))
        for worker in crew:
            worker.end()
    summary.seconds = time.monotonic() - began
    return summary


class _Worker:
    """A process that takes seeds and answers with outcomes; replaced when it dies or has to be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seed: int | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.folder), daemon=True)
        self.process.start()
        theirs.close()
        self.deadline = time.monotonic() + _START_LIMIT_S
        self.label = ""

    def give(self, seed: int | None) -> None:
        self.seed = seed
        if seed is not None:
            self.connection.send(seed)

    def look(self) -> Outcome | None:
        """The outcome of the seed, if it is there or if there will never be one."""
        assert self.seed is not None
        try:
            while self.connection.poll():
                kind, value = self.connection.recv()
                if kind == "label":
                    self.label, self.deadline = value, time.monotonic() + LIMIT_S
                else:
                    self.deadline = time.monotonic() + _START_LIMIT_S
                    return Outcome(**value)
        except (EOFError, ConnectionResetError):
            self.process.join()
            died = Outcome(self.seed, self.label, "crash", 0.0, f"exit code {self.process.exitcode}")
            self._start()
            return died
        if time.monotonic() < self.deadline:
            return None
        self.process.kill()
        self.process.join()
        hung = Outcome(self.seed, self.label, "hang", LIMIT_S)
        self._start()
        return hung

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _work(connection: Connection, folder: Path) -> None:
    import torch  # noqa: PLC0415 - the parent doesn't need it

    from tests.export.mutations import make_originals, mutate  # noqa: PLC0415

    torch.set_num_threads(1)
    with _captured(folder / f"{os.getpid()}.log"):
        originals = make_originals()
    while True:
        try:
            seed = connection.recv()
        except EOFError:
            return
        mutation = mutate(seed, originals)

        def begin(label: str = mutation.label) -> None:
            connection.send(("label", label))

        begin()
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder) as own:
            kind, detail = _examine(Path(own), mutation, seed, begin)
        connection.send(
            ("outcome", {"seed": seed, "label": mutation.label, "kind": kind, "detail": detail,
                         "seconds": time.monotonic() - began})
        )  # fmt: skip


def _examine(own: Path, mutation: Any, seed: int, begin: Callable[[], None]) -> tuple[str, str]:
    """What the command makes of the file, looked at from all sides. `begin` is called before each reading of it."""
    source, scratch, temporary = own / "source", own / "scratch", own / "temporary"
    for folder in (source, scratch, temporary, own / "pictures"):
        folder.mkdir()
    # One small picture to compare on: those that are shipped take longer to draw than most files take to refuse.
    cv2.imwrite(str(own / "pictures" / "white.png"), np.full((64, 64, 3), 255, np.uint8))
    path = mutation.write(source)
    before = os.getcwd()  # noqa: PTH109
    os.chdir(scratch)
    tempfile.tempdir = str(temporary)
    try:
        status, err, accepted = _run(path, scratch / "models", own / "log", seed, begin)
    except BaseException:  # noqa: BLE001 - whatever comes out of the command is what is looked for
        return "problem", traceback.format_exc()
    finally:
        os.chdir(before)
        tempfile.tempdir = None
    left = [str(found.relative_to(own)) for found in (*scratch.rglob("*"), *temporary.rglob("*"))]
    beside = [found.name for found in source.iterdir() if found != path]
    if accepted and status == 0:
        shutil.rmtree(scratch / "models", ignore_errors=True)
        left = [name for name in left if not name.startswith("scratch/models")]
    if left or beside:
        return "problem", f"left behind: {left + beside}"
    lines = [line for line in err.splitlines() if line]
    errors = [line for line in lines if line.startswith("error: ")]
    if status == 0:
        return ("problem", f"status 0 with {errors}") if errors else ("accepted", "")
    if status != 1 or len(errors) != 1 or lines[-1] != errors[0] or (not accepted and _strange(lines)):
        return "problem", f"status {status}: {err[-2000:]}"
    return "refused", errors[0]


def _strange(lines: list[str]) -> list[str]:
    """Lines that are neither steps nor the error."""
    return [line for line in lines[:-1] if not line.startswith(("reading ", "recognised ", "exporting ", "comparing "))]


def _run(path: Path, repository: Path, log: Path, seed: int, begin: Callable[[], None]) -> tuple[int, str, bool]:
    """The command's status and what came on standard error, of Python or of a library; and whether it could be read.

    A file that can be read is inspected and painted with, which takes a hundredth of an export; every so often it is
    exported all the same. Any other goes through the export.
    """
    import torch  # noqa: PLC0415

    from sketchbridge_export.artefacts.compose import paint_reference  # noqa: PLC0415
    from sketchbridge_export.command import add_arguments, run  # noqa: PLC0415
    from sketchbridge_export.errors import ExportError  # noqa: PLC0415
    from sketchbridge_export.families import TANH_CONVENTION, Choices, find_family  # noqa: PLC0415
    from sketchbridge_export.interface import GeneratorInterface  # noqa: PLC0415
    from sketchbridge_export.sources import Checkpoint, open_source  # noqa: PLC0415

    pictures = np.full((1, 256, 256, 3), 200, np.uint8)
    accepted = True
    with _captured(log):
        try:
            found = open_source(path)
            if isinstance(found, Checkpoint):
                family = find_family(found.weights)
                generator = family.rebuild(found.weights, Choices())
                with torch.inference_mode():
                    GeneratorInterface(generator, family.convention).eval()(torch.from_numpy(pictures))
            else:
                paint_reference(found, TANH_CONVENTION, pictures)
        except ExportError:
            accepted = False
        begin()
        shown = accepted and seed % _FULL_EXPORT_EVERY != 0
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        pictures_folder = path.parent.parent / "pictures"
        words = ["--name", "fuzz", "--repository", str(repository), "--pictures", str(pictures_folder)]
        if shown:
            words = ["--inspect"]
        status = run(parser.parse_args([str(path), *words]))
        sys.stderr.flush()
    return status, log.read_text(errors="replace"), accepted


@contextlib.contextmanager
def _captured(log: Path) -> Iterator[None]:
    """Both outputs into a file, those of libraries included; only standard error is kept."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    streams = sys.stdout, sys.stderr
    with log.open("w") as err, Path(os.devnull).open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = out, err
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="how many files (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first one's number (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    summary = fuzz(range(arguments.first_seed, arguments.first_seed + arguments.count), workers=arguments.workers)
    sys.stdout.write(summary.as_text() + "\n")
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
