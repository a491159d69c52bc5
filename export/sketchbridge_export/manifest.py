"""manifest.json: what an artefact was made from, with what, and how close it came."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import RepositoryError
from sketchbridge_export.parity import Pictures
from sketchbridge_export.production import Artefact
from sketchbridge_export.reconstruction import Reconstruction
from sketchbridge_preprocess import INTERFACE_SIDE_PX

FILE_NAME = "manifest.json"
SCHEMA = 2
_TOOLS = ("sketchbridge", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy")


def build_manifest(
    found: Reconstruction, artefacts: Sequence[Artefact], pictures: Pictures, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain JSON values. It names files but no folders, so it can be published with the model.

    pictures: what the artefacts were compared on. options: what the caller asked for beyond defaults, named as on the
    command line.
    """
    source = found.source
    return {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint": {
            "file": source.path.name,
            "format": source.format,
            "sha256": source.sha256,
            "notes": list(source.notes),
            "metadata": dict(source.metadata),
        },
        "options": dict(options),
        "family": found.family,
        "source": found.origin,
        "network": {
            "input_channels": found.input_channels,
            "output_channels": found.output_channels,
            "native_size": found.native_size,
            "norm": found.norm,
            "dropout": found.dropout,
            **found.network,
        },
        "interface": {"size": INTERFACE_SIDE_PX, **asdict(found.convention)},
        "compared_on": {"pictures": len(pictures), "sha256": hashlib.sha256(pictures.tobytes()).hexdigest()},
        "artefacts": {artefact.kind: _describe(artefact) for artefact in artefacts},
        "tools": {"python": platform.python_version()} | {tool: _version(tool) for tool in _TOOLS},
    }


def _describe(artefact: Artefact) -> dict[str, Any]:
    return {
        "files": {
            path.name: {"sha256": file_sha256(path), "size_bytes": path.stat().st_size} for path in artefact.files
        },
        **artefact.details,
        "certificates": [certificate.as_json() for certificate in artefact.certificates],
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
