"""`sketchbridge models`: what a server has."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.exit_status import ExitStatus
from sketchbridge_cli.options import add_connection, add_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sketchbridge_client import ModelInfo

_DESCRIPTION = """List the models of a server: what each is for, which versions are ready, and why one is not.

A painter goes with `sketchbridge paint --model`; `sketchbridge roundtrip --model NAME` needs `NAME_roundtrip`."""

_EXAMPLES = """examples:
  sketchbridge models
  sketchbridge models --url 127.0.0.1:8001 --json

exit status: 0 done, 1 the server could not be asked, 2 the call was wrong, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to argparse."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the models and return the exit status."""
    from sketchbridge_client import Client, InvalidArgument, Retry, SketchbridgeError  # noqa: PLC0415  heavy

    try:
        with Client(arguments.url, timeout_s=arguments.timeout_s, retry=Retry(first_contact_s=0)) as client:
            models = client.models()
    except InvalidArgument as exc:
        raise UsageError(f"{exc}") from exc
    except SketchbridgeError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return ExitStatus.FAILED
    if arguments.json:
        print(json.dumps({"url": arguments.url, "models": [_record(model) for model in models]}, indent=2))
    else:
        print("\n".join(_table(models)))
    return ExitStatus.DONE


def _record(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind.value,
        "versions": list(model.versions),
        "ready": model.ready,
        "reason": model.reason,
    }


def _table(models: Sequence[ModelInfo]) -> list[str]:
    rows = [("NAME", "KIND", "VERSIONS", "STATE")]
    for model in models:
        # One line a model: of a reason that is a traceback, the first line names the fault.
        state = "ready" if model.ready else f"not ready: {model.reason.splitlines()[0]}"
        rows.append((model.name, model.kind.value, ", ".join(model.versions) or "-", state))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]
