"""What the commands that send pictures share: their arguments, and the way from those to an exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchbridge_cli.batch import Batch, run_batch
from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.exit_status import ExitStatus
from sketchbridge_cli.folders import STREAM, Found, Source, find_sources
from sketchbridge_cli.journal import Journal, canonical, open_journal
from sketchbridge_cli.options import add_batch, add_connection, add_encoding, add_json
from sketchbridge_cli.picture_format import OutputFormat, choose_format
from sketchbridge_cli.plan import Plan, make_plan, names_file

if TYPE_CHECKING:
    from sketchbridge_cli.report import Report
    from sketchbridge_client import Client, Picture

    Work = Callable[[Client, bytes | str, OutputFormat], Mapping[str, Picture]]
    """Sends one picture, a path or bytes, and gives back each output by name in the format asked for."""

DEFAULT_FOLDER_JOBS = 4
"""Enough to keep a server busy while answers are written, and few enough for one that paints one at a time."""


@dataclass(frozen=True)
class Verb:
    """What a command does with a picture.

    name: of the command. past: for the report, as "painted". labels: as for Plan. settings: of --set.
    """

    name: str
    past: str
    labels: Mapping[str, str]
    work: Work
    settings: Mapping[str, Any]


def add_pictures(parser: argparse.ArgumentParser, *, inputs: str, output: str) -> None:
    """Add the arguments of a command that sends pictures. inputs, output: their help."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    parser.add_argument("-o", "--output", help=output)
    add_batch(parser, default_folder_jobs=DEFAULT_FOLDER_JOBS)
    add_encoding(parser)
    add_json(parser)
    add_connection(parser)


def run_pictures(arguments: argparse.Namespace, verb: Verb) -> int:
    """Run a command that `add_pictures` described and return its exit status. A picture that fails stops no other."""
    from sketchbridge_client import Client, InvalidArgument, Retry  # noqa: PLC0415  heavy

    found = find_sources(arguments.inputs, recursive=arguments.recursive, output=arguments.output)
    sys.stderr.writelines(f"{remark}\n" for remark in found.remarks())
    _refuse_none(arguments.inputs, found)
    output_file = arguments.output if names_file(found.sources, arguments.output, verb.labels) else None
    output_format, suffix = choose_format(arguments.output_format, output_file)
    plan = make_plan(found.sources, arguments.output, verb.labels, suffix=suffix)
    _check_streams(found.sources, plan, as_json=arguments.json)
    try:
        # A person waits: an address that never answered is most likely wrong.
        client = Client(arguments.url, timeout_s=arguments.timeout_s, retry=Retry(first_contact_s=0))
    except InvalidArgument as exc:
        raise UsageError(f"{exc}") from exc
    began = time.monotonic()
    try:
        with client, _journals(found.sources, plan, verb.name) as journal_of:
            has_folder = any(source.root is not None for source in found.sources)
            batch = Batch(
                sources=found.sources,
                plan=plan,
                journal_of=journal_of,
                options=_options(arguments, verb, output_format),
                past=verb.past,
                jobs=arguments.jobs or (DEFAULT_FOLDER_JOBS if has_folder else 1),
                again=arguments.again,
                as_json=arguments.json,
            )
            report = run_batch(batch, client, lambda client, source: verb.work(client, source, output_format))
    except BrokenPipeError:
        raise
    except OSError as exc:  # of a journal; that of a picture is in the report
        sys.stderr.write(f"error: {exc}\n")
        return ExitStatus.FAILED
    _conclude(batch, report, elapsed_s=time.monotonic() - began)
    return report.exit_status()


@contextmanager
def _journals(sources: Sequence[Source], plan: Plan, command: str) -> Iterator[Callable[[Source], Journal | None]]:
    """Which journal each picture goes into: that of --output, or without one that of the folder it was found in.

    There is none if no folder was given, and none for a picture that comes on stdin.
    """

    def folder_of(source: Source) -> str | None:
        if source.path == STREAM:
            return None
        return source.root if plan.output is None else plan.output

    opened: dict[str | None, Journal] = {}
    with ExitStack() as stack:
        if any(source.root is not None for source in sources):
            for folder in {folder_of(source): None for source in sources}:
                if folder is not None:
                    Path(folder).mkdir(exist_ok=True)
                    opened[folder] = stack.enter_context(open_journal(Path(folder), command))
        yield lambda source: opened.get(folder_of(source))


def _options(arguments: argparse.Namespace, verb: Verb, output_format: OutputFormat) -> str:
    """What a picture was made with, for the journal: if it is made with anything else, it is another picture."""
    names = ("model", "method", "fit", "normalise", "quality")
    given = {name: getattr(arguments, name, None) for name in names}
    given |= {"verb": verb.name, "format": output_format, "settings": dict(verb.settings)}
    return canonical({name: value for name, value in given.items() if value is not None})


def _refuse_none(inputs: Sequence[str], found: Found) -> None:
    if not found.sources:
        named = ", ".join(f"`{given}`" for given in inputs)
        raise UsageError(f"There is no picture to send in {named}. Pictures end in .png, .jpg, .jpeg, .webp or .bmp.")


def _check_streams(sources: Sequence[Source], plan: Plan, *, as_json: bool) -> None:
    if sum(source.path == STREAM for source in sources) > 1:
        raise UsageError("`-` is given more than once; stdin can be read only once.")
    if plan.job(sources[0]).files:  # what goes to stdout is alone
        return
    if as_json:
        raise UsageError("--json and the picture cannot both go to stdout. Name a file with --output.")
    if sys.stdout.isatty():
        raise UsageError("The picture would be printed on the terminal. Name a file with --output.")


def _conclude(batch: Batch, report: Report, *, elapsed_s: float) -> None:
    if batch.as_json:
        print(report.document())
    elif batch.has_folder and report.done:
        where = "beside the inputs" if batch.plan.output is None else f"to: `{batch.plan.output}`"
        print(
            f"{batch.past} {report.done} in {elapsed_s:.1f} s, {report.done / elapsed_s:.3g} pictures/s, wrote {where}"
        )
    if report.failed and len(batch.sources) > 1:
        sys.stderr.write(f"{report.failures()}\n")
