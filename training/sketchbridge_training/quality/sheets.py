"""Contact sheets: pictures in columns, a title over each group, a caption under each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sketchbridge_preprocess import Image
from sketchbridge_training.writing import write_whole

_TITLE_PX = 26
_CAPTION_PX = 18
_GAP_PX = 4


@dataclass(frozen=True)
class Cell:
    """Pictures that belong together, shown one above the other: (H, W, 3) RGB uint8. caption: ASCII."""

    pictures: tuple[Image, ...]
    caption: str = ""


@dataclass(frozen=True)
class Group:
    """Cells under one title (ASCII), all with as many pictures; as many in a row as fit."""

    title: str
    cells: Sequence[Cell]


def sheet(groups: Sequence[Group], *, columns: int, cell_px: int) -> Image:
    """One (H, W, 3) RGB uint8 picture of all groups that have cells. cell_px: side of each picture on it."""
    width = columns * (cell_px + _GAP_PX) + _GAP_PX
    bands: list[Image] = []
    for group in groups:
        if not group.cells:
            continue
        bands.append(_text(group.title, width, _TITLE_PX, scale=0.55))
        bands += [
            _row(group.cells[start : start + columns], width, cell_px) for start in range(0, len(group.cells), columns)
        ]
    return np.concatenate(bands) if bands else np.full((_TITLE_PX, width, 3), 255, np.uint8)


def write_picture(path: Path, picture: Image) -> None:
    """Write (H, W, 3) RGB uint8 as PNG, whole. Raises OSError."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_whole(path, data.tobytes())


def _row(cells: Sequence[Cell], width: int, cell_px: int) -> Image:
    deep = len(cells[0].pictures)
    pitch = cell_px + _GAP_PX
    captioned = any(cell.caption for cell in cells)
    row = np.full((deep * pitch + (_CAPTION_PX if captioned else _GAP_PX), width, 3), 255, np.uint8)
    for column, cell in enumerate(cells):
        left = _GAP_PX + column * pitch
        for number, picture in enumerate(cell.pictures):
            small = cv2.resize(picture, (cell_px, cell_px), interpolation=cv2.INTER_AREA)
            row[number * pitch : number * pitch + cell_px, left : left + cell_px] = small
        if cell.caption:
            row[deep * pitch - _GAP_PX :, left : left + cell_px] = _text(
                cell.caption, cell_px, _CAPTION_PX + _GAP_PX, scale=0.38
            )
    return row


def _text(words: str, width: int, height: int, *, scale: float) -> Image:
    band = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(band, words, (_GAP_PX, height - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 40), 1, cv2.LINE_AA)
    return band
