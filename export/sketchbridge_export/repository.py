"""Adds a version to a model repository that a Triton may be serving at this moment.

Everything is written into a staging folder first and then renamed in: building blocks, generator, ensembles, in this
order, so that no reader sees half a version or an ensemble before its steps. If a rename fails, those before it are
taken back.

Triton takes every folder at the repository's root for a model, hidden ones too, and refuses to start over one without
versions. So the staging folder lies beside the repository, where one file system holds both. If that can't be (the
repository is a mount), it lies inside one of the repository's models, where Triton ignores folders that are no numbers.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_export import gpu_config, triton_config
from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.gpu_config import Plans
from sketchbridge_export.manifest import file_sha256
from sketchbridge_export.shipped import building_block

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """What a publication changed.

    version: the new version's number; path: its folder. added: models that were new in the repository.
    """

    version: int
    path: Path
    added: tuple[str, ...]


def check_repository(
    repository: Path, name: str, *, kinds: Collection[str] | None = None, serve: str | None = None
) -> None:
    """Raise what `publish` would raise before writing anything, so that it is known before the long work.

    kinds: the artefacts that the new version will have beside ONNX; None leaves out what depends on them. serve: the
    one that config.pbtxt is to name; None is for whichever it names, ONNX in a new one.
    Raises OptionInvalid if the name can't be used or `serve` is not made, RepositoryError if the folder or `encode`
    can't be read, if a model of one of the names is something else, or if its configurations name what the new version
    won't have.
    """
    triton_config.check_name(name)
    generator = triton_config.generator_name(name)
    try:
        if repository.exists() and not repository.is_dir():
            raise RepositoryError(f"`{repository}` is a file; pass the folder that Triton serves.")
        _check_claim(repository, generator, 'name: "sketch"')
        for ensemble in (name, triton_config.roundtrip_name(name)):
            _check_claim(repository, ensemble, f'model_name: "{generator}"')
        _tells_timings(repository)
        if kinds is not None:
            _check_served(repository / generator, {triton_config.DEFAULT_KIND, *kinds}, serve)
    except OSError as exc:
        raise RepositoryError(f"`{exc.filename or repository}` can't be read: {exc.strerror}.") from exc


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """An empty folder on the repository's file system, removed at the end whatever happens.

    The repository is made if it is missing. Folders that killed exports left behind are removed as well.
    Raises RepositoryError if the folder can't be made.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _locked(repository):
            parent = _staging_parent(repository)
            prefix = f".{repository.resolve().name}-staging-"
            _remove_abandoned(parent, prefix)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)  # held for as long as this export lives
    except OSError as exc:
        raise RepositoryError(f"`{repository}` can't be written: {exc.strerror}.") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def publish(
    version_folder: Path,
    *,
    name: str,
    repository: Path,
    sha256: dict[str, str],
    kinds: Collection[str] = (),
    serve: str | None = None,
    plans: Plans | None = None,
) -> Published:
    """Move a finished version into the repository as the newest version of `<name>_generator`.

    version_folder: model.onnx and manifest.json, in the folder that `staging` gave, which is used for the rest too.
    sha256: file name -> digest the file must still have. kinds, serve: see `check_repository`. plans: the TensorRT
    plans in the version; configs/gpu.pbtxt is made to name them. What is missing of config.pbtxt, ensembles and
    building blocks is added; what is there is left alone. Raises what `check_repository` does, and RepositoryError;
    then the repository is as it was.
    """
    triton_config.check_name(name)
    try:
        for file, digest in sha256.items():
            if file_sha256(version_folder / file) != digest:
                raise RepositoryError(
                    f"`{file}` has changed on disk since it was compared. Check the disk and export again."
                )
        with _locked(repository):
            check_repository(repository, name, kinds=kinds, serve=serve)  # another export may have come before
            version, moves = _prepare(version_folder, name, repository, serve or triton_config.DEFAULT_KIND, plans)
            _sync_tree(version_folder.parent)
            _move_all(moves)
            _sync(repository)
    except OSError as exc:
        raise RepositoryError(f"`{repository}` can't be written: {exc.strerror or exc}.") from exc
    added = tuple(target.name for _, target in moves if target.parent == repository)
    path = repository / triton_config.generator_name(name) / str(version)
    logger.info("published model=%s version=%d added=%s", triton_config.generator_name(name), version, ",".join(added))
    return Published(version, path, added)


def _prepare(
    version_folder: Path, name: str, repository: Path, serve: str, plans: Plans | None
) -> tuple[int, list[tuple[Path, Path]]]:
    """Write everything that is missing beside `version_folder`; return the version and the (from, to) renames."""
    stage = version_folder.parent
    moves: list[tuple[Path, Path]] = []
    for block in triton_config.BUILDING_BLOCKS:
        if not (repository / block).exists():
            _copy_building_block(block, stage / block)
            moves.append((stage / block, repository / block))
    generator = triton_config.generator_name(name)
    version = _newest_version(repository / generator) + 1
    if (repository / generator).exists():
        if not (repository / generator / triton_config.CONFIG_NAME).exists():
            config = stage / triton_config.CONFIG_NAME
            config.write_text(triton_config.generator_config(name, serve), encoding="utf-8")
            moves.append((config, repository / generator / triton_config.CONFIG_NAME))
        moves.append((version_folder, repository / generator / str(version)))
        if plans is not None:  # last: a Triton that reloads in between finds the plans
            moves.append(_prepare_gpu_config(stage, name, repository / generator, plans))
    else:
        (stage / generator).mkdir()
        (stage / generator / triton_config.CONFIG_NAME).write_text(
            triton_config.generator_config(name, serve), encoding="utf-8"
        )
        if plans is not None:
            _prepare_gpu_config(stage / generator, name, None, plans)
        version_folder.rename(stage / generator / str(version))
        moves.append((stage / generator, repository / generator))
    timings = _tells_timings(repository)
    ensembles = {
        name: triton_config.paint_config(name, timings=timings),
        triton_config.roundtrip_name(name): triton_config.roundtrip_config(name, timings=timings),
    }
    for ensemble, text in ensembles.items():
        if not (repository / ensemble).exists():
            _write_ensemble(stage / ensemble, text, generator)
            moves.append((stage / ensemble, repository / ensemble))
    return version, moves


