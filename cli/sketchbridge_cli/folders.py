"""Finds the pictures that the INPUTs of a command mean: files as they are named, folders as the pictures in them."""

# ruff: noqa: PTH112, PTH118, PTH119, PTH122  a folder may have 100,000 files; their paths stay strings, which are made and held at less cost

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.journal import made_within

STREAM = "-"
"""Given as an input: the picture comes on stdin. Given as the output: it goes to stdout."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""A file of a folder that ends so, in any case, is taken for a picture."""

_DIGITS = re.compile(r"([0-9]+)")


class Source(NamedTuple):
    """One picture to read.

    path: of the file, or `-` for stdin. root: the folder it was found in, as it was given; None if the file itself was
    named. below: its sub-folder under root, "" if it lies right in it.
    """

    path: str
    root: str | None = None
    below: str = ""


@dataclass
class Found:
    """What the INPUTs come to: the pictures in order, and how much of the folders is none.

    others: files that are no pictures. ours: pictures that an earlier run made from others in the same folder.
    inner: sub-folders that were not looked into. linked: folders behind links, which are never followed.
    """

    sources: list[Source] = field(default_factory=list)
    others: int = 0
    ours: int = 0
    inner: int = 0
    linked: int = 0

    def remarks(self) -> list[str]:
        """What was left out, one line for each kind."""
        lines = []
        if self.others:
            lines.append(
                f"{_count(self.others, 'file is no picture', 'files are no pictures')} and {_left(self.others)}"
            )
        if self.ours:
            made = _count(self.ours, "picture was made", "pictures were made")
            lines.append(f"{made} by an earlier run from others here and {_left(self.ours)}")
        if self.inner:
            inside = _count(self.inner, "folder inside", "folders inside")
            lines.append(f"{inside} {_left(self.inner)}; --recursive looks into {'it' if self.inner == 1 else 'them'}")
        if self.linked:
            lines.append(f"{_count(self.linked, 'linked folder', 'linked folders')} {_left(self.linked)}")
        return lines


def find_sources(inputs: Iterable[str], *, recursive: bool, output: str | None) -> Found:
    """The pictures that `inputs` mean, those of a folder in natural order: `2.png` before `10.png`.

    In a folder, hidden files are passed over, and so is what an earlier run made from other files of that folder.
    recursive: look into sub-folders too; a folder that is `output` is not looked into. Raises UsageError for a folder
    that cannot be read.
    """
    found = Found()
    real_output = None if output is None else os.path.realpath(output)
    for given in inputs:
        if given != STREAM and os.path.isdir(given):
            _find_in(given, found, recursive=recursive, real_output=real_output)
        else:
            found.sources.append(Source(given))
    return found


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorts names as people count: numbers by value, letters without case, a stem before what goes on after it.

    Where those tie, the name itself decides.
    """
    parts = [
        (False, int(part), "") if index % 2 else (True, 0, part.casefold())
        for index, part in enumerate(_DIGITS.split(os.path.splitext(name)[0]))
        if part
    ]
    return parts, name


def _find_in(root: str, found: Found, *, recursive: bool, real_output: str | None) -> None:
    """Add what lies in one folder. The files of a folder come before those of its sub-folders."""
    real_root = os.path.realpath(root)
    sources: list[Source] = []
    looked_into: list[str] = []
    waiting = [""]
    while waiting:
        below = waiting.pop()
        looked_into.append(os.path.join(real_root, below))
        pictures, inner = _list_folder(os.path.join(root, below), found)
        sources += [Source(os.path.join(root, below, name), root, below) for name in pictures]
        if recursive:
            folders = [os.path.join(below, name) for name in inner]
            waiting += [path for path in reversed(folders) if os.path.join(real_root, path) != real_output]
        else:
            found.inner += len(inner)
    ours = made_within(real_root, looked_into)  # read after the listing, so that it names whatever was listed
    kept = [source for source in sources if os.path.join(real_root, source.below, _name(source)) not in ours]
    found.ours += len(sources) - len(kept)
    found.sources += kept


def _list_folder(folder: str, found: Found) -> tuple[Sequence[str], Sequence[str]]:
    """The names of the pictures and of the sub-folders in `folder`, each sorted; the rest is counted in `found`."""
    pictures: list[str] = []
    inner: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
                elif entry.is_dir():
                    found.linked += 1
                elif entry.name.lower().endswith(PICTURE_SUFFIXES) and entry.is_file():
                    pictures.append(entry.name)
                else:
                    found.others += 1
    except OSError as exc:
        raise UsageError(f"The folder `{folder}` cannot be read: {exc.strerror or exc}.") from exc
    return sorted(pictures, key=natural_key), sorted(inner, key=natural_key)


def _name(source: Source) -> str:
    return os.path.basename(source.path)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _left(number: int) -> str:
    return "was left" if number == 1 else "were left"
