"""Pictures in rows with captions, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MARGIN = 12
TITLE_HEIGHT = 40


@dataclass(frozen=True)
class Cell:
    """One picture and what is written under it; without a caption the row may be lower."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Row:
    """Pictures side by side. title: stands above them; empty for a row that goes on where the last one ended."""

    title: str
    cells: Sequence[Cell]


def contact_sheet(rows: Sequence[Row], path: Path, *, side: int = 256) -> Path:
    """Write all rows, each under its title, as one PNG at `path`, and return the path.

    side: pixels of the square that each picture is scaled down to fit. The file is there whole or not at all.
    Raises OSError if it can't be written.
    """
    columns = max(len(row.cells) for row in rows)
    width = MARGIN + columns * (side + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + sum(_height(row, side) for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row in rows:
        bottom = top + _height(row, side)
        if row.title:
            draw.text((MARGIN, top + 4), row.title, fill="black", font=ImageFont.load_default(22))
            top += TITLE_HEIGHT
        for number, cell in enumerate(row.cells):
            left = MARGIN + number * (side + MARGIN)
            thumbnail = cell.picture.copy()
            thumbnail.thumbnail((side, side))
            sheet.paste(thumbnail, (left + (side - thumbnail.width) // 2, top + (side - thumbnail.height) // 2))
            draw.rectangle((left - 1, top - 1, left + side, top + side), outline="#cccccc")
            draw.text((left, top + side + 4), cell.caption, fill="#444444", font=ImageFont.load_default(15))
        top = bottom
    beside = path.with_name(f".{path.name}")
    sheet.save(beside, "PNG")
    return beside.replace(path)


def _height(row: Row, side: int) -> int:
    caption = 26 if any(cell.caption for cell in row.cells) else 0
    return (TITLE_HEIGHT if row.title else 0) + side + caption + MARGIN
