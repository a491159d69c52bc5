"""`sketchbridge train`: the arguments, the progress bar, Ctrl-C and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, get_args

from sketchbridge_training.choices import Direction, Drawings, Paired
from sketchbridge_training.errors import OptionInvalid, TrainingError
from sketchbridge_training.settings import AUGMENTATIONS, GAN_LOSSES, Settings

if TYPE_CHECKING:
    from sketchbridge_training.progress import Progress
    from sketchbridge_training.trainer import Trainer

EPILOG = """\
examples:
  sketchbridge train photos/shoes --name shoes                 # 30 passes over the photos, in runs/shoes
  sketchbridge train photos/shoes --name shoes --epochs 60     # resume, and go on for longer
  sketchbridge train facades --name facades --direction BtoA   # pairs: side by side, or folders A and B
  sketchbridge train photos/cats --name cats --start-from runs/shoes/checkpoint.pt --augment colour,cutout
  sketchbridge train photos/faces @training/recipes/faces.args # options from a file: a recipe
  sketchbridge export runs/shoes/checkpoint.pt --name shoes --repository model_repository

Stop with Ctrl-C whenever you like: the same command resumes exactly where it stopped.
Look at runs/shoes/previews/ as it goes (drawing, painting, photo), or at the curves: tensorboard --logdir runs

