"""Reads a file with a library that damage can hang or end: in a process of its own, with a limit on its time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.files import first_line

NOT_USABLE = 3  # the exit status of a script that says on stdout what is wrong


def read_apart(
    path: Path, script: str, arguments: Sequence[str], *, file: IO[bytes] | None, timeout_s: float
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that a script beside this module writes into the NumPy archive whose name it is given last.

    path: what is read, for messages. file: what the script finds on its stdin. Raises CheckpointInvalid, with what the
    script says, if it finds the file unusable, fails or takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="sketchbridge-") as folder:
        output = Path(folder) / "variables.npz"
        try:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name(script)), *arguments, str(output)],
                check=False,
                stdin=subprocess.DEVNULL if file is None else file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as exc:
            raise CheckpointInvalid(
                f"`{path}` is damaged: reading it took more than {timeout_s:.0f} s. Copy it again."
            ) from exc
        if done.returncode == NOT_USABLE:
            raise CheckpointInvalid(" ".join(done.stdout.decode("utf-8", "replace").split())[:600])
        if done.returncode != 0:
            raise CheckpointInvalid(f"`{path}` is damaged: what reads it failed. Copy it again.")
        try:
            with np.load(output, allow_pickle=False) as archive:
                return dict(archive.items())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
            raise CheckpointInvalid(f"What was read of `{path}` could not be passed on: {first_line(exc)}.") from exc
