"""The whole assessment: teach or load the judge, measure each generator, write figures and pictures."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sketchbridge_preprocess import Image
from sketchbridge_training.drawings import read_drawings
from sketchbridge_training.errors import DataInvalid, OptionInvalid
from sketchbridge_training.quality.classifier_file import judge_for
from sketchbridge_training.quality.domains import Domain, domain_names, read_domain
from sketchbridge_training.quality.failures import failures
from sketchbridge_training.quality.generator import Artefact, Generator, find_artefact
from sketchbridge_training.quality.learning import LearningSettings
from sketchbridge_training.quality.measuring import Measured, load, measure, steps_of
from sketchbridge_training.quality.progress import BarMaker
from sketchbridge_training.quality.report import block, card_block, machine, record, with_block
from sketchbridge_training.quality.round_trip import served_lines
from sketchbridge_training.quality.sheets import Cell, Group, sheet, write_picture
from sketchbridge_training.writing import write_whole

SCHEMA = 1
_USUAL_SPLITS = Path("training/splits")
_ON_THE_VALIDATION_SHEET = 24
_COLUMNS = 6


@dataclass(frozen=True)
class Request:
    """What to assess, and where the results go; see `sketchbridge quality --help`.

    domains: None for all in `data`. splits: None for training/splits, where a domain without a list is split by name.
    """

    data: Path
    repository: Path
    out: Path
    domains: tuple[str, ...] | None = None
    splits: Path | None = None
    drawings: Path = Path("examples/sketches")
    classifier: Path | None = None
    docs: Path | None = None
    learning: LearningSettings = dataclasses.field(default_factory=LearningSettings)


def assess(request: Request, *, command: str, bar: BarMaker, say: Callable[[str], object]) -> Path:
    """Assess each generator that is there and write everything; returns the path of quality.json.

    command: the call, for the record. say: takes a sentence for the user.
    Raises OptionInvalid for domains that are none, DataInvalid if photos, lists or artefacts can't be used or no
    generator is there, OSError if the disk won't take the results.
    """
    names = domain_names(request.data)
    chosen = names if request.domains is None else list(request.domains)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise OptionInvalid(f"There are no photos in `{request.data / unknown[0]}`; there are {', '.join(names)}.")
    artefacts = _artefacts(request.repository, chosen, say)
    if request.docs is not None:
        _pages(request.docs, artefacts, lambda _name: "")  # what is wrong with a page is found out now
    generators = {name: Generator(artefact) for name, artefact in artefacts.items()}  # a bad one is found out now
    domains = _domains(request, names, artefacts, say)
    path = request.classifier or request.out / "classifier.pt"
    judge = judge_for(domains, request.learning, path, must_exist=request.classifier is not None, bar=bar)
    say(f"classifier: `{path}`, {'taught just now' if judge.fresh else 'taught before on these photos'}")
    entries: dict[str, Any] = {}
    pictures: dict[str, Image] = {}
    for domain in domains:
        if domain.name not in artefacts:
            continue
        generator = generators[domain.name]
        by_hand = _by_hand(request.drawings, domain.name)
        with bar(domain.name, steps_of(domain, by_hand)) as progress:
            measured = measure(
                domain,
                generator,
                judge.classifier,
                by_hand=by_hand,
                seed=request.learning.seed,
                step=progress.update,
            )
        entries[domain.name] = record(domain, artefacts[domain.name], measured.figures)
        write_picture(request.out / f"validation_{domain.name}.png", validation_sheet(measured))
        foreign = _foreign(domain, domains, request.drawings)
        public = public_sheet(measured, generator, by_hand, foreign=foreign, seed=request.learning.seed)
        write_picture(request.out / f"quality_{domain.name}.png", public)
        pictures[domain.name] = public
    report = {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": command,
        "seed": request.learning.seed,
        "machine": machine(),
        "classifier": {"sha256": judge.sha256, "settings": dataclasses.asdict(request.learning)},
        "domains": entries,
    }
    content = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
    if request.docs is not None:
        for name, picture in pictures.items():
            write_picture(request.docs / "pictures" / f"quality_{name}.png", picture)
        write_whole(request.docs / "quality.json", content)
        written = json.loads(content)
        for page, text in _pages(request.docs, entries, lambda name: _made(name, written)).items():
            write_whole(page, text.encode())
    write_whole(request.out / "quality.json", content)
    return request.out / "quality.json"


def validation_sheet(measured: Measured) -> Image:
    """Drawing, painting and photo for up to 24 held-out photos. It shows photos: keep it to yourself."""
    count = len(measured.photos)
    shown = [number * count // _ON_THE_VALIDATION_SHEET for number in range(_ON_THE_VALIDATION_SHEET)]
    cells = [
        Cell((measured.drawings[number], measured.paintings[number], measured.photos[number]))
        for number in dict.fromkeys(shown)
    ]
    return sheet([Group("held-out photos: drawing, painting, photo", cells)], columns=8, cell_px=160)


def public_sheet(
    measured: Measured, generator: Generator, by_hand: Mapping[str, Image], *, foreign: tuple[str, Image], seed: int
) -> Image:
    """Drawings and paintings without a photo: of held-out photos' lines, by hand, and failures on purpose."""
    count = len(measured.drawings)
    shown = dict.fromkeys(number * count // _COLUMNS for number in range(_COLUMNS))
    held_out = [Cell((measured.drawings[number], measured.paintings[number])) for number in shown]
    hands = [Cell((drawing, generator.paint(drawing)), name) for name, drawing in by_hand.items()]
    own = next(iter(by_hand.values()), measured.drawings[0])
    name, drawing = foreign
    wrong = failures(generator, own=own, foreign=drawing, foreign_name=name, seed=seed)
    groups = [
        Group("lines of held-out photos", held_out),
        Group("drawn by hand", hands),
        Group("failures on purpose", wrong),
    ]
    return sheet(groups, columns=_COLUMNS, cell_px=160)


def _domains(
    request: Request, names: Iterable[str], measured: Container[str], say: Callable[[str], object]
) -> list[Domain]:
    """All domains, since all teach the classifier; but those that aren't measured only if --splits has their list."""
    splits = request.splits or _USUAL_SPLITS
    wanted = [
        name for name in names if request.splits is None or name in measured or (splits / f"{name}.csv").is_file()
    ]
    domains = [read_domain(name, data=request.data, splits=splits, by_name=request.splits is None) for name in wanted]
    for domain in (domain for domain in domains if domain.name in measured):
        if len(domain.held_out) < 2:
            raise DataInvalid(
                f"Only `{domain.held_out[0].path}` is held out of `{domain.name}`; figures need two photos at least, "
                "and fifty to mean anything. Hold out more with a list, and train with it (`--held-out`)."
            )
        if domain.by_name:
            say(
                f"`{domain.name}`: there is no list `{splits / f'{domain.name}.csv'}`, so the {len(domain.held_out)} "
                "photos are held out that `sketchbridge train` holds out by itself. If it was trained with "
                "--held-out, give the folder of that list with --splits."
            )
    return domains


def _artefacts(repository: Path, names: list[str], say: Callable[[str], object]) -> dict[str, Artefact]:
    found: dict[str, Artefact] = {}
    for name in names:
        artefact = find_artefact(repository, name)
        if artefact is None:
            say(f"skipped `{name}`: there is no `{repository / f'{name}_generator'}/<version>/model.onnx`.")
        else:
            found[name] = artefact
    if not found:
        raise DataInvalid(f"`{repository}` has a generator for none of {', '.join(names)}, so nothing can be measured.")
    return found


def _pages(docs: Path, names: Iterable[str], made: Callable[[str | None], str]) -> dict[Path, str]:
    """The new text of quality.md and of each model card that is there; `made` gives a page's generated part."""
    cards = {docs / "models" / f"{name}.md": name for name in names}
    pages = {docs / "quality.md": None, **{path: name for path, name in cards.items() if path.exists()}}
    return {path: _renewed(path, made(name)) for path, name in pages.items()}


def _renewed(page: Path, made: str) -> str:
    try:
        return with_block(page.read_text(encoding="utf-8"), made)
    except DataInvalid as exc:
        raise DataInvalid(f"`{page}`: {exc}") from exc


def _made(name: str | None, report: Mapping[str, Any]) -> str:
    return block(report) if name is None else card_block(name, report)


def _by_hand(drawings: Path, domain: str) -> dict[str, Image]:
    folder = drawings / domain
    if not folder.is_dir():
        return {}
    return {name.replace("_", " "): drawing for name, drawing in read_drawings(folder).items()}


def _foreign(own: Domain, domains: list[Domain], drawings: Path) -> tuple[str, Image]:
    """The name of the next domain and a drawing of it."""
    after = domains[(domains.index(own) + 1) % len(domains)]
    by_hand = _by_hand(drawings, after.name)
    drawing = next(iter(by_hand.values())) if by_hand else served_lines(load(after.held_out[:1])[0])
    return after.name, drawing
