"""A folder of photos: which are there, which are held out, and whether each can be read."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_preprocess import (
    DEFAULT_LIMITS,
    Image,
    ImageTooLarge,
    PreprocessError,
    Size,
    decode,
    fit,
    read_header,
)
from sketchbridge_training.errors import DataInvalid

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VALIDATION_SHARE = 20  # one photo in twenty is held out
LEAST_PHOTOS = 12


def list_photos(folder: Path) -> list[Path]:
    """Photos directly in `folder`, sorted by name. Raises DataInvalid if it is missing or has fewer than 12."""
    photos = list_pictures(folder)
    if len(photos) < LEAST_PHOTOS:
        raise DataInvalid(too_few(folder, len(photos)))
    return photos


def list_pictures(folder: Path, what: str = "the photos to train on") -> list[Path]:
    """Picture files directly in `folder` but hidden ones, sorted by name. Raises DataInvalid if it is no folder."""
    if not folder.is_dir():
        raise DataInvalid(f"`{folder}` is not a folder. Give one that holds {what}.")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def too_few(folder: Path, count: int) -> str:
    """Why the `count` pictures in `folder` are not enough, naming what else lies there."""
    message = (
        f"`{folder}` holds {count} photos ({', '.join(sorted(SUFFIXES))}, not in folders within it); "
        f"at least {LEAST_PHOTOS} are needed."
    )
    others = [path for path in sorted(folder.iterdir()) if path.suffix.lower() not in SUFFIXES or path.is_dir()]
    folders = [f"`{path.name}`" for path in others if path.is_dir()]
    if folders:
        more = f" and {len(folders) - 5} more" if len(folders) > 5 else ""
        message += f" There are folders in it: {', '.join(folders[:5])}{more}. Name one of them, or move the photos up."
    elif others:
        message += f" There are {len(others)} other files in it, such as `{others[0].name}`, which are not read."
    return message


def find_photos(folder: Path, *, held_out: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos directly in `folder`, each sorted by name.

    held_out: a list of the names to hold out, one a line, or a CSV file whose column `file` has them, as
    `python -m sketchbridge_training.splitting` writes it.
    Without it, which side a photo is on depends on its name alone, so adding photos never moves one across. Only in a
    small folder, where no name happens to be held out, the first photo stands in until one is; a photo that was trained
    on is never held out later because others were added.
    Raises DataInvalid if the folder is missing or has fewer than 12 photos, or the list names none of them or all.
    """
    photos = list_photos(folder)
    names = [path.name for path in photos]
    chosen = choose_by_name(names) if held_out is None else choose_listed(names, held_out, folder)
    return [path for path in photos if path.name not in chosen], [path for path in photos if path.name in chosen]


def choose_by_name(names: Sequence[str]) -> set[str]:
    """One name in twenty, by its digest; the first of them stands in if none is."""
    return {name for name in names if _digest(name) % VALIDATION_SHARE == 0} or {min(names)}


def choose_listed(names: Sequence[str], held_out: Path, folder: Path, *, any_ending: bool = False) -> set[str]:
    """Those of `names` that are in the list. any_ending: `cat.png` is there if `cat.jpg` is.

    Raises DataInvalid if it names none of them or all.
    """
    listed = read_names(held_out)
    if any_ending:
        stems = {Path(name).stem for name in listed}
        listed = {name for name in names if Path(name).stem in stems}
    chosen = {name for name in names if name in listed}
    if not 0 < len(chosen) < len(names):
        raise DataInvalid(
            f"`{held_out}` names {len(chosen)} of the {len(names)} photos in `{folder}`; at least one photo must "
            "be held out and one left to train on. Is the list of another folder?"
        )
    return chosen


