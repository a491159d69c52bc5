"""Decides, before anything is sent, which picture is read from where and what is written where."""

# ruff: noqa: PTH114, PTH118  a folder may have 100,000 files; their paths stay strings, which are made and held at less cost

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.folders import STREAM, Source


@dataclass(frozen=True)
class Job:
    """One picture to send. source: a path, or STREAM. targets: where each output goes; None is stdout."""

    source: str
    targets: Mapping[str, Path | None]

    @property
    def files(self) -> list[Path]:
        """The outputs that are files."""
        return [target for target in self.targets.values() if target is not None]


@dataclass(frozen=True)
class Plan:
    """Where every output goes. It is worked out job by job, so that a folder of 100,000 costs its names and no more.

    output: a file if `is_file`, else a folder, STREAM, or None for beside each input. labels: for each output of the
    model what its file is called after the input's stem, as {"photo": "shoes"} makes `<stem>_shoes.png`.
    suffix: of the names made here.
    """

    output: str | None
    is_file: bool
    labels: Mapping[str, str]
    suffix: str

    def job(self, source: Source) -> Job:
        """What is to be made of one input."""
        if self.output == STREAM or (self.output is None and source.path == STREAM):
            return Job(source.path, dict.fromkeys(self.labels))
        if self.output is not None and self.is_file:
            return Job(source.path, dict.fromkeys(self.labels, Path(self.output)))
        path = Path("stdin" if source.path == STREAM else source.path)
        parent = path.parent if self.output is None else Path(self.output, source.below)
        targets = {name: parent / f"{path.stem}_{label}{self.suffix}" for name, label in self.labels.items()}
        return Job(source.path, targets)


def make_plan(sources: Sequence[Source], output: str | None, labels: Mapping[str, str], *, suffix: str) -> Plan:
    """The plan for these inputs.

    output: a file, a folder, STREAM, or None for beside each input. labels, suffix: as for Plan.
    Raises UsageError if two outputs would have one name, an output the name of an input,
    or if there is no folder to write to; the folder that --output names is made later, its parent must be there.
    """
    for label in labels.values():
        if "/" in label:
            raise UsageError(f"`{label}` would be part of a file name, so it cannot have a `/`.")
    to_stdout = output == STREAM or (output is None and any(source.path == STREAM for source in sources))
    if to_stdout and _makes_several(sources, labels):
        raise UsageError("Only one picture can go to stdout. Name a folder with --output.")
    is_file = names_file(sources, output, labels)
    if output is not None and not to_stdout and (is_file or not Path(output).is_dir()):
        _refuse_missing(Path(output).parent)
    plan = Plan(output, is_file, labels, suffix)
    _refuse_clashes(plan, sources)
    return plan


def names_file(sources: Sequence[Source], output: str | None, labels: Mapping[str, str]) -> bool:
    """Whether --output names a file: it is no folder, does not end like one, and has to hold one picture only."""
    if output is None or output == STREAM or _makes_several(sources, labels):
        return False
    return not (output.endswith("/") or Path(output).is_dir())


def _makes_several(sources: Sequence[Source], labels: Mapping[str, str]) -> bool:
    """Whether there may be more than one output. A folder of one picture may have another tomorrow."""
    return len(sources) > 1 or len(labels) > 1 or any(source.root is not None for source in sources)


def _refuse_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"There is no folder `{folder}` for the output. Make it first.")


def _refuse_clashes(plan: Plan, sources: Sequence[Source]) -> None:
    real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def place(path: str) -> str:
        """The file itself, whichever way it is named. As realpath, which would ask for every folder of every path."""
        parent, name = os.path.split(path)
        real = os.path.join(real_folder(parent), name)
        return os.path.realpath(real) if os.path.islink(real) or name in {"", ".", ".."} else real

    from_where: dict[str, str] = {}
    for source in sources:
        for target in plan.job(source).targets.values():
            if target is None:
                continue
            placed = place(str(target))
            if placed in from_where:
                raise UsageError(
                    f"Two inputs would be written to `{placed}`: `{from_where[placed]}` and `{source.path}`. Run them "
                    "apart, or rename one."
                )
            from_where[placed] = source.path
    for source in sources:
        if source.path != STREAM and place(source.path) in from_where:
            raise UsageError(f"`{place(source.path)}` is an input and would be overwritten. Name another --output.")
