"""Files that an export needs and the project ships: inside the package in a wheel, elsewhere in a checkout."""

from __future__ import annotations

from pathlib import Path

from sketchbridge_export.errors import RepositoryError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]


def building_block(name: str) -> Path:
    """The folder of a model that every ensemble shares: `decode`, `encode` or `sketch`."""
    return _shipped(f"building_blocks/{name}", f"model_repository/{name}")


def drawings() -> Path:
    """The folder of the hand-drawn shoes (PNG), which every export is compared on, whatever its generator paints."""
    return _shipped("drawings", "examples/sketches/shoes")


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    for folder in (_PACKAGE / in_wheel, _CHECKOUT / in_checkout):
        if folder.is_dir():
            return folder
    raise RepositoryError(f"`{_PACKAGE / in_wheel}` is missing. Install sketchbridge again.")
