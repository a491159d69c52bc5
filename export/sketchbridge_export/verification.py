"""Checks a model repository again: are the files those that were certified, and do they still paint the same?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_export import gpu_config
from sketchbridge_export.certificate import Certificate, read_certificate
from sketchbridge_export.errors import BuildFailed, ExportError, RepositoryError
from sketchbridge_export.golden import FILE_NAME as GOLDEN_NAME
from sketchbridge_export.golden import read_golden
from sketchbridge_export.manifest import FILE_NAME as MANIFEST_NAME
from sketchbridge_export.manifest import SCHEMA, file_sha256
from sketchbridge_export.parity import Paint, Tolerance, measure, out_of_tolerance
from sketchbridge_export.production import painter_of, recorded_problem
from sketchbridge_export.triton_config import CONFIG_NAME, GENERATOR_SUFFIX, read_serving

_MAX_MANIFEST_BYTES = 1024**2


@dataclass(frozen=True)
class Finding:
    """What was found of one thing. subject: `model/version/kind or file`. problem: None if it is as it should be."""

    subject: str
    checked: str
    problem: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What a manifest says of an artefact. sha256: file name -> digest."""

    sha256: Mapping[str, str]
    certificates: tuple[Certificate, ...]


def verify_repository(
    repository: Path,
    *,
    paint: bool = True,
    served: Callable[[str, int], Paint] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Finding, ...]:
    """Check every version of every generator in `repository`.

    Digests of all files, that each certificate holds by today's table, that the configurations serve what was
    certified, and, with `paint`, that each artefact that this machine can run still paints its golden pictures.
    served: gives, for a generator's name and version, a painter that asks a running server; the newest version is then
    held against what the server paints.
    Raises RepositoryError if `repository` is no model repository. What is wrong inside becomes a finding.
    """
    try:
        models = sorted(folder for folder in repository.iterdir() if folder.name.endswith(GENERATOR_SUFFIX))
    except OSError as exc:
        raise RepositoryError(f"`{repository}` is not a model repository: {exc.strerror}.") from exc
    if not models:
        raise RepositoryError(f"`{repository}` has no generators; their names end with `{GENERATOR_SUFFIX}`.")
    findings: list[Finding] = []
    for model in models:
        versions = _versions(model)
        if not versions:
            findings.append(Finding(model.name, "versions", "it has none. Export one, or remove the folder."))
            continue
        for number in versions:
            progress(f"checking {model.name} version {number}")
            findings += _verify_version(model / str(number), paint=paint)
        findings += _verify_configurations(model / str(versions[0]))
        if served is not None:
            progress(f"painting with the served {model.name}")
            findings.append(_verify_served(model / str(versions[0]), served(model.name, versions[0])))
    return tuple(findings)


def _versions(model: Path) -> list[int]:
    """Newest first; none where `model` is no folder or can't be read."""
    try:
        return sorted((int(folder.name) for folder in model.iterdir() if folder.name.isdecimal()), reverse=True)
    except OSError:
        return []


def _verify_version(folder: Path, *, paint: bool) -> Iterator[Finding]:
    subject = f"{folder.parent.name}/{folder.name}"
    try:
        artefacts = read_artefacts(folder)
    except RepositoryError as exc:
        yield Finding(subject, MANIFEST_NAME, str(exc))
        return
    for kind, recorded in artefacts.items():
        problems = _digest_problems(folder, recorded.sha256)
        yield Finding(f"{subject}/{kind}", "digests", _advise(problems))
        for certificate in recorded.certificates:
            faults = out_of_tolerance(certificate.batches, certificate.tolerance)
            yield Finding(f"{subject}/{kind}", f"{certificate.precision} certificate", _advise(faults))
        if paint and not problems:
            yield _verify_painting(folder, kind, recorded)


def _verify_painting(folder: Path, kind: str, recorded: Recorded) -> Finding:
    certificate = recorded.certificates[-1]  # the artefact's own; a plan's first one is its graph's
    subject, checked = f"{folder.parent.name}/{folder.name}/{kind}", f"{certificate.precision} golden pictures"
    try:
        try:
            painter = painter_of(kind, [folder / name for name in recorded.sha256], certificate.precision)
        except BuildFailed as exc:
            return Finding(subject, f"{checked}: left out, this machine can't run it: {exc}")
        if painter is None:
            return Finding(subject, f"{checked}: left out, this machine can't run it")
        return Finding(subject, checked, _painting_problem(folder, painter, certificate.tolerance))
    except ExportError as exc:
        return Finding(subject, checked, str(exc))


