"""Sends the planned pictures one after the other, writes what comes back and reports it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.exit_status import ExitStatus
from sketchbridge_cli.options import add_connection, add_encoding, add_json
from sketchbridge_cli.plan import STREAM, Job, is_folder, plan_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sketchbridge_client import Client, Picture
    from sketchbridge_client.formats import OutputFormat

    Work = Callable[[Client, bytes | str, OutputFormat], Mapping[str, Picture]]
    """Sends one picture, a path or bytes, and gives back each output by name in the format asked for."""


def add_pictures(parser: argparse.ArgumentParser, *, inputs: str, output: str) -> None:
    """Add the arguments of a command that sends pictures. inputs, output: their help."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    parser.add_argument("-o", "--output", help=output)
    add_encoding(parser)
    add_json(parser)
    add_connection(parser)


def run_pictures(arguments: argparse.Namespace, verb: str, labels: Mapping[str, str], work: Work) -> int:
    """Run a command that `add_pictures` described and return its exit status.

    verb: what was done, for the report, as "painted". labels: as for `plan_jobs`. A picture that fails stops no other.
    """
    from sketchbridge_client import (  # noqa: PLC0415  heavy
        MAX_IMAGE_BYTES,
        Client,
        InvalidArgument,
        ServerError,
        SketchbridgeError,
    )

    output_format, suffix = _format_and_suffix(arguments, labels)
    jobs = plan_jobs(arguments.inputs, arguments.output, labels, suffix=suffix)
    _check_streams(jobs, as_json=arguments.json)
    done: list[dict[str, Any]] = []
    failures: list[tuple[Job, Exception]] = []
    try:
        client = Client(arguments.url, timeout_s=arguments.timeout_s)
    except InvalidArgument as exc:
        raise UsageError(f"{exc}") from exc
    with client:
        for number, job in enumerate(jobs, start=1):
            if len(jobs) > 1:
                sys.stderr.write(f"[{number}/{len(jobs)}] {job.source}\n")
            try:
                source = sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1) if job.source == STREAM else job.source
                pictures = work(client, source, output_format)
                _write(job, pictures)
            except (SketchbridgeError, OSError) as exc:
                if isinstance(exc, BrokenPipeError):
                    raise
                failures.append((job, exc))
                _report_failure(job, exc, alone=len(jobs) == 1)
            else:
                done.append(_record(job, pictures))
                if not arguments.json:
                    _report(verb, job, pictures)
    if arguments.json:
        print(json.dumps({"done": done, "failed": [_failure_record(*failure) for failure in failures]}, indent=2))
    if failures and len(jobs) > 1:
        sys.stderr.write(f"failed: {len(failures)} of {len(jobs)}\n")
    if not failures:
        return ExitStatus.DONE
    callers_fault = all(isinstance(exc, InvalidArgument) and not isinstance(exc, ServerError) for _, exc in failures)
    return ExitStatus.WRONG_CALL if callers_fault and not done else ExitStatus.FAILED


def _format_and_suffix(arguments: argparse.Namespace, labels: Mapping[str, str]) -> tuple[OutputFormat, str]:
    """The format to ask for, and the suffix of the file names made here."""
    from sketchbridge_client import InvalidArgument  # noqa: PLC0415  heavy
    from sketchbridge_client.formats import FORMATS, format_of_suffix  # noqa: PLC0415  heavy

    asked = next((known for known in FORMATS if known.name == arguments.output_format), None)
    output = arguments.output
    if output is None or output == STREAM or is_folder(arguments.inputs, output, labels):
        chosen = asked or FORMATS[0]
        return chosen.name, chosen.suffixes[0]
    try:
        named = format_of_suffix(Path(output))
    except InvalidArgument as exc:
        raise UsageError(f"{exc} A folder ends in `/`.") from exc
    if asked is not None and asked is not named:
        raise UsageError(f"`--output-format {asked.name}` and `--output {output}` contradict each other. Drop one.")
    return named.name, named.suffixes[0]


def _check_streams(jobs: Sequence[Job], *, as_json: bool) -> None:
    if sum(job.source == STREAM for job in jobs) > 1:
        raise UsageError("`-` is given more than once; stdin can be read only once.")
    if any(target is None for job in jobs for target in job.targets.values()):
        if as_json:
            raise UsageError("--json and the picture cannot both go to stdout. Name a file with --output.")
        if sys.stdout.isatty():
            raise UsageError("The picture would be printed on the terminal. Name a file with --output.")


def _write(job: Job, pictures: Mapping[str, Picture]) -> None:
    for name, target in job.targets.items():
        if target is None:
            sys.stdout.buffer.write(pictures[name].bytes)
        else:
            target.parent.mkdir(exist_ok=True)
            pictures[name].save(target)


def _report(verb: str, job: Job, pictures: Mapping[str, Picture]) -> None:
    written = ", ".join(f"`{target}`" for target in job.targets.values() if target is not None)
    if written:
        made = next(iter(pictures.values()))
        print(f"{verb} `{job.source}` with {made.model} in {made.elapsed_s:.2f} s, wrote: {written}")


def _report_failure(job: Job, error: Exception, *, alone: bool) -> None:
    sys.stderr.write(f"error: {error}\n" if alone else f"failed: `{job.source}`: {error}\n")


def _record(job: Job, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    made = next(iter(pictures.values()))
    return {
        "input": job.source,
        "outputs": {name: str(target) for name, target in job.targets.items()},
        "format": made.format,
        "model": made.model,
        "model_version": made.model_version,
        "request_id": made.request_id,
        "elapsed_s": round(made.elapsed_s, 6),
    }


def _failure_record(job: Job, error: Exception) -> dict[str, Any]:
    return {"input": job.source, "error": type(error).__name__, "message": str(error)}
