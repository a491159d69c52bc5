"""Where pairs come from: photos that are drawn on the fly, or drawings and photos that came as pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess import Image, Size, normalise_sketch
from sketchbridge_training.choices import Direction, Drawings, Paired
from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import DataInvalid, OptionInvalid
from sketchbridge_training.keeping import Keeper
from sketchbridge_training.layout import SHOWN, Item, Kind, Layout, find_layout
from sketchbridge_training.linework import are_line_drawings
from sketchbridge_training.photos import choose_by_name, choose_listed, load_half, load_photo, read_names
from sketchbridge_training.segmentation import Masks
from sketchbridge_training.variation import Variation


class Source(Protocol):
    """Pictures to learn from, by number, each a pair of a drawing and a photo.

    names: of the pictures' files, in order. description: a sentence about what was found. Drawings are (H, W), or
    (H, W, 3) RGB where they are something else than lines, photos (H, W, 3) RGB; uint8 in [0, 255], size of the source.
    Both methods raise DataInvalid, naming the file, for a picture that can't be read.
    """

    names: Sequence[str]
    description: str

    def __len__(self) -> int: ...

    def pair(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:
        """Drawing and photo, varied: mirrored, turned, scaled and shifted alike."""
        ...

    def plain(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:
        """Drawing and photo as they are, for previews and validation; chance only draws the sketch."""
        ...


_ALONE_SHARE = 0.3  # of the drawings, if subjects are looked for


class DrawnSource:
    """Photos alone; each time one is wanted, a new drawing is made of it."""

    def __init__(self, items: Sequence[Item], *, size: Size, description: str, masks: Masks | None = None) -> None:
        """Items: at least one. masks: where they come from if some drawings are to lose what surrounds the subject."""
        self.names: Sequence[str] = [item.name for item in items]
        self.description = description
        self._items = items
        self._size = size
        self._masks = masks
        self._kept = Keeper()

    def __len__(self) -> int:
        return len(self._items)

    def pair(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:
        """See Source."""
        variation = Variation.drawn(self._size.width, self._size.height, random)
        photo = self._load(number)
        subject = self._subject(number, random)
        moved = None if subject is None else variation.apply(subject.astype(np.uint8)) > 0
        photo = variation.apply(photo)
        return draw(photo, random, subject=moved), photo

    def plain(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:
        """See Source."""
        subject = self._subject(number, random)
        photo = self._load(number)
        return draw(photo, random, subject=subject), photo

    def _load(self, number: int) -> Image:
        return self._kept.get(number, lambda: load_photo(self._items[number].b, self._size))

    def _subject(self, number: int, random: np.random.Generator) -> NDArray[np.bool_] | None:
        if self._masks is None or random.random() >= _ALONE_SHARE:
            return None
        return self._masks.find(self._load(number))


class PairedSource:
    """Drawings and photos that came as pairs."""

    def __init__(
        self, items: Sequence[Item], *, size: Size, description: str, kind: Kind, direction: Direction, lines: bool
    ) -> None:
        """Items: at least one, each with a and b. lines: redraw the drawings as the server does."""
        self.names: Sequence[str] = [item.name for item in items]
        self.description = description
        self._items = items
        self._size = size
        self._kind = kind
        self._direction = direction
        self._lines = lines
        self._kept = Keeper()

    def __len__(self) -> int:
        return len(self._items)

    def pair(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:
        """See Source."""
        variation = Variation.drawn(self._size.width, self._size.height, random)
        drawing, photo = self.plain(number, random)
        return variation.apply(drawing), variation.apply(photo)

    def plain(self, number: int, random: np.random.Generator) -> tuple[Image, Image]:  # noqa: ARG002 - nothing is left to chance
        """See Source."""
        drawing = self._kept.get(-1 - number, lambda: self._load_drawing(number))
        return drawing, self._kept.get(number, lambda: self._load(number, self._size, photo=True))

    def _load_drawing(self, number: int) -> Image:
        if not self._lines:
            return self._load(number, self._size, photo=False)
        twice = Size(2 * self._size.width, 2 * self._size.height)  # at which the server looks for lines
        return normalise_sketch(self._load(number, twice, photo=False), self._size)

    def _load(self, number: int, size: Size, *, photo: bool) -> Image:
        return _load_side(self._items[number], size, self._kind, b=photo == (self._direction == "AtoB"))


def _load_side(item: Item, size: Size, kind: Kind, *, b: bool) -> Image:
    """A or B of a pair, (size.height, size.width, 3) uint8 RGB, centre-cropped. Raises DataInvalid."""
    if kind == "side-by-side":
        return load_half(item.b, size, right=b)
    path = item.b if b or item.a is None else item.a
    return load_photo(path, size)


def open_sources(
    data: Path | Sequence[Path],
    *,
    size: Size,
    held_out: Path | Sequence[Path] | None = None,
    paired: Paired = "auto",
    direction: Direction = "AtoB",
    drawings: Drawings = "auto",
    segment: bool = False,
    mask_folder: Path | None = None,
) -> tuple[Source, Source]:
    """Open folders of photos or pairs: the pictures to train on, and those held out.

    data: one folder or several of one kind, see layout.py for what they may hold. size: of the pictures handed out, in
    pixels. held_out: list of the names to hold out, see `find_photos`; for several folders one list each, or one for
    all. Without it, a folder `val`, `valid` or `test` within the data is held out, and else one name in twenty.
    paired: which kind the data must be; "auto" looks. direction: of pairs, "AtoB" if the drawing is on the left, or in
    folder A, as pix2pix has it. drawings: of pairs, "lines" are redrawn as the server redraws what it is sent, "as-is"
    are not; "auto" looks. segment: for photos alone, leave out what surrounds the thing in the middle in some drawings.
    mask_folder: where the masks for it are kept from run to run.
    Reads every file's header; decodes a few drawings. Raises DataInvalid and OptionInvalid.
    """
    _check_choices(paired=(paired, Paired), direction=(direction, Direction), drawings=(drawings, Drawings))
    folders = [data] if isinstance(data, Path) else list(data)
    lists = [held_out] * len(folders) if held_out is None or isinstance(held_out, Path) else list(held_out)
    if not folders or len(lists) != len(folders):
        raise OptionInvalid(
            f"There are {len(folders)} folders and {len(lists)} lists of held-out photos. Give each folder its own, or "
            "one list for all."
        )
    sides: tuple[list[Item], list[Item]] = ([], [])
    kinds: list[Kind] = []
    said: list[str] = []
    for folder, listed in zip(folders, lists, strict=True):
        layout = find_layout(folder, paired=paired)
        kinds.append(layout.kind)
        if layout.kind != kinds[0]:
            raise DataInvalid(
                f"`{folders[0]}` holds {SHOWN[kinds[0]]} and `{folder}` {SHOWN[layout.kind]}. Give folders of one kind."
            )
        training, rest, how = _split(folder, layout, listed)
        said.append(f"{len(rest)} {how}")
        prefix = "" if len(folders) == 1 else f"{folder.name}/"
        for side, items in zip(sides, (training, rest), strict=True):
            side.extend(replace(item, name=prefix + item.name) for item in items)
    where = ", ".join(f"`{folder}`" for folder in folders)
    found = f"{len(sides[0])} {SHOWN[kinds[0]]} in {where}"
    apart = "held out: " + ", ".join(said) + _say_copies(*sides)
    if kinds[0] == "photos":
        if (direction, drawings) != ("AtoB", "auto"):
            raise OptionInvalid(f"{found}: `direction` and `drawings` are for drawings that came with the photos.")
        masks = Masks(mask_folder) if segment else None
        found += "; sketches are drawn from them" + (", some of the subject alone" if segment else "")
        return (
            DrawnSource(sides[0], size=size, description=found, masks=masks),
            DrawnSource(sides[1], size=size, description=apart, masks=masks),
        )
    if segment:
        raise OptionInvalid(f"{found}: `segment` is for photos whose sketches are drawn here. Leave it out.")
    seen = drawings
    if drawings == "auto":
        some = _some_drawings(sides[0], size, kinds[0], direction)
        seen = "lines" if are_line_drawings(some) else "as-is"
    lines = seen == "lines"
    found += f"; the drawings are {_SIDES[kinds[0], direction]} ({direction}), {_TREATED[drawings == 'auto', lines]}"
    return (
        PairedSource(sides[0], size=size, kind=kinds[0], direction=direction, lines=lines, description=found),
        PairedSource(sides[1], size=size, kind=kinds[0], direction=direction, lines=lines, description=apart),
    )


_SIDES: Mapping[tuple[Kind, Direction], str] = {
    ("side-by-side", "AtoB"): "on the left",
    ("side-by-side", "BtoA"): "on the right",
    ("folders", "AtoB"): "in the first folder",
    ("folders", "BtoA"): "in the second folder",
}
_TREATED = {  # whether it was decided by looking, and whether they are redrawn
    (True, True): "line drawings, so they are redrawn as the server redraws what it is sent",
    (True, False): "no line drawings, so they are left as they are",
    (False, True): "redrawn as the server redraws what it is sent",
    (False, False): "left as they are",
}


def _check_choices(**choices: tuple[str, object]) -> None:
    for name, (value, kind) in choices.items():
        if value not in get_args(kind):
            raise OptionInvalid(f"`{name}` is `{value}`; it must be one of {', '.join(get_args(kind))}.")


def _some_drawings(items: Sequence[Item], size: Size, kind: Kind, direction: Direction) -> list[Image]:
    return [_load_side(item, size, kind, b=direction == "BtoA") for item in items[:: max(1, len(items) // 16)][:16]]


def _split(folder: Path, layout: Layout, listed: Path | None) -> tuple[list[Item], list[Item], str]:
    """The items to train on, those held out, and how they were chosen."""
    if listed is None and layout.held_out is not None:
        return list(layout.training), list(layout.held_out), f"in `{layout.held_out_folder}`"
    names = [item.name for item in layout.training]
    if listed is None:
        chosen = choose_by_name(names)
    else:
        chosen = choose_listed(names, listed, folder, any_ending=layout.kind == "folders")
    training = [item for item in layout.training if item.name not in chosen]
    rest = [item for item in layout.training if item.name in chosen]
    if listed is None:
        return training, rest, "by their names"
    unknown = len(read_names(listed)) - len(rest)
    return training, rest, f"named by `{listed}`" + (f" ({unknown} more it names are not there)" if unknown > 0 else "")


def _say_copies(training: Sequence[Item], rest: Sequence[Item]) -> str:
    trained_on = {item.digest for item in training}
    copies = [item.name for item in rest if item.digest in trained_on]
    if not copies:
        return ""
    return f"; {len(copies)} of them, such as `{copies[0]}`, are copies of pictures that are trained on"
