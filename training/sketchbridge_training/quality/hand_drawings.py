"""Drawings by hand, if there are any for a domain."""

from __future__ import annotations

from pathlib import Path

from sketchbridge_preprocess import Image, PreprocessError, RequestOptions, sketch_for_model
from sketchbridge_training.errors import DataInvalid


def hand_drawings(folder: Path, domain: str) -> dict[str, Image]:
    """Name -> (256, 256, 3) uint8, redrawn as a served drawing is: PNG files of `folder`/<domain>, sorted by name.

    Empty where there is no such folder. Raises DataInvalid, naming the file, for one that can't be used.
    """
    paths = sorted((folder / domain).glob("*.png"))
    return {path.stem.replace("_", " "): _read(path) for path in paths}


def _read(path: Path) -> Image:
    try:
        return sketch_for_model(path.read_bytes(), RequestOptions())
    except (PreprocessError, OSError) as exc:
        raise DataInvalid(f"The drawing `{path}` can't be used: {exc}") from exc
