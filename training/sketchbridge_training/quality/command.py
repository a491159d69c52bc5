"""`sketchbridge quality`: the arguments, the progress bars and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_training.errors import OptionInvalid, TrainingError

if TYPE_CHECKING:
    from sketchbridge_training.quality.progress import Bar

EPILOG = """\
examples:
  sketchbridge quality --data photos --repository model_repository --out out/quality
  sketchbridge quality --data photos --domains shoes --out out/quality
  sketchbridge quality --data photos --docs docs               # renews docs/quality.md and the model cards as well

photos/ holds a folder of photos for each domain, two or more, training/splits/ the list of each domain's held-out
photos. Where there is no list, those are taken that `sketchbridge train` holds out by itself. The first call teaches a
classifier on the training photos of all domains, which takes minutes; later ones use it again. What the figures mean:
docs/quality.md.
Look at out/quality/quality_shoes.png. validation_shoes.png beside it shows photos: mind whose they are.

exit status: 0 measured, 1 the work failed, 2 the call was wrong, 130 stopped with Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sketchbridge quality`, its description and its examples."""
    parser.description = "Measure how good the generators of a repository are, on photos that were never trained on."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of photos for each domain")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="models to measure (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/quality"), help="folder for figures and pictures (default %(default)s)"
    )
    parser.add_argument(
        "--domains", metavar="NAMES", help="measure these, as faces,shoes (default: every folder in --data)"
    )
    parser.add_argument(
        "--splits",
        type=Path,
        help="folder of lists <domain>.csv of held-out photos, columns file, identity; a domain to measure must have "
        "one (default training/splits, and by name where it has none)",
    )
    parser.add_argument(
        "--drawings",
        type=Path,
        default=Path("examples/sketches"),
        help="folder of drawings by hand, one folder for each domain (default %(default)s)",
    )
    parser.add_argument(
        "--classifier",
        metavar="FILE",
        type=Path,
        help="use this one, and refuse if it was taught on other photos (default: classifier.pt in --out, taught if "
        "need be)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the classifier and of what is drawn at random (default %(default)s)"
    )
    parser.add_argument(
        "--docs",
        metavar="DIR",
        type=Path,
        help="also rewrite the tables in DIR/quality.md and DIR/models/<domain>.md, between the lines that mark them, "
        "DIR/quality.json and DIR/pictures/quality_<domain>.png, with the domains of this call alone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and write; progress and errors go to stderr, the path of the figures to stdout. Returns the exit status.

    0 when every generator that is there was measured, 1 when photos, lists, generators or the disk are unusable, 2 for
    an option that can't be. Ctrl-C goes up as KeyboardInterrupt; no file is ever half written.
    """
    try:
        if arguments.seed < 0:
            raise OptionInvalid(f"`seed` is {arguments.seed}; it must be at least 0.")
        from sketchbridge_training.quality.assessing import Request, assess  # noqa: PLC0415 - torch takes seconds
        from sketchbridge_training.quality.learning import LearningSettings  # noqa: PLC0415

        request = Request(
            data=arguments.data,
            repository=arguments.repository,
            out=arguments.out,
            domains=_names(arguments.domains),
            splits=arguments.splits,
            drawings=arguments.drawings,
            classifier=arguments.classifier,
            docs=arguments.docs,
            learning=LearningSettings(seed=arguments.seed),
        )
        written = assess(request, command=_as_typed(arguments), bar=_bar, say=_say)
    except (TrainingError, OSError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1
    sys.stdout.write(f"wrote: `{written}`\n")
    return 0


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise OptionInvalid(f"`--domains` is `{text}`; expected names with commas between them, as faces,shoes.")
    return names


def _as_typed(arguments: argparse.Namespace) -> str:
    """The call, without the folders that only this machine has."""
    words = ["sketchbridge", "quality", "--data", arguments.data.name, "--repository", arguments.repository.name]
    if arguments.domains:
        words += ["--domains", arguments.domains]
    return shlex.join([*words, "--out", arguments.out.name, "--seed", str(arguments.seed)])


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


@contextlib.contextmanager
def _bar(title: str, steps: int) -> Iterator[Bar]:
    from tqdm import tqdm  # noqa: PLC0415 - comes with the extra, as torch does

    with tqdm(total=steps, desc=title, unit="step", file=sys.stderr) as bar:
        yield bar
