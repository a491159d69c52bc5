"""Decides, before anything is sent, which picture is read from where and what is written where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STREAM = "-"
"""Given as an input: the picture comes on stdin. Given as the output: it goes to stdout."""


@dataclass(frozen=True)
class Job:
    """One picture to send. source: a path, or STREAM. targets: where each output goes; None is stdout."""

    source: str
    targets: Mapping[str, Path | None]


def plan_jobs(
    inputs: Sequence[str],
    output: str | None,
    labels: Mapping[str, str],
    *,
    suffix: str,
) -> list[Job]:
    """One job for each input.

    output: a file, a folder, STREAM, or None for beside each input. labels: for each output of the model what its file
    is called after the input's stem, as {"photo": "shoes"} makes `<stem>_shoes.png`. suffix: of the names made here.
    Raises UsageError if two outputs would have one name, an output the name of an input,
    or if there is no folder to write to; the folder that --output names is made later, its parent must be there.
    """
    for label in labels.values():
        if "/" in label:
            raise UsageError(f"`{label}` would be part of a file name, so it cannot have a `/`.")
    if output == STREAM or (output is None and STREAM in inputs):
        if len(inputs) > 1 or len(labels) > 1:
            raise UsageError("Only one picture can go to stdout. Name a folder with --output.")
        return [Job(inputs[0], dict.fromkeys(labels))]
    if output is not None and not is_folder(inputs, output, labels):
        _refuse_missing(Path(output).parent)
        (name,) = labels
        jobs = [Job(inputs[0], {name: Path(output)})]
    else:
        if output is not None and not Path(output).is_dir():
            _refuse_missing(Path(output).parent)
        jobs = [Job(source, _named(source, output, labels, suffix)) for source in inputs]
    _refuse_clashes(jobs)
    return jobs


def is_folder(inputs: Sequence[str], output: str, labels: Mapping[str, str]) -> bool:
    """Whether --output names a folder: it is one, ends like one, or has to hold several files."""
    return output.endswith("/") or Path(output).is_dir() or len(inputs) > 1 or len(labels) > 1


def _named(source: str, folder: str | None, labels: Mapping[str, str], suffix: str) -> dict[str, Path | None]:
    path = Path("stdin" if source == STREAM else source)
    parent = path.parent if folder is None else Path(folder)
    return {name: parent / f"{path.stem}_{label}{suffix}" for name, label in labels.items()}


def _refuse_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"There is no folder `{folder}` for the output. Make it first.")


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    targets = [target.resolve() for job in jobs for target in job.targets.values() if target is not None]
    repeated = [target for target, times in Counter(targets).items() if times > 1]
    if repeated:
        raise UsageError(f"Two inputs would be written to `{repeated[0]}`. Run them apart, or rename one.")
    sources = {Path(job.source).resolve() for job in jobs if job.source != STREAM}
    overwritten = sources.intersection(targets)
    if overwritten:
        raise UsageError(f"`{min(overwritten)}` is an input and would be overwritten. Name another --output.")
