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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_export import triton_config
from sketchbridge_export.errors import RepositoryError
from sketchbridge_export.manifest import file_sha256
from sketchbridge_export.shipped import building_block

logger = logging.getLogger(__name__)

_CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Published:
    """What a publication changed.

    version: the new version's number; path: its folder. added: models that were new in the repository.
    """

    version: int
    path: Path
    added: tuple[str, ...]


def check_repository(repository: Path, name: str) -> None:
    """Raise what `publish` would raise before writing anything, so that it is known before the long work.

    Raises OptionInvalid if the name can't be used, RepositoryError if the folder can't be read or a model of one of the
    names is something else.
    """
    triton_config.check_name(name)
    generator = triton_config.generator_name(name)
    try:
        if repository.exists() and not repository.is_dir():
            raise RepositoryError(f"`{repository}` is a file; pass the folder that Triton serves.")
        _check_claim(repository, generator, 'name: "sketch"')
        for ensemble in (name, triton_config.roundtrip_name(name)):
            _check_claim(repository, ensemble, f'model_name: "{generator}"')
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


def publish(version_folder: Path, *, name: str, repository: Path, sha256: dict[str, str]) -> Published:
    """Move a finished version into the repository as the newest version of `<name>_generator`.

    version_folder: model.onnx and manifest.json, in the folder that `staging` gave, which is used for the rest too.
    sha256: file name -> digest the file must still have. What is missing of config.pbtxt, ensembles and building blocks
    is added; what is there is left alone. Raises RepositoryError; then the repository is as it was.
    """
    check_repository(repository, name)
    try:
        for file, digest in sha256.items():
            if file_sha256(version_folder / file) != digest:
                raise RepositoryError(
                    f"`{file}` has changed on disk since it was compared. Check the disk and export again."
                )
        with _locked(repository):
            version, moves = _prepare(version_folder, name, repository)
            _sync_tree(version_folder.parent)
            _move_all(moves)
            _sync(repository)
    except OSError as exc:
        raise RepositoryError(f"`{repository}` can't be written: {exc.strerror or exc}.") from exc
    added = tuple(target.name for _, target in moves if target.parent == repository)
    path = repository / triton_config.generator_name(name) / str(version)
    logger.info("published model=%s version=%d added=%s", triton_config.generator_name(name), version, ",".join(added))
    return Published(version, path, added)


def _prepare(version_folder: Path, name: str, repository: Path) -> tuple[int, list[tuple[Path, Path]]]:
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
        if not (repository / generator / _CONFIG).exists():
            config = stage / _CONFIG
            config.write_text(triton_config.generator_config(name), encoding="utf-8")
            moves.append((config, repository / generator / _CONFIG))
        moves.append((version_folder, repository / generator / str(version)))
    else:
        (stage / generator).mkdir()
        (stage / generator / _CONFIG).write_text(triton_config.generator_config(name), encoding="utf-8")
        version_folder.rename(stage / generator / str(version))
        moves.append((stage / generator, repository / generator))
    ensembles: tuple[tuple[str, Callable[[str], str]], ...] = (
        (name, triton_config.paint_config),
        (triton_config.roundtrip_name(name), triton_config.roundtrip_config),
    )
    for ensemble, config_of in ensembles:
        if not (repository / ensemble).exists():
            _write_ensemble(stage / ensemble, config_of(name), generator)
            moves.append((stage / ensemble, repository / ensemble))
    return version, moves


def _copy_building_block(name: str, target: Path) -> None:
    compiled = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(building_block(name), target, ignore=compiled, copy_function=shutil.copyfile)


def _write_ensemble(folder: Path, config: str, generator: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / _CONFIG).write_text(config, encoding="utf-8")
    # Triton wants a version folder even for an ensemble, and Git keeps no empty ones.
    note = {"ensemble_of": generator, "artefacts": {}}
    (folder / "1" / "manifest.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _move_all(moves: list[tuple[Path, Path]]) -> None:
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            done.append((source, target))
            source.rename(target)
            _sync(target.parent)
    except BaseException:  # Ctrl-C as well
        for source, target in reversed(done):
            if not source.exists() and target.exists():
                target.rename(source)
        raise


def _check_claim(repository: Path, model: str, sign: str) -> None:
    """Refuse to extend a model that an export did not write; `sign` is what its config would contain."""
    config = repository / model / _CONFIG
    if config.is_file() and sign not in config.read_text(encoding="utf-8", errors="replace"):
        raise RepositoryError(f"`{config}` belongs to another model: it has no `{sign}`. Choose another name.")


def _newest_version(model: Path) -> int:
    if not model.is_dir():
        return 0
    return max((int(folder.name) for folder in model.iterdir() if folder.name.isdecimal()), default=0)


def _staging_parent(repository: Path) -> Path:
    repository = repository.resolve()
    outside = repository.parent
    if outside.stat().st_dev == repository.stat().st_dev and os.access(outside, os.R_OK | os.W_OK | os.X_OK):
        return outside
    models = sorted(folder for folder in repository.iterdir() if (folder / _CONFIG).is_file())
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