def _verify_configurations(folder: Path) -> Iterator[Finding]:
    """Whether what would be served of the newest version is what has certificates."""
    model = folder.parent
    try:
        artefacts = read_artefacts(folder)
    except RepositoryError:  # a finding already
        return
    yield Finding(model.name, CONFIG_NAME, _config_problem(model / CONFIG_NAME, artefacts))
    config = model / gpu_config.FOLDER_NAME / gpu_config.FILE_NAME
    if config.exists():
        yield Finding(model.name, f"{gpu_config.FOLDER_NAME}/{gpu_config.FILE_NAME}", _plans_problem(config, artefacts))


def _config_problem(config: Path, artefacts: Mapping[str, Recorded]) -> str | None:
    try:
        serving = read_serving(config)
    except RepositoryError as exc:
        return str(exc)
    if serving.kind is not None and serving.kind not in artefacts:
        return f"it serves `{serving.file}` as {serving.kind}, which has no certificate. Export it, or serve another."
    if not any(serving.file in recorded.sha256 for recorded in artefacts.values()):
        return f"it serves `{serving.file}`, which has no certificate. Export it, or serve another."
    return None


def _plans_problem(config: Path, artefacts: Mapping[str, Recorded]) -> str | None:
    try:
        named = gpu_config.read_plans(config)
    except RepositoryError as exc:
        return str(exc)
    unknown = sorted(named - {name for recorded in artefacts.values() for name in recorded.sha256})
    return f"it serves {', '.join(unknown)}, which has no certificate. Export it." if unknown else None


def _verify_served(folder: Path, painter: Paint) -> Finding:
    """Which artefact is served, the server does not say: it must be as close as the loosest certificate asks."""
    subject = f"{folder.parent.name}/{folder.name}"
    try:
        recorded = read_artefacts(folder).values()
        loosest = max((one.tolerance for artefact in recorded for one in artefact.certificates), key=_looseness)
        return Finding(subject, "golden pictures, as served", _painting_problem(folder, painter, loosest))
    except ExportError as exc:
        return Finding(subject, "golden pictures, as served", str(exc))


def _looseness(tolerance: Tolerance) -> float:
    return 0.0 if tolerance.min_ssim is None else 2.0 - tolerance.min_ssim


def _painting_problem(folder: Path, painter: Paint, tolerance: Tolerance) -> str | None:
    pictures, expected = read_golden(folder / GOLDEN_NAME)
    return _advise(out_of_tolerance(measure(expected, painter, pictures).batches, tolerance))


def _advise(problems: Sequence[str]) -> str | None:
    return f"{'; '.join(problems)}. Export again." if problems else None


def read_artefacts(folder: Path) -> Mapping[str, Recorded]:
    """What a version's manifest says of its artefacts, by kind. Raises RepositoryError if it can't be read."""
    path = folder / MANIFEST_NAME
    try:
        if path.exists() and not path.is_file():
            raise RepositoryError(f"`{path}` is not a file.")
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise RepositoryError(f"`{path}` has more than {_MAX_MANIFEST_BYTES:,} bytes.")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema = manifest.get("schema")
        if schema != SCHEMA:
            raise RepositoryError(f"`{path}` is of schema {schema}; this version reads {SCHEMA}. Export again.")
        artefacts = {
            kind: Recorded(
                {name: str(file["sha256"]) for name, file in described["files"].items()},
                tuple(read_certificate(certificate) for certificate in described["certificates"]),
            )
            for kind, described in manifest["artefacts"].items()
        }
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be read: {exc.strerror}. Export again.") from exc
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise RepositoryError(f"`{path}` is no manifest: {type(exc).__name__} {exc}. Export again.") from exc
    if not artefacts:
        raise RepositoryError(f"`{path}` names no artefact. Export again.")
    for kind, recorded in artefacts.items():
        problem = recorded_problem(kind, recorded.sha256, [one.precision for one in recorded.certificates])
        if problem is not None:
            raise RepositoryError(f"`{path}` is no manifest of ours: {problem}. Export again.")
    return artefacts


def _digest_problems(folder: Path, sha256: Mapping[str, str]) -> list[str]:
    problems = []
    for name, digest in sha256.items():
        path = folder / name
        try:
            if path.parent != folder or not path.is_file():
                problems.append(f"`{name}` is missing")
            elif file_sha256(path) != digest:
                problems.append(f"`{name}` is not the file that was certified")
        except OSError as exc:
            problems.append(f"`{name}` can't be read: {exc.strerror}")
    return problems