def read_names(path: Path) -> set[str]:
    """File names in a list: one a line, or the column `file` of a CSV file. Raises DataInvalid if it can't be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # some editors put a mark before the first name
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DataInvalid(f"`{path}` can't be read as a list of file names: {exc}") from exc
    column = rows[0].index("file") if rows and "file" in rows[0] else None
    body = rows if column is None else rows[1:]
    return {row[column or 0].strip() for row in body if len(row) > (column or 0)} - {""}


def read_column(path: Path, column: str, *, optional: bool = False) -> dict[str, str]:
    """File name -> its value in that column of a CSV file with a column `file`; rows that lack either are left out.

    Raises DataInvalid if the file can't be read, or has no such columns; if optional, it is then empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # some editors put a mark before the first name
            table = csv.DictReader(file)
            missing = {"file", column} - set(table.fieldnames or ())
            rows = [] if missing else [(row["file"], row[column]) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DataInvalid(f"`{path}` can't be read as a CSV file: {exc}") from exc
    if missing and not optional:
        raise DataInvalid(f"`{path}` has no column `{min(missing)}`; it needs `file` and `{column}`.")
    return {name: value for name, value in rows if name and value}


@dataclass(frozen=True)
class FileFacts:
    """What is known of a picture file without decoding it: its upright width and height, and a digest of its bytes."""

    width: int
    height: int
    digest: bytes


def check_photos(photos: Sequence[Path]) -> dict[Path, FileFacts]:
    """Read every file's header, without decoding it: a missing end is found at the start, not hours into a run.

    Raises DataInvalid, saying how many files can't be used and why the first can't, or that all hold the same bytes.
    """
    facts: dict[Path, FileFacts] = {}
    unusable: list[tuple[Path, str]] = []
    for path in photos:
        fact = _read_facts(path)
        if isinstance(fact, str):
            unusable.append((path, fact))
        else:
            facts[path] = fact
    if unusable:
        path, why = unusable[0]
        others = f" {len(unusable) - 1} more of {len(photos)} can't be used either." if len(unusable) > 1 else ""
        raise DataInvalid(f"`{path}` can't be used: {why}{others} Mend or remove them, then start again.")
    if len(photos) > 1 and len({fact.digest for fact in facts.values()}) == 1:
        raise DataInvalid(
            f"All {len(photos)} files from `{photos[0]}` on are copies of one picture: they hold the same bytes. "
            "There is nothing to learn from them; give photos that differ."
        )
    return facts


def _read_facts(path: Path) -> FileFacts | str:
    """What the file says of itself, or why it can't be used."""
    try:
        data = path.read_bytes()
        header = read_header(data)
        pixels = header.width * header.height
        if len(data) > DEFAULT_LIMITS.max_bytes or pixels > DEFAULT_LIMITS.max_pixels:
            raise ImageTooLarge(
                f"It has {len(data):,} bytes and {pixels:,} pixels; at most {DEFAULT_LIMITS.max_bytes:,} bytes and "
                f"{DEFAULT_LIMITS.max_pixels:,} pixels are taken."
            )
    except (PreprocessError, OSError) as exc:
        return str(exc)
    on_its_side = header.orientation >= 5  # Exif: turned by a quarter
    width, height = (header.height, header.width) if on_its_side else (header.width, header.height)
    return FileFacts(width, height, hashlib.sha256(data).digest())


def load_photo(path: Path, size: Size) -> Image:
    """(size.height, size.width, 3) uint8 RGB in [0, 255], centre-cropped.

    Raises DataInvalid, naming the file, if it can't be read or decoded.
    """
    try:
        return fit(decode(path.read_bytes(), enough=size), size, mode="crop").image
    except (PreprocessError, OSError) as exc:
        raise DataInvalid(f"`{path}` can't be used: {exc}") from exc


def load_half(path: Path, size: Size, *, right: bool) -> Image:
    """The left or right half of a picture, otherwise as `load_photo`."""
    try:
        whole = decode(path.read_bytes(), enough=Size(2 * size.width, size.height))
        middle = whole.shape[1] // 2
        return fit(whole[:, middle:] if right else whole[:, :middle], size, mode="crop").image
    except (PreprocessError, OSError) as exc:
        raise DataInvalid(f"`{path}` can't be used: {exc}") from exc


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
