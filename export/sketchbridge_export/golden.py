"""golden.png: a few drawings and what the checkpoint paints of them, kept beside the artefacts.

The checkpoint itself stays at home. With this file an artefact can be compared again on any machine, and a person sees
at a glance what the generator does.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sketchbridge_export.errors import RepositoryError
from sketchbridge_export.parity import Pictures
from sketchbridge_preprocess import INTERFACE_SIDE_PX, PreprocessError, decode

FILE_NAME = "golden.png"
MOST = 4
_SHAPE = (2 * INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3)


def write_golden(pictures: Pictures, expected: Pictures, path: Path) -> None:
    """Write the first four pictures in a row, and below each what the checkpoint paints of it.

    pictures, expected: (P, 256, 256, 3) uint8 RGB. Raises RepositoryError if the file can't be written.
    """
    columns = [np.concatenate(pair) for pair in zip(pictures[:MOST], expected[:MOST], strict=True)]
    encoded, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(columns, axis=1), cv2.COLOR_RGB2BGR))
    if not encoded:
        raise AssertionError("a uint8 picture can always be a PNG")
    try:
        path.write_bytes(data.tobytes())
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc


def read_golden(path: Path) -> tuple[Pictures, Pictures]:
    """The drawings and what the checkpoint painted of them, both (P, 256, 256, 3) uint8 RGB.

    Raises RepositoryError if the file is missing, damaged or of another layout.
    """
    try:
        if path.exists() and not path.is_file():
            raise RepositoryError(f"`{path}` is not a file.")
        sheet = decode(path.read_bytes())
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be read: {exc.strerror}.") from exc
    except PreprocessError as exc:
        raise RepositoryError(f"`{path}` is damaged: {exc}") from exc
    height, width, _ = sheet.shape
    if height != _SHAPE[0] or width % _SHAPE[1] or width > MOST * _SHAPE[1]:
        raise RepositoryError(
            f"`{path}` is {width} x {height} pixels; expected up to {MOST} pairs of {_SHAPE[1]} x {_SHAPE[0]}."
        )
    columns = np.stack(np.split(sheet, width // INTERFACE_SIDE_PX, axis=1))
    return columns[:, :INTERFACE_SIDE_PX], columns[:, INTERFACE_SIDE_PX:]
