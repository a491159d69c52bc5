"""The photos of each kind of thing, split as they were for training, with what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.photos import find_photos, list_pictures, read_column
from sketchbridge_training.quality.attributes import ATTRIBUTES


@dataclass(frozen=True)
class Photo:
    """One photo. identity: who or what it shows; photos of one identity are all trained on, or all held out.

    attribute: its label within the domain, None where there is none.
    """

    path: Path
    identity: str
    attribute: str | None


@dataclass(frozen=True)
class Domain:
    """One kind of thing: the photos generators may have trained on, and those they never saw. Sorted by name.

    by_name: there was no list, so those are held out that `sketchbridge train` holds out by itself.
    """

    name: str
    training: tuple[Photo, ...]
    held_out: tuple[Photo, ...]
    by_name: bool = False


def domain_names(data: Path) -> list[str]:
    """Folders in `data` that hold photos, sorted. Raises DataInvalid if there is no such folder or it has none."""
    if not data.is_dir():
        raise DataInvalid(f"`{data}` is not a folder. Give one with a folder of photos for each domain in it.")
    names = sorted(folder.name for folder in data.iterdir() if folder.is_dir() and list_pictures(folder))
    if not names:
        raise DataInvalid(f"`{data}` has no folders with photos in it. Expected one for each domain, as `shoes/`.")
    return names


def read_domain(name: str, *, data: Path, splits: Path, by_name: bool = False) -> Domain:
    """The photos in `data`/`name`, held out as the list `splits`/`name`.csv says.

    by_name: where there is no such list, hold out what `sketchbridge train` does without --held-out.
    Where `data`/`name`/SOURCES.csv (columns file, source_path) is there, attributes are read from it.
    Raises DataInvalid if the folder or the list is missing or unusable, or holds out nothing or everything.
    """
    folder, split = data / name, splits / f"{name}.csv"
    listed = split.is_file()
    if not listed and not by_name:
        raise DataInvalid(
            f"There is no list of held-out photos `{split}`. Without it, nobody can say which photos the generator "
            f"never saw. Name the folder that has it with --splits, or leave `{name}` out with --domains; if the "
            "generator was trained without --held-out, leave --splits out."
        )
    training, held_out = find_photos(folder, held_out=split if listed else None)
    identities = read_column(split, "identity", optional=True) if listed else {}
    origins = folder / "SOURCES.csv"
    sources = read_column(origins, "source_path", optional=True) if origins.is_file() else {}
    label = ATTRIBUTES.get(name)

    def described(paths: Sequence[Path]) -> tuple[Photo, ...]:
        return tuple(
            Photo(
                path,
                identities.get(path.name, path.name),
                label(sources.get(path.name, "")) if label else None,
            )
            for path in paths
        )

    return Domain(name, described(training), described(held_out), by_name=not listed)


def fingerprint(domains: Sequence[Domain]) -> str:
    """sha256 over the names, labels and bytes of every photo and which side of the split it is on."""
    digest = hashlib.sha256()
    for domain in domains:
        for side, photos in (("training", domain.training), ("held out", domain.held_out)):
            for photo in photos:
                content = hashlib.sha256(photo.path.read_bytes()).hexdigest()
                digest.update(f"{domain.name}\t{side}\t{photo.path.name}\t{photo.attribute}\t{content}\n".encode())
    return digest.hexdigest()
