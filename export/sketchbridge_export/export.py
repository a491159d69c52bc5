"""From a checkpoint to a new version in a model repository: read, recognise, rebuild, export, certify, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sketchbridge_export.artefacts import onnx
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.golden import FILE_NAME as GOLDEN_NAME
from sketchbridge_export.golden import write_golden
from sketchbridge_export.gpu_config import Plans
from sketchbridge_export.manifest import FILE_NAME as MANIFEST_NAME
from sketchbridge_export.manifest import build_manifest, file_sha256, write_manifest
from sketchbridge_export.parity_pictures import read_pictures, shipped_pictures
from sketchbridge_export.production import Artefact, Order, PlanOptions, check_kinds, check_options, make_artefacts
from sketchbridge_export.reconstruction import Wishes, check_wishes, reconstruct
from sketchbridge_export.repository import check_repository, publish, staging


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
    dropout: str
    facts: Mapping[str, Any]
    artefacts: tuple[Artefact, ...]
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
            "dropout": self.dropout,
            "network": dict(self.facts),
            "artefacts": {
                artefact.kind: {
                    "files": [path.name for path in artefact.files],
                    **artefact.details,
                    "certificates": [certificate.as_json() for certificate in artefact.certificates],
                }
                for artefact in self.artefacts
            },
            "duration_s": round(self.duration_s, 3),
        }


def _silent(_: str) -> None:
    pass


def export_checkpoint(
    path: Path,
    *,
    name: str,
    repository: Path,
    wishes: Wishes | None = None,
    artefacts: Sequence[str] = (),
    weights: str = "fp32",
    serve: str | None = None,
    calibration: Path | None = None,
    min_ssim: float | None = None,
    plan_options: PlanOptions | None = None,
    pictures: Path | None = None,
    evidence: Path | None = None,
    progress: Callable[[str], None] = _silent,
) -> ExportReport:
    """Export the generator in `path` as the newest version of `<name>_generator` in `repository`.

    wishes: how the checkpoint is to be understood; None takes what it says itself, else what its family does.
    artefacts: kinds beside ONNX, see KINDS in production.py. weights: "fp32" or "fp16", how they are stored. serve: the
    artefact that a new model serves on the CPU; None is ONNX. calibration: a folder of photos or drawings to quantise
    with, and pictures: one of drawings to compare on; None takes the drawings that the package ships. min_ssim: what an
    INT8 artefact must reach; None takes the table's. plan_options: how TensorRT plans are built. evidence: the folder
    for a picture of the worst result if an artefact fails; None is the current one. progress: called a line a step.

    Raises ExportError. Nothing is published unless everything succeeded.
    """
    began = time.monotonic()
    wishes = wishes or Wishes()
    plan_options = plan_options or PlanOptions()
    weights_kind = next((kind for kind in onnx.WEIGHTS if kind == weights), None)
    if weights_kind is None:
        raise OptionInvalid(f"weights is {weights!r}; there are: {', '.join(onnx.WEIGHTS)}.")
    check_wishes(wishes)
    check_kinds(artefacts)
    check_options(artefacts, calibration=calibration, min_ssim=min_ssim, plan_options=plan_options)
    check_repository(repository, name, kinds=artefacts, serve=serve)
    own = None if pictures is None else read_pictures(pictures)

    progress(f"reading `{path}`")
    found = reconstruct(path, wishes)
    for note in found.source.notes:
        progress(note)
    facts = ", ".join(f"{key} {value}" for key, value in found.network.items())
    progress(f"recognised {found.family}: {facts or found.title}; norm: {found.norm}, dropout: {found.dropout}")
    shown = shipped_pictures() if own is None else own

    with staging(repository) as stage:
        folder = stage / "version"
        folder.mkdir()
        order = Order(
            name=name,
            folder=folder,
            write_onnx=found.write_onnx,
            pictures=shown,
            expected=found.paint(shown),
            weights=weights_kind,
            calibration=calibration,
            min_ssim=min_ssim,
            plan_options=plan_options,
            evidence=evidence or Path(),
            progress=progress,
        )
        made = make_artefacts(order, artefacts)
        write_golden(order.pictures, order.expected, folder / GOLDEN_NAME)
        manifest = build_manifest(found, made, shown, _said(wishes, weights, min_ssim, plan_options))
        write_manifest(manifest, folder / MANIFEST_NAME)
        digests = {
            file: described["sha256"]
            for artefact in manifest["artefacts"].values()
            for file, described in artefact["files"].items()
        }
        digests |= {file: file_sha256(folder / file) for file in (GOLDEN_NAME, MANIFEST_NAME)}
        published = publish(
            folder,
            name=name,
            repository=repository,
            sha256=digests,
            kinds=artefacts,
            serve=serve,
            plans=_plans(made),
        )
    return ExportReport(
        name=name,
        version=published.version,
        path=published.path,
        added=published.added,
        family=found.family,
        norm=found.norm,
        dropout=found.dropout,
        facts=found.network,
        artefacts=made,
        duration_s=time.monotonic() - began,
    )


def _said(wishes: Wishes, weights: str, min_ssim: float | None, plan_options: PlanOptions) -> dict[str, Any]:
    """What decides on the pictures and files of an export and is not the default, named as on the command line."""
    said = {key.removesuffix("_seed").replace("_", "-"): value for key, value in asdict(wishes).items()}
    said |= {"weights": None if weights == onnx.WEIGHTS[0] else weights, "min-ssim": min_ssim}
    if plan_options.hardware_compatibility != "none":
        said["hardware-compatibility"] = plan_options.hardware_compatibility
    if plan_options.version_compatible:
        said["version-compatible"] = True
    return {key: value for key, value in said.items() if value is not None}


def _plans(artefacts: Sequence[Artefact]) -> Plans | None:
    """What configs/gpu.pbtxt is to name: the plans that Triton can load."""
    plan = next((artefact for artefact in artefacts if artefact.kind in ("tensorrt", "tensorrt-int8")), None)
    if plan is None:
        return None
    file, details = plan.files[0].name, plan.details
    if details["hardware_compatibility"] == "ampere+":
        return Plans({}, portable=file, max_batch_size=details["max_batch"])
    return Plans({details["compute_capabilities"][0]: file}, max_batch_size=details["max_batch"])
