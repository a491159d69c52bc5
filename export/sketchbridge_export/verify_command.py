"""`sketchbridge verify`: arguments in, one library call, the findings out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sketchbridge_export.parity import Paint

_DESCRIPTION = """\
Check a model repository again: that every artefact is the file that was certified, that its certificate holds, that the
configurations serve what has one, and that it still paints the golden pictures as its checkpoint did. With --url the
pictures go through a running server as well.
"""
_EPILOG = """\
examples:
  sketchbridge verify model_repository
  sketchbridge verify model_repository --no-paint
  sketchbridge verify model_repository --url 127.0.0.1:8001 --json

exit status: 0 all is as it should be, 1 something is not, 2 the call was wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments, description and examples of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("repository", type=Path, metavar="REPOSITORY", help="the folder that Triton serves")
    parser.add_argument(
        "--no-paint", action="store_true", help="check digests and certificates only, which takes seconds"
    )
    parser.add_argument(
        "--url", metavar="HOST:PORT", help="gRPC address of a server that serves it; paint golden pictures there too"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Verify; steps go to stderr, findings to stdout. Returns the exit status."""
    from sketchbridge_export.verification import verify_repository  # noqa: PLC0415 - torch takes seconds to import

    try:
        findings = verify_repository(
            arguments.repository,
            paint=not arguments.no_paint,
            served=None if arguments.url is None else _served_by(arguments.url),
            progress=_say,
        )
    except ExportError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    problems = [finding for finding in findings if finding.problem is not None]
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{'ok  ' if finding.problem is None else 'BAD '}  {finding.subject}: {finding.checked}\n")
            if finding.problem is not None:
                sys.stdout.write(f"      {finding.problem}\n")
        sys.stdout.write(f"{len(findings)} checks, {len(problems)} problems\n")
    return 1 if problems else 0


def _served_by(url: str) -> Callable[[str, int], Paint]:
    from sketchbridge_export.served import paint_with_server  # noqa: PLC0415 - takes gRPC

    return partial(paint_with_server, url)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
