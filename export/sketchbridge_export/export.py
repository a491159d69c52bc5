"""From a checkpoint to a new version in a model repository: read, recognise, rebuild, export, compare, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sketchbridge_export.artefacts import onnx
from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid
from sketchbridge_export.families import FAMILIES, NORM_MODES, Choices, NormMode, find_family
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.manifest import FILE_NAME as MANIFEST_NAME
from sketchbridge_export.manifest import build_manifest, file_sha256, write_manifest
from sketchbridge_export.parity import Comparison, check_onnx
from sketchbridge_export.parity_pictures import read_pictures, shipped_pictures
from sketchbridge_export.repository import check_repository, publish, staging
from sketchbridge_export.sources import Checkpoint, load_checkpoint

_METADATA_CHOICES = ("family", "norm")


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    path: the new version's folder. added: models new in the repository. facts: what was read from the weights.
    """

    name: str
    version: int
    path: Path
    added: tuple[str, ...]
    family: str
    norm: str
    weights: str
    facts: Mapping[str, Any]
    size_bytes: int
    parity: tuple[Comparison, ...]
    duration_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "name": self.name,
            "version": self.version,
            "path": str(self.path),
            "added": list(self.added),
            "family": self.family,
            "norm": self.norm,
            "weights": self.weights,
            "network": dict(self.facts),
            "size_bytes": self.size_bytes,
            "parity": [comparison.as_json() for comparison in self.parity],
            "duration_s": round(self.duration_s, 3),
        }


def _silent(_: str) -> None:
    pass


def export_checkpoint(
    path: Path,
    *,
    name: str,
    repository: Path,
    family: str | None = None,
    norm: str | None = None,
    weights: str = "fp32",
    pictures: Path | None = None,
    progress: Callable[[str], None] = _silent,
) -> ExportReport:
    """Export the generator in `path` as the newest version of `<name>_generator` in `repository`.

    family: which family the checkpoint is of; None recognises it. norm: "running" or "instance" statistics; None takes
    what the checkpoint's `sketchbridge` metadata says, else the family's default. weights: "fp32" or "fp16", how they
    are stored. pictures: a folder of pictures to compare on; None takes the drawings that the package ships.
    progress: called with a line a step.

    Raises ExportError. Nothing is published unless everything succeeded.
    """
    began = time.monotonic()
    weights_kind = next((kind for kind in onnx.WEIGHTS if kind == weights), None)
    if weights_kind is None:
        raise OptionInvalid(f"weights is {weights!r}; there are: {', '.join(onnx.WEIGHTS)}.")
    asked_norm = _norm_mode(norm)
    check_repository(repository, name)
    shown = shipped_pictures() if pictures is None else read_pictures(pictures)

    progress(f"reading `{path}`")
    checkpoint = load_checkpoint(path)
    said = _read_metadata(checkpoint)
    record = find_family(checkpoint.weights, name=family or said.get("family"))
    try:
        generator = record.rebuild(checkpoint.weights, Choices(norm=asked_norm or _norm_mode(said.get("norm"))))
    except OptionInvalid as exc:
        if asked_norm is not None:
            raise
        raise CheckpointInvalid(
            f"The `sketchbridge` metadata of `{path}` does not fit its weights: {exc} Or choose with --norm."
        ) from exc
    facts = ", ".join(f"{key} {value}" for key, value in generator.facts.items())
    progress(f"recognised {record.name}: {facts}; normalising with {generator.norm} statistics")

    convention = generator.convention or record.convention
    interface = GeneratorInterface(generator, convention).eval()
    with staging(repository) as stage:
        folder = stage / "version"
        folder.mkdir()
        artefact = folder / onnx.FILE_NAME
        progress(f"exporting {onnx.FILE_NAME} with {weights} weights")
        onnx.write_onnx(interface, artefact, weights=weights_kind)
        progress(f"comparing it with the checkpoint on {len(shown)} pictures")
        parity = check_onnx(interface, artefact, shown, weights=weights)
        progress(f"it differs by {max(found.max_levels for found in parity)} grey levels at most")
        manifest = build_manifest(
            checkpoint=checkpoint,
            family=record,
            generator=generator,
            convention=convention,
            weights=weights,
            artefact=artefact,
            parity=parity,
        )
        write_manifest(manifest, folder / MANIFEST_NAME)
        described = manifest["artefacts"][onnx.FILE_NAME]
        digests = {onnx.FILE_NAME: described["sha256"], MANIFEST_NAME: file_sha256(folder / MANIFEST_NAME)}
        published = publish(folder, name=name, repository=repository, sha256=digests)
    return ExportReport(
        name=name,
        version=published.version,
        path=published.path,
        added=published.added,
        family=record.name,
        norm=generator.norm,
        weights=weights,
        facts=generator.facts,
        size_bytes=described["size_bytes"],
        parity=parity,
        duration_s=time.monotonic() - began,
    )


def _norm_mode(norm: str | None) -> NormMode | None:
    if norm is None:
        return None
    for mode in NORM_MODES:
        if norm == mode:
            return mode
    raise OptionInvalid(f"norm is {norm!r}; there are: {', '.join(NORM_MODES)}.")


def _read_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """The choices that the checkpoint makes for itself; everything else in its metadata is only recorded."""
    said = {key: checkpoint.metadata[key] for key in _METADATA_CHOICES if checkpoint.metadata.get(key) is not None}
    allowed = {"family": tuple(FAMILIES), "norm": NORM_MODES}
    for key, value in said.items():
        if value not in allowed[key]:
            raise CheckpointInvalid(
                f"The `sketchbridge` metadata of `{checkpoint.path}` says {key} {value!r}; "
                f"there are: {', '.join(allowed[key])}."
            )
    return said
