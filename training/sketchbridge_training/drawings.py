"""Drawings that people made, read as the server reads them."""

from __future__ import annotations

from pathlib import Path

from sketchbridge_preprocess import Image, PreprocessError, RequestOptions, sketch_for_model
from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.photos import list_pictures


def read_drawings(folder: Path, *, most: int | None = None) -> dict[str, Image]:
    """File name without its ending -> (256, 256, 3) uint8, redrawn as a served drawing is; sorted by name.

    most: read no more than the first so many; None for all.
    Raises DataInvalid, naming the file or the folder, for one that can't be used.
    """
    return {path.stem: _read(path) for path in list_pictures(folder, "the drawings")[:most]}


def _read(path: Path) -> Image:
    try:
        return sketch_for_model(path.read_bytes(), RequestOptions())
    except (PreprocessError, OSError) as exc:
        raise DataInvalid(f"The drawing `{path}` can't be used: {exc}") from exc
