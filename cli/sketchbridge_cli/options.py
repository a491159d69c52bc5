"""The options that several commands share, and what they are turned into."""

from __future__ import annotations

import argparse
import math
import os
from typing import Any

from sketchbridge_cli.errors import UsageError

# The client's own defaults. They are written again because importing the client costs what `--help` should not;
# a test holds them equal.
DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 30.0
MOST_JOBS = 64
"""Each holds one picture and its answer in memory. A server answers no faster with more of them waiting."""

_OPTIONS = {
    "fit": "--fit",
    "method": "--method",
    "model": "--model",
    "normalise": "--normalise",
    "output_format": "--output-format",
    "quality": "--quality",
    "timeout_s": "--timeout",
}


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add --url and --timeout."""
    url = os.environ.get("SKETCHBRIDGE_URL") or DEFAULT_URL
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--url",
        default=url,
        metavar="HOST:PORT",
        help="the server's gRPC port, or http://HOST:PORT for its HTTP port "
        f"(default: {url.replace('%', '%%')}; SKETCHBRIDGE_URL sets it)",
    )
    group.add_argument(
        "--timeout",
        dest="timeout_s",
        type=_timeout_s,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long one request may take, or `none` for no limit (default: {DEFAULT_TIMEOUT_S:g})",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="answer in JSON, for scripts")


def add_batch(parser: argparse.ArgumentParser, *, default_folder_jobs: int) -> None:
    """Add --recursive, --jobs and --again. default_folder_jobs: of --jobs, where a folder is among the inputs."""
    parser.add_argument(
        "--recursive", action="store_true", help="look into sub-folders too, and keep them under --output"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        metavar=f"1-{MOST_JOBS}",
        help=f"pictures that are worked on at a time (default: {default_folder_jobs} with a folder, else 1)",
    )
    parser.add_argument(
        "--again", action="store_true", help="of a folder, make anew what an earlier run has made already"
    )


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add --output-format and --quality."""
    parser.add_argument(
        "--output-format",
        choices=["png", "jpeg", "webp"],
        help="format of what is made (default: by the suffix of --output, else png)",
    )
    parser.add_argument("--quality", type=int, metavar="1-100", help="of JPEG and WebP (default: the server's)")


def add_fitting(parser: argparse.ArgumentParser) -> None:
    """Add --fit and --normalise."""
    parser.add_argument(
        "--fit", choices=["letterbox", "crop", "stretch"], help="how a drawing is made square (default: the server's)"
    )
    parser.add_argument(
        "--normalise",
        choices=["auto", "off"],
        help="off: the drawing is only fitted, not redrawn (default: the server's)",
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add --method and --set."""
    parser.add_argument("--method", help="how lines are found: canny, laplacian, dodge or xdog (default: the server's)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="a number of the method, such as low_threshold=50, or an option of the server that has no flag here, such "
        "as max_side_px=512; may be repeated",
    )


def method_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The --set options as one dict. Raises UsageError if one is given twice, or has a flag of its own."""
    parameters: dict[str, Any] = {}
    for key, value in arguments.settings:
        if key in _OPTIONS and hasattr(arguments, key):
            raise UsageError(f"`--set {key}=...` is not possible; use {_OPTIONS[key]}.")
        if key in parameters:
            raise UsageError(f"`--set {key}=...` is given twice.")
        parameters[key] = value
    return parameters


def _timeout_s(text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected more than 0 seconds, or `none` for no limit")
    return seconds


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_JOBS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs: expected 1 to {MOST_JOBS}")
    return int(text)


def _setting(text: str) -> tuple[str, str | bool | int | float]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no setting: expected KEY=VALUE, such as sigma=0.8")
    return key, _value(value)


def _value(text: str) -> str | bool | int | float:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text
