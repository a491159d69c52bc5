"""What a file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sketchbridge_export.families import Weights


@dataclass(frozen=True)
class Checkpoint:
    """A generator's weights: the network around them is rebuilt.

    sha256: of the file (of a folder: of its files' digests). metadata: what the file's `sketchbridge` entry says, plain
    JSON values; empty if it has none. weights: wrapper prefixes removed, float32.
    """

    path: Path
    sha256: str
    weights: Weights
    metadata: Mapping[str, Any]
