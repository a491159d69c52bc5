"""Which format is asked of the server, and how the files that are named here end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal

from sketchbridge_cli.errors import UsageError

OutputFormat = Literal["png", "jpeg", "webp"]

# The client knows these too, but does not show them; a test holds them equal.
SUFFIXES: Mapping[OutputFormat, tuple[str, ...]] = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}
"""Of the files of each format, the usual one first."""


def choose_format(asked: OutputFormat | None, output_file: str | None) -> tuple[OutputFormat, str]:
    """The format to ask for, and the suffix of the names made here.

    asked: as --output-format says. output_file: the file that --output names, None if it names none.
    Raises UsageError if its suffix names no format, or another one than was asked for.
    """
    if output_file is None:
        chosen = asked or "png"
        return chosen, SUFFIXES[chosen][0]
    suffix = PurePath(output_file).suffix
    named = next((known for known, suffixes in SUFFIXES.items() if suffix.lower() in suffixes), None)
    if named is None:
        every = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        came = f"ends in `{suffix}`" if suffix else "has no suffix"
        raise UsageError(
            f"`{output_file}` {came}, so its format is not known. Use one of {every}. A folder ends in `/`."
        )
    if asked is not None and asked != named:
        raise UsageError(f"`--output-format {asked}` and `--output {output_file}` contradict each other. Drop one.")
    return named, suffix
