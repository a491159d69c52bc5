"""What kind of data a folder holds: photos alone, pairs side by side in one picture, or pairs in two folders.

    DATA/*.jpg                                    photos, or pairs side by side if each is twice as wide as high
    DATA/A + DATA/B, sketches + photos            pairs of files with equal names, whatever their endings
    DATA/train + DATA/val (or valid, test)        either of these in each; the second is held out
    DATA/trainA + DATA/trainB (valA + valB, testA + testB), DATA/A/train + DATA/B/train (A/val + B/val, ...)

The layouts are those of the pix2pix data sets: Isola et al., "Image-to-Image Translation with Conditional Adversarial
Networks", CVPR 2017, and pytorch-CycleGAN-and-pix2pix. Only headers are read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sketchbridge_training.choices import Paired
from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.photos import LEAST_PHOTOS, FileFacts, check_photos, list_pictures, too_few

Kind = Literal["photos", "side-by-side", "folders"]

SHOWN: Mapping[Kind, str] = {  # as a message names them
    "photos": "photos",
    "side-by-side": "pairs side by side",
    "folders": "pairs in two folders",
}
_FOLDER_PAIRS = (("a", "b"), ("sketches", "photos"))
_HELD_OUT_FOLDERS = ("val", "valid", "test")
_SAME_ASPECT = 0.02


@dataclass(frozen=True)
class Item:
    """One picture to learn from. name: of the photo's file. a, b: the files of the pair. digest: of b's bytes.

    Side by side both are one file; of a photo alone only b is there.
    """

    name: str
    b: Path
    a: Path | None = None
    digest: bytes = b""


@dataclass(frozen=True)
class Layout:
    """What was found. held_out: the items of a folder for them, None if there is no such folder."""

    kind: Kind
    training: tuple[Item, ...]
    held_out: tuple[Item, ...] | None
    held_out_folder: Path | None


def find_layout(data: Path, *, paired: Paired = "auto") -> Layout:
    """Find out what `data` holds, and check every file by its header. paired: which kind it must be.

    Raises DataInvalid for a folder that is missing, empty, of mixed content, with pictures that miss their partner or
    differ from it in aspect, that can't be used, or that are all the same.
    """
    if not data.is_dir():
        raise DataInvalid(f"`{data}` is not a folder. Give one that holds the photos to train on.")
    folders = {path.name.lower(): path for path in sorted(data.iterdir()) if path.is_dir()}
    training, held_out, where = _sides(data, folders)
    if len(training) < LEAST_PHOTOS:
        raise DataInvalid(too_few(training[0].b.parent, len(training)))
    kind, training = _settle(training, paired, data)
    if held_out is None or where is None:
        return Layout(kind, tuple(training), None, None)
    other, held_out = _settle(held_out, paired, where)
    if other != kind:
        raise DataInvalid(
            f"`{where}` holds {SHOWN[other]}, and the pictures to train on are {SHOWN[kind]}. Make both alike."
        )
    return Layout(kind, tuple(training), tuple(held_out), where)


def _sides(data: Path, folders: Mapping[str, Path]) -> tuple[list[Item], list[Item] | None, Path | None]:
    """The items to train on, those held out, and the folder of the latter."""
    if "train" in folders:
        _refuse_pictures_beside(data, folders["train"])
        name = next((name for name in _HELD_OUT_FOLDERS if name in folders), None)
        held_out = folders[name] if name else None
        return _items(folders["train"]), _items(held_out) if held_out else None, held_out
    if "traina" in folders and "trainb" in folders:
        _refuse_pictures_beside(data, folders["traina"])
        name = next((name for name in _HELD_OUT_FOLDERS if f"{name}a" in folders and f"{name}b" in folders), None)
        return (
            _match(folders["traina"], folders["trainb"]),
            _match(folders[f"{name}a"], folders[f"{name}b"]) if name else None,
            folders[f"{name}b"] if name else None,
        )
    for first, second in _FOLDER_PAIRS:
        if first in folders and second in folders:
            a, b = folders[first], folders[second]
            _refuse_pictures_beside(data, a)
            if not ((a / "train").is_dir() and (b / "train").is_dir()):
                break
            name = next((n for n in _HELD_OUT_FOLDERS if (a / n).is_dir() and (b / n).is_dir()), None)
            return (
                _match(a / "train", b / "train"),
                _match(a / name, b / name) if name else None,
                b / name if name else None,
            )
    return _items(data), None, None


def _items(folder: Path) -> list[Item]:
    folders = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    for first, second in _FOLDER_PAIRS:
        if first in folders and second in folders:
            _refuse_pictures_beside(folder, folders[first])
            return _match(folders[first], folders[second])
    pictures = list_pictures(folder)
    if not pictures:
        raise DataInvalid(too_few(folder, 0))
    return [Item(path.name, path) for path in pictures]


def _refuse_pictures_beside(folder: Path, subfolder: Path) -> None:
    pictures = list_pictures(folder)
    if pictures:
        raise DataInvalid(
            f"`{folder}` holds {len(pictures)} pictures, such as `{pictures[0].name}`, beside the folder "
            f"`{subfolder.name}`, which looks like a part of a data set. Move one or the other elsewhere."
        )


def _match(first: Path, second: Path) -> list[Item]:
    """Pairs of files with equal stems."""
    a, b = _by_stem(first), _by_stem(second)
    if a and b and not set(a) & set(b):
        raise DataInvalid(
            f"No picture in `{first}` has the name of one in `{second}`, whatever the ending: there are "
            f"`{min(a.values()).name}` and `{min(b.values()).name}`, for example. A drawing and its photo must be "
            "called alike; data sets without pairs can't be trained on."
        )
    for mine, others, here, there in ((a, b, first, second), (b, a, second, first)):
        alone = sorted(set(mine) - set(others))
        if alone:
            raise DataInvalid(
                f"`{mine[alone[0]]}` has no partner: no picture in `{there}` is called `{alone[0]}`. "
                f"{len(alone)} of the {len(mine)} pictures in `{here}` have none. Add or remove them."
            )
    if not a:
        raise DataInvalid(too_few(first, 0))
    return [Item(b[stem].name, b[stem], a[stem]) for stem in sorted(a)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_pictures(folder):
        if path.stem in found:
            raise DataInvalid(
                f"`{found[path.stem]}` and `{path.name}` beside it differ only in their ending, so it can't be told "
                "which one is meant. Remove one."
            )
        found[path.stem] = path
    return found


def _settle(items: Sequence[Item], paired: Paired, where: Path) -> tuple[Kind, list[Item]]:
    """The kind of these items, once every file's header has been read; side by side, the file is a and b."""
    if items[0].a is not None:
        if paired in ("no", "side-by-side"):
            raise DataInvalid(
                f"`{where}` holds drawings and photos in two folders, such as `{items[0].a}` and `{items[0].b}`, and "
                f"`{paired}` was asked for. Give the folder of the photos alone, or ask for `folders`."
            )
        facts = _check_aspects(items, where)
        return "folders", [replace(item, digest=facts[item.b].digest) for item in items]
    if paired == "folders":
        raise DataInvalid(
            f"`{where}` holds no two folders of drawings and photos. Name them `A` and `B`, `sketches` and `photos`, "
            "or `trainA` and `trainB`."
        )
    facts = check_photos([item.b for item in items])
    wide = [path for path, fact in facts.items() if fact.width == 2 * fact.height]
    others = [path for path in facts if path not in set(wide)]
    if paired == "auto" and wide and others:
        raise DataInvalid(
            f"`{where}` is mixed: {len(wide)} pictures are twice as wide as high, as pairs side by side are, such as "
            f"`{wide[0].name}`, and {len(others)} are not, such as `{others[0].name}`. Move one or the other "
            "elsewhere, or ask for `no` if all are photos."
        )
    if paired == "side-by-side":
        odd = [path for path in others if facts[path].width % 2]
        if odd:
            width, height = facts[odd[0]].width, facts[odd[0]].height
            raise DataInvalid(
                f"`{odd[0]}` is {width}x{height}; two pictures of one size side by side have an even width. "
                f"{len(odd)} of {len(facts)} are like this. Mend or remove them."
            )
    elif paired == "no" or not wide:
        return "photos", [replace(item, digest=facts[item.b].digest) for item in items]
    return "side-by-side", [replace(item, a=item.b, digest=facts[item.b].digest) for item in items]


def _check_aspects(items: Sequence[Item], where: Path) -> dict[Path, FileFacts]:
    a = check_photos([item.a for item in items if item.a is not None])
    b = check_photos([item.b for item in items])
    unlike = []
    for first, second in zip(a.items(), b.items(), strict=True):
        aspects = [fact.width / fact.height for _, fact in (first, second)]
        if max(aspects) > (1 + _SAME_ASPECT) * min(aspects):
            unlike.append((first, second))
    if unlike:
        (path, one), (other_path, other) = unlike[0]
        raise DataInvalid(
            f"`{path}` is {one.width}x{one.height} and `{other_path}` {other.width}x{other.height}: a drawing and its "
            f"photo must have the same shape. {len(unlike)} of the {len(items)} pairs in `{where}` differ. Crop them."
        )
    return b
