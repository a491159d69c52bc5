"""The models that every ensemble shares: `decode`, `encode` and `sketch`."""

from __future__ import annotations

import shutil
from pathlib import Path

from sketchbridge_export.errors import RepositoryError


def copy_building_block(name: str, target: Path) -> None:
    """Copy the building block `name` to the new folder `target`. Raises RepositoryError if it is not installed."""
    source = _source(name)
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"), copy_function=shutil.copyfile
    )


def _source(name: str) -> Path:
    here = Path(__file__).resolve()
    in_wheel = here.parent / "building_blocks" / name
    in_checkout = here.parents[2] / "model_repository" / name
    for folder in (in_wheel, in_checkout):
        if (folder / "config.pbtxt").is_file():
            return folder
    raise RepositoryError(
        f"The building block {name!r} is neither in `{in_wheel}` nor in `{in_checkout}`. Install sketchbridge again."
    )
