"""`sketchbridge train`: the arguments, the progress bar, Ctrl-C and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from sketchbridge_training.errors import OptionInvalid, TrainingError
from sketchbridge_training.settings import Settings

if TYPE_CHECKING:
    from sketchbridge_training.progress import Progress
    from sketchbridge_training.trainer import Trainer

EPILOG = """\
examples:
  sketchbridge train photos/shoes --run runs/shoes
  sketchbridge train photos/shoes --run runs/shoes --epochs 60     # resume, and go on for longer
  sketchbridge export runs/shoes/checkpoint.pt --name shoes --repository model_repository

Stop with Ctrl-C whenever you like: the same command resumes exactly where it stopped.
Look at runs/shoes/previews/ as it goes: drawing, painting, photo.

exit status: 0 trained, 1 the training failed, 2 the call was wrong, 130 stopped with Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sketchbridge train`, its description and its examples."""
    usual = Settings()
    parser.description = "Train a sketch-to-photo generator on a folder of photos. The sketches are drawn from them."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photos", type=Path, help="folder with at least 12 PNG, JPEG, WebP or BMP photos of one kind")
    parser.add_argument(
        "--run",
        dest="run_folder",  # `run` is where the `sketchbridge` command keeps the function below
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of this run; resumed if it holds a checkpoint",
    )
    parser.add_argument("--epochs", type=int, default=usual.epochs, help="passes over the photos (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=usual.batch_size, help="pairs a step (default %(default)s)")
    parser.add_argument("--ngf", type=int, default=usual.ngf, help="generator width; 64 on a GPU (default %(default)s)")
    parser.add_argument(
        "--ndf", type=int, default=usual.ndf, help="discriminator width; 64 on a GPU (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=usual.seed, help="makes a run repeatable (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw sketches (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Train or resume; progress and errors go to stderr, the checkpoint's path to stdout. Returns the exit status.

    0 when the last step is done, 1 when the data, the run or the disk is unusable, 2 for an option that can't be,
    130 when stopped with Ctrl-C.
    """
    try:
        settings = Settings(
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            ngf=arguments.ngf,
            ndf=arguments.ndf,
            seed=arguments.seed,
        )
        from sketchbridge_training.trainer import Trainer  # noqa: PLC0415 - torch takes seconds to import

        trainer = Trainer(
            arguments.photos, arguments.run_folder, settings, device=arguments.device, workers=arguments.workers
        )
        return _train(trainer)
    except (TrainingError, OSError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1


def _train(trainer: Trainer) -> int:
    from tqdm import tqdm  # noqa: PLC0415 - comes with the extra, as torch does

    with (
        tqdm(total=trainer.steps, initial=trainer.step, unit="step", file=sys.stderr) as bar,
        _ctrl_c_noted() as ctrl_c,
    ):

        def report(progress: Progress) -> None:
            bar.set_postfix(l1=f"{progress.l1:.3f}", refresh=False)
            bar.update()
            if ctrl_c.is_set():
                bar.write("saving; press Ctrl-C again to stop without", file=sys.stderr)
                raise KeyboardInterrupt

        try:
            trainer.train(report=report)
        except KeyboardInterrupt:
            bar.close()
            sys.stderr.write(f"interrupted. {_how_to_resume(trainer)}\n")
            return 130  # 128 + SIGINT, as shells count
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
def _ctrl_c_noted() -> Iterator[threading.Event]:
    """A first Ctrl-C only sets the event, so that no step is ever half done; a second one interrupts at once."""
    pressed = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