exit status: 0 trained, 1 the training failed, 2 the call was wrong, 130 stopped with Ctrl-C, 143 with SIGTERM
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sketchbridge train`, its description and its examples."""
    usual = Settings()
    parser.description = (
        "Train a sketch-to-photo generator, on photos whose sketches are drawn as it goes, or on pairs of both."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.fromfile_prefix_chars = "@"
    parser.convert_arg_line_to_args = _split_line  # type: ignore[method-assign]  # as argparse's documentation has it
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        help="folder with at least 12 PNG, JPEG, WebP or BMP photos of one kind; or pix2pix pairs: pictures with A and "
        "B side by side, or folders A and B. Several folders of one kind are trained on together",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--name", help="name of the generator; the run is in runs/NAME")
    where.add_argument(
        "--run",
        dest="run_folder",  # `run` is where the `sketchbridge` command keeps the function below
        metavar="DIR",
        type=Path,
        help="folder of this run, if it is not runs/NAME; resumed if it holds a checkpoint",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--held-out",
        metavar="FILE",
        type=Path,
        action="append",
        help="list of the pictures never to train on, a name a line or a CSV with a column `file`; one for each folder",
    )
    data.add_argument(
        "--paired", choices=get_args(Paired), default="auto", help="what the data must be (default: %(default)s, looks)"
    )
    data.add_argument(
        "--direction", choices=get_args(Direction), default="AtoB", help="A is the drawing, or B (default %(default)s)"
    )
    data.add_argument(
        "--drawings",
        choices=get_args(Drawings),
        default="auto",
        help="of pairs: redraw lines as the server does, or take them as they are (default: %(default)s, looks)",
    )
    data.add_argument(
        "--segment",
        action="store_true",
        help="find the thing in each photo (GrabCut), and draw it without its background at times",
    )

    length = parser.add_argument_group("length and size")
    length.add_argument("--epochs", type=int, default=usual.epochs, help="passes over the data (default %(default)s)")
    length.add_argument("--steps", type=int, help="steps to train, instead of epochs")
    length.add_argument("--batch-size", type=int, default=usual.batch_size, help="pairs a step (default %(default)s)")
    length.add_argument("--ngf", type=int, default=usual.ngf, help="generator width; 64 on a GPU (default %(default)s)")
    length.add_argument(
        "--ndf", type=int, default=usual.ndf, help="discriminator width; 64 on a GPU (default %(default)s)"
    )
    length.add_argument("--seed", type=int, default=usual.seed, help="makes a run repeatable (default %(default)s)")
    length.add_argument(
        "--start-from", metavar="FILE", type=Path, help="checkpoint of another run to begin with, of the same ngf"
    )

    losses = parser.add_argument_group("losses")
    losses.add_argument("--gan-loss", choices=GAN_LOSSES, default=usual.gan_loss, help="default: %(default)s")
    losses.add_argument(
        "--l1-weight", type=float, default=usual.l1_weight, help="of the L1 distance (default %(default)g)"
    )
    losses.add_argument(
        "--feature-weight",
        type=float,
        default=usual.feature_weight,
        help="of feature matching, usually 10 (default %(default)g: none)",
    )
    losses.add_argument(
        "--learning-rate", type=float, default=usual.learning_rate, help="of Adam, at the start (default %(default)g)"
    )
    losses.add_argument(
        "--average-decay", type=float, default=usual.average_decay, help="of the weights' average (default %(default)g)"
    )
    losses.add_argument(
        "--spectral-norm", action="store_true", help="bound the discriminator, in place of batch normalisation"
    )
    losses.add_argument(
        "--augment",
        type=_read_augment,
        default=(),
        metavar="KINDS",
        help=f"what to change before the discriminator looks, for small data: {','.join(AUGMENTATIONS)}",
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default %(default)s)")
    machine.add_argument("--workers", type=int, default=1, help="processes that draw sketches (default %(default)s)")
    machine.add_argument(
        "--compile",
        dest="compiled",
        action="store_true",
        help="fuse the networks' layers with torch.compile: takes a C++ compiler and a minute, pays in long runs",
    )
    machine.add_argument(
        "--preview", dest="drawings_folder", metavar="DIR", type=Path, help="drawings to paint on every preview as well"
    )
    machine.add_argument("--preview-every", type=int, default=400, metavar="STEPS", help="default %(default)s")
    machine.add_argument("--save-every", type=int, default=200, metavar="STEPS", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Train or resume; progress and errors go to stderr, the checkpoint's path to stdout. Returns the exit status.

    0 when the last step is done, 1 when the data, the run or the disk is unusable, 2 for an option that can't be,
    130 when stopped with Ctrl-C, 143 with SIGTERM.
    """
    try:
        return _train(_open(arguments), save_every=arguments.save_every, preview_every=arguments.preview_every)
    except (TrainingError, OSError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1


def _open(arguments: argparse.Namespace) -> Trainer:
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    run = _run_folder(arguments.name) if arguments.run_folder is None else arguments.run_folder

    from sketchbridge_preprocess import INTERFACE_SIDE_PX, Size  # noqa: PLC0415 - OpenCV and torch take a while
    from sketchbridge_training.preview import load_drawings  # noqa: PLC0415
    from sketchbridge_training.sources import open_sources  # noqa: PLC0415
    from sketchbridge_training.trainer import Trainer  # noqa: PLC0415

    lists = arguments.held_out
    training, held_out = open_sources(
        arguments.data,
        size=Size(INTERFACE_SIDE_PX, INTERFACE_SIDE_PX),
        held_out=lists[0] if lists is not None and len(lists) == 1 else lists,
        paired=arguments.paired,
        direction=arguments.direction,
        drawings=arguments.drawings,
        segment=arguments.segment,
        mask_folder=run / "masks",
    )
    trainer = Trainer(
        training,
        held_out,
        run,
        settings,
        start_from=arguments.start_from,
        drawings=() if arguments.drawings_folder is None else load_drawings(arguments.drawings_folder),
        device=arguments.device,
        workers=arguments.workers,
        compiled=arguments.compiled,
    )
    sys.stderr.write(f"training on {training.description}; {held_out.description}\n")
    return trainer


def _split_line(arg_line: str) -> list[str]:
    """The words of a line of an options file. Raises ArgumentError, which argparse turns into a usage error."""
    try:
        words = shlex.split(arg_line, comments=True)
    except ValueError as exc:
        raise argparse.ArgumentError(None, f"an options file has the line `{arg_line:.200}`: {exc}") from exc
    if any(word.startswith("@") for word in words):  # it might name itself
        raise argparse.ArgumentError(None, f"an options file can't name another one: `{arg_line:.200}`")
    return words


def _run_folder(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise OptionInvalid(f"`{name}` can't be a generator's name; it takes letters, digits, `_`, `-` and `.`.")
    return Path("runs") / name


def _read_augment(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _train(trainer: Trainer, *, save_every: int, preview_every: int) -> int:
    from tqdm import tqdm  # noqa: PLC0415 - comes with the extra, as torch does

    with (
        tqdm(total=trainer.steps, initial=trainer.step, unit="step", file=sys.stderr) as bar,
        _stop_noted() as stop,
    ):

        def report(progress: Progress) -> None:
            bar.set_postfix(l1=f"{progress.l1:.3f}", refresh=False)
            bar.update()
            if stop:
                bar.write("saving; press Ctrl-C again to stop without", file=sys.stderr)
                raise KeyboardInterrupt

        try:
            trainer.train(report=report, save_every=save_every, preview_every=preview_every)
        except KeyboardInterrupt:
            bar.close()
            sys.stderr.write(f"interrupted. {_how_to_resume(trainer)}\n")
            return 128 + (stop[0] if stop else signal.SIGINT)  # as shells count
    sys.stdout.write(f"wrote: `{trainer.checkpoint_path}`\n")
    return 0


def _how_to_resume(trainer: Trainer) -> str:
    if trainer.saved_step is None:
        return "Nothing was saved yet; the same command starts again."
    return (
        f"`{trainer.checkpoint_path}` holds step {trainer.saved_step} of {trainer.steps}; "
        "the same command resumes there."
    )


@contextlib.contextmanager
def _stop_noted() -> Iterator[list[int]]:
    """A first Ctrl-C or SIGTERM is only noted, so that no step is ever half done; a second one interrupts at once."""
    noted: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield noted
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
