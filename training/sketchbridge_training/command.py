"""`sketchbridge train`: the arguments, the progress bar and the exit code."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """\
examples:
  sketchbridge train photos/shoes --run runs/shoes
  sketchbridge train photos/shoes --run runs/shoes --epochs 60     # resume, and go on for longer
  sketchbridge export runs/shoes/checkpoint.pt --name shoes --repository model_repository

Stop with Ctrl-C whenever you like: the same command resumes exactly where it stopped.
Look at runs/shoes/previews/ as it goes: drawing, painting, photo.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sketchbridge train`."""
    parser.description = "Train a sketch-to-photo generator on a folder of photos. The sketches are drawn from them."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photos", type=Path, help="folder with at least 12 PNG, JPEG, WebP or BMP photos of one kind")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run; resumed if it holds a checkpoint")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the photos (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help="pairs a step (default %(default)s)")
    parser.add_argument("--ngf", type=int, default=32, help="generator width; 64 on a GPU (default %(default)s)")
    parser.add_argument("--ndf", type=int, default=32, help="discriminator width; 64 on a GPU (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="makes a run repeatable (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw sketches (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Train or resume; 0 when the last step is done, 1 with a message when the data or the run is unusable."""
    from tqdm import tqdm  # noqa: PLC0415 - torch takes seconds to import, and only this command needs it

    from sketchbridge_training.errors import TrainingError  # noqa: PLC0415
    from sketchbridge_training.trainer import Progress, Settings, Trainer  # noqa: PLC0415

    settings = Settings(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        ngf=arguments.ngf,
        ndf=arguments.ndf,
        seed=arguments.seed,
    )
    try:
        trainer = Trainer(arguments.photos, arguments.run, settings, device=arguments.device, workers=arguments.workers)
        with tqdm(total=trainer.steps, initial=trainer.step, unit="step", file=sys.stderr) as bar:

            def report(progress: Progress) -> None:
                bar.set_postfix(l1=f"{progress.l1:.3f}", refresh=False)
                bar.update()

            trainer.train(report=report)
    except TrainingError as exc:
        print(f"sketchbridge train: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"wrote: `{trainer.checkpoint_path}`")  # noqa: T201
    return 0