def _prepare_gpu_config(stage: Path, name: str, model: Path | None, plans: Plans) -> tuple[Path, Path]:
    """Write configs/gpu.pbtxt into `stage`; return the rename that puts it into `model`, None being a new one."""
    folder = stage / gpu_config.FOLDER_NAME
    folder.mkdir()
    staged = folder / gpu_config.FILE_NAME
    there = None if model is None else model / gpu_config.FOLDER_NAME / gpu_config.FILE_NAME
    if there is not None and there.exists():
        text = gpu_config.with_plans(there.read_text(encoding="utf-8"), plans, there)
    else:
        text = gpu_config.gpu_config(name, plans)
    staged.write_text(text, encoding="utf-8")
    if there is None:
        return folder, folder
    return (staged, there) if there.parent.is_dir() else (folder, there.parent)


def _copy_building_block(name: str, target: Path) -> None:
    compiled = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(building_block(name), target, ignore=compiled, copy_function=shutil.copyfile)


def _write_ensemble(folder: Path, config: str, generator: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / triton_config.CONFIG_NAME).write_text(config, encoding="utf-8")
    # Triton wants a version folder even for an ensemble, and Git keeps no empty ones.
    note = {"ensemble_of": generator, "artefacts": {}}
    (folder / "1" / "manifest.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _move_all(moves: list[tuple[Path, Path]]) -> None:
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            done.append((source, target))
            if target.is_file():
                _before(source).hardlink_to(target)
            source.rename(target)
            _sync(target.parent)
    except BaseException:  # Ctrl-C as well
        for source, target in reversed(done):
            if _before(source).exists():
                _before(source).replace(target)
            elif not source.exists() and target.exists():
                target.rename(source)
        raise


def _before(source: Path) -> Path:
    """Where the file lies, for the time of a publication, that `source` takes the place of."""
    return source.with_name(f"{source.name}.before")


def _check_served(model: Path, kinds: set[str], serve: str | None) -> None:
    """Refuse a version that lacks what the model's configurations name."""
    if serve is not None and (serve not in kinds or serve not in triton_config.SERVED):
        if serve in triton_config.SERVED:
            raise OptionInvalid(f"{serve} can't be served: it is not made. Add `--artefacts {serve}`.")
        known = ", ".join(triton_config.SERVED)
        raise OptionInvalid(f"{serve!r} can't be served on the CPU; these can: {known}.")
    config = model / triton_config.CONFIG_NAME
    if config.is_file():
        serving = triton_config.read_serving(config)
        files = {triton_config.SERVED[kind].file for kind in kinds if kind in triton_config.SERVED}
        if serving.file not in files or (serving.kind is not None and serving.kind not in kinds):
            what = f"`{serving.file}`" if serving.kind is None else f"`{serving.file}` as {serving.kind}"
            advice = "Export what it names" if serving.kind is None else f"Pass --artefacts {serving.kind}"
            raise RepositoryError(
                f"`{config}` serves {what}, which this export does not make. {advice}, or change that file."
            )
        if serve is not None and serve != serving.kind:
            raise RepositoryError(
                f"`{config}` serves `{serving.file}` and is yours to change since the first export. To serve {serve}, "
                f"write {triton_config.SERVED[serve].how()} into it."
            )
    plans = model / gpu_config.FOLDER_NAME / gpu_config.FILE_NAME
    if plans.is_file():
        if not kinds & {"tensorrt", "tensorrt-int8"}:
            raise RepositoryError(
                f"`{plans}` serves TensorRT plans, and this export makes none, so GPUs could not serve the new "
                "version. Pass --artefacts tensorrt on a machine with the GPU, or remove that file."
            )
        gpu_config.check_layout(plans)


def _check_claim(repository: Path, model: str, sign: str) -> None:
    """Refuse to extend a model that an export did not write; `sign` is what its config would contain."""
    config = repository / model / triton_config.CONFIG_NAME
    if config.is_file() and sign not in config.read_text(encoding="utf-8", errors="replace"):
        raise RepositoryError(f"`{config}` belongs to another model: it has no `{sign}`. Choose another name.")


def _tells_timings(repository: Path) -> bool:
    """Whether a new ensemble can have `timings`: Triton loads none whose `encode`, of an older export, lacks them."""
    encode = repository / "encode"
    config = encode / triton_config.CONFIG_NAME
    return not encode.exists() or (config.is_file() and triton_config.tells_timings(config))


def _newest_version(model: Path) -> int:
    if not model.is_dir():
        return 0
    return max((int(folder.name) for folder in model.iterdir() if folder.name.isdecimal()), default=0)


def _staging_parent(repository: Path) -> Path:
    repository = repository.resolve()
    outside = repository.parent
    if outside.stat().st_dev == repository.stat().st_dev and os.access(outside, os.R_OK | os.W_OK | os.X_OK):
        return outside
    models = sorted(folder for folder in repository.iterdir() if (folder / triton_config.CONFIG_NAME).is_file())
    return models[0] if models else repository  # nothing is served from a repository without models


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for folder in parent.iterdir():
        if not folder.name.startswith(prefix):
            continue
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # its own export has just removed it, or it is another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its export is alive
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock: exports on this machine take turns, and the lock ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
