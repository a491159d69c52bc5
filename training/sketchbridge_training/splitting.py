"""Which photos a run must never see: a split by identity, written as a list that can be read and kept.

Photos of one cat, one species, or one product in three colours are near-duplicates. Split at random, the held-out ones
would be old acquaintances, and every figure measured on them too good.

    python -m sketchbridge_training.splitting photos/cats --sources photos/cats/SOURCES.csv
        --identity '/(unprocessed|cropped)/([^/]+)/' --out training/splits/cats.csv
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sketchbridge_preprocess import Size
from sketchbridge_training.errors import DataInvalid, OptionInvalid, TrainingError
from sketchbridge_training.photos import list_photos, load_photo, read_column

_THUMBNAIL_PX = 24


def identities(names: Mapping[str, str], pattern: str, *, series_gap: int | None = None) -> dict[str, str]:
    """Who or what each photo shows, read from where it came from.

    names: file name -> text to search, such as a path at its source. pattern: a regular expression; what its last group
    matched is the identity, and a name that it doesn't match is an identity of its own. series_gap: if given, the
    identity is a number, and numbers at most this far apart, one after the other, are one series and one identity.
    Raises OptionInvalid for a pattern that is none, or a series of something else than numbers.
    """
    try:
        expression = re.compile(pattern)
    except re.error as exc:
        raise OptionInvalid(f"`{pattern}` is no regular expression: {exc}.") from exc
    found: dict[str, str] = {}
    for name, text in names.items():
        match = expression.search(text)
        found[name] = (match.group(match.lastindex or 0) if match else "") or name
    if series_gap is None:
        return found
    numbered = {name: int(identity) for name, identity in found.items() if identity.isdecimal()}
    if not numbered:
        raise OptionInvalid(f"`{pattern}` found no numbers, so there is no series. Leave the gap out.")
    series, last = 0, -series_gap - 1
    for name, number in sorted(numbered.items(), key=lambda item: item[1]):
        if number - last > series_gap:
            series = number
        last = number
        found[name] = str(series)
    return found


def likeness(photos: Sequence[Path]) -> npt.NDArray[np.float32]:
    """(N, N) correlations of the photos' thumbnails, in [-1, 1]; 0 with themselves.

    A mirror image counts as alike, because training mirrors what it sees. Raises DataInvalid for an unreadable photo.
    """
    thumbnails = np.stack([_thumbnail(path) for path in photos])
    mirrored = thumbnails.reshape(-1, _THUMBNAIL_PX, _THUMBNAIL_PX, 3)[:, :, ::-1].reshape(thumbnails.shape)
    found = np.maximum(thumbnails @ thumbnails.T, mirrored @ thumbnails.T)
    np.fill_diagonal(found, 0)
    return found


def join_alike(
    names: Sequence[str], alike: npt.NDArray[np.float32], groups: Mapping[str, str], *, least: float
) -> dict[str, str]:
    """`groups`, with those joined that hold two photos alike by `least` or more. alike: of `names`, see `likeness`."""
    parents = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while parents[group] != group:
            group = parents[group]
        return group

    for one, other in np.argwhere(alike >= least):
        first, second = sorted((root(groups[names[one]]), root(groups[names[other]])))
        parents[second] = first
    return {name: root(group) for name, group in groups.items()}


def leave_out_acquaintances(
    names: Sequence[str],
    alike: npt.NDArray[np.float32],
    groups: Mapping[str, str],
    chosen: Sequence[str],
    *,
    least: float,
) -> list[str]:
    """`chosen` without the groups of which a photo is alike by `least` or more to one that is not chosen.

    They stay to be trained on. For things that all look alike, as shoes on white: joining would make one group of them.
    """
    out = np.isin(names, chosen)
    met = {groups[names[number]] for number in np.flatnonzero(out & (alike[:, ~out] >= least).any(axis=1))}
    return [name for name in chosen if groups[name] not in met]


def hold_out(groups: Mapping[str, str], *, share: float) -> list[str]:
    """Names of the photos to hold out: whole groups, in the order of their sha256, until `share` of all is reached.

    A group of more than half of what is wanted is passed over, so that the held-out photos are not all of one thing.
    """
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group, []).append(name)
    wanted = share * len(groups)
    chosen: list[str] = []
    for group in sorted(members, key=lambda group: hashlib.sha256(group.encode()).digest()):
        if len(chosen) >= wanted:
            break
        if len(members[group]) <= max(1.0, 0.5 * wanted):
            chosen += members[group]
    return sorted(chosen)


def _thumbnail(path: Path) -> npt.NDArray[np.float32]:
    small = cv2.resize(load_photo(path, Size(256, 256)), (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    flat = small.astype(np.float32).ravel()
    flat -= flat.mean()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)


def split(
    photos: Sequence[Path],
    sources: Mapping[str, str],
    pattern: str,
    *,
    series_gap: int | None = None,
    alike: float = 0.95,
    apart: float = 0.97,
    share: float = 0.08,
) -> tuple[list[str], dict[str, str]]:
    """The names to hold out, sorted, and the identity of every photo. See the functions above.

    alike: correlation of two thumbnails from which they show one thing, -1 to 1. apart: the one that a held-out photo
    may not reach with any other, if it is the lower of the two. share: of the photos, between 0 and 1.
    Raises OptionInvalid, and DataInvalid if a photo has no source or no group is small enough to be held out.
    """
    for name, value, usual in (("alike", alike, 0.95), ("apart", apart, 0.97)):
        if not -1 <= value <= 1:
            raise OptionInvalid(f"`{name}` is {value}; it must be -1 to 1. Try {usual}.")
    if not 0 < share < 1:
        raise OptionInvalid(f"`share` is {share}; it must be more than 0 and less than 1. Try 0.08.")
    missing = [path.name for path in photos if path.name not in sources]
    if missing:
        raise DataInvalid(f"There is no source for `{missing[0]}`, nor for {len(missing) - 1} more of {len(photos)}.")
    groups = identities({path.name: sources[path.name] for path in photos}, pattern, series_gap=series_gap)
    order, found = [path.name for path in photos], likeness(photos)
    groups = join_alike(order, found, groups, least=alike)
    chosen = leave_out_acquaintances(order, found, groups, hold_out(groups, share=share), least=apart)
    if not chosen:
        raise DataInvalid(
            f"The {len(photos)} photos are of {len(set(groups.values()))} identities, none of them small enough to be "
            "held out and unlike the others. Raise `share` or `apart`, or look for identities with another pattern."
        )
    return chosen, groups


def main(argv: Sequence[str] | None = None) -> int:
    """Write a split. Exit status: 0 written, 1 the photos can't be used, 2 the call was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos, or of one side of a data set of pairs")
    parser.add_argument("--sources", type=Path, help="CSV: file, source_path (default: the names of the files)")
    parser.add_argument("--identity", required=True, help="regular expression on source_path; its last group is it")
    parser.add_argument("--series-gap", type=int, help="identities are numbers; those this close are one series")
    parser.add_argument("--alike", type=float, default=0.95, help="join photos that correlate so (default %(default)s)")
    parser.add_argument(
        "--apart", type=float, default=0.97, help="hold out nothing as like another photo (default %(default)s)"
    )
    parser.add_argument("--share", type=float, default=0.08, help="of the photos to hold out (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write: file, identity, source_path")
    arguments = parser.parse_args(argv)
    try:
        photos = list_photos(arguments.photos)
        names = {path.name: path.name for path in photos}
        sources = read_column(arguments.sources, "source_path") if arguments.sources else names
        chosen, groups = split(
            photos,
            sources,
            arguments.identity,
            series_gap=arguments.series_gap,
            alike=arguments.alike,
            apart=arguments.apart,
            share=arguments.share,
        )
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "identity", "source_path"))
            writer.writerows((name, groups[name], sources[name]) for name in chosen)
    except (TrainingError, OSError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1
    sys.stdout.write(
        f"wrote: `{arguments.out}`: {len(chosen)} of {len(photos)} photos, "
        f"{len({groups[name] for name in chosen})} of {len(set(groups.values()))} identities\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
