"""manifest.json: what an artefact was made from, with what, and how close it came."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import RepositoryError
from sketchbridge_export.families import Convention, Family, Generator
from sketchbridge_export.parity import TOLERANCES, Comparison
from sketchbridge_export.sources import Checkpoint
from sketchbridge_preprocess import INTERFACE_SIDE_PX

FILE_NAME = "manifest.json"
_SCHEMA = 1
_TOOLS = ("sketchbridge", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def build_manifest(
    *,
    checkpoint: Checkpoint,
    family: Family,
    generator: Generator,
    convention: Convention,
    weights: str,
    artefact: Path,
    parity: Sequence[Comparison],
) -> dict[str, Any]:
    """Plain JSON values. It names files but no folders, so it can be published with the model."""
    tolerance = TOLERANCES[weights]
    return {
        "schema": _SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint": {
            "file": checkpoint.path.name,
            "sha256": checkpoint.sha256,
            "metadata": dict(checkpoint.metadata),
        },
        "family": family.name,
        "source": family.source,
        "network": {
            "input_channels": generator.input_channels,
            "output_channels": generator.output_channels,
            "native_size": generator.native_size,
            "norm": generator.norm,
            "dropout": generator.dropout,
            **generator.facts,
        },
        "interface": {
            "size": INTERFACE_SIDE_PX,
            "input_range": asdict(convention.input_range),
            "output_range": asdict(convention.output_range),
            "channel_order": convention.channel_order,
            "line_polarity": convention.line_polarity,
        },
        "artefacts": {
            artefact.name: {
                "sha256": file_sha256(artefact),
                "size_bytes": artefact.stat().st_size,
                "weights": weights,
                "parity": {
                    "tolerance": {"max_levels": tolerance.max_levels, "mean_levels": tolerance.mean_levels},
                    "batches": [comparison.as_json() for comparison in parity],
                },
            }
        },
        "tools": {"python": platform.python_version()} | {tool: _version(tool) for tool in _TOOLS},
    }


def write_manifest(manifest: dict[str, Any], path: Path) -> None:
    """Write it as indented UTF-8 JSON. Raises RepositoryError if the file can't be written."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc


def file_sha256(path: Path) -> str:
    """Hex digest of the file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
