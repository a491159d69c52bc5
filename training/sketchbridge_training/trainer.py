"""One run in one folder: the loop, the schedule, previews, and checkpoints that resume exactly.

Everything random in step i is drawn from (seed, i): the pairs (see PairStream), the dropout and the augmentation. So it
makes no difference where a run was stopped, how often it was saved, or what else in the process uses random numbers.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sketchbridge_preprocess import Image, encode
from sketchbridge_training.checkpoint import Checkpoint, read_checkpoint, read_weights, write_checkpoint
from sketchbridge_training.errors import CheckpointInvalid, OptionInvalid, TrainingError
from sketchbridge_training.loading import load_batches
from sketchbridge_training.memory import keep_freed_memory
from sketchbridge_training.pairs import PairStream, to_image, to_tensor
from sketchbridge_training.pix2pix import Pix2Pix
from sketchbridge_training.preview import held_out_pairs, make_sheet
from sketchbridge_training.progress import Board, LossLog, Progress
from sketchbridge_training.settings import Settings, check_count
from sketchbridge_training.sources import Source
from sketchbridge_training.writing import write_whole

logger = logging.getLogger(__name__)

_CALIBRATION_BATCHES = 40
_CALIBRATION_PAIRS = 320  # at most, if a batch has fewer: they are kept in memory


class Trainer:
    """One run in one folder: `checkpoint.pt` (resumable), `previews/`, `losses.csv`, `tensorboard/`.

    step: steps done. steps: steps in all. saved_step: the step that `checkpoint.pt` holds, None if there is none yet.
    On a CPU a resumed run has exactly the weights of one that never stopped; on a GPU, what cuDNN leaves open differs.
    """

    def __init__(
        self,
        training: Source,
        held_out: Source,
        run: Path,
        settings: Settings,
        *,
        start_from: Path | None = None,
        drawings: Sequence[Image] = (),
        device: str = "cpu",
        workers: int = 1,
        compiled: bool = False,
    ) -> None:
        """Make ready to start a run in the folder `run`, or to resume the one that is there. Writes nothing yet.

        training: the pictures to learn from. If they changed since, the run goes on with what is there now. held_out:
        pictures for the previews. start_from: checkpoint of another run whose weights a new one begins with; a run
        that is resumed has its own. drawings: (256, 256, 3) uint8, painted on each preview. device: as torch names it.
        workers: processes that draw sketches, see `load_batches`; 0 for none. compiled: see Pix2Pix.
        Raises CheckpointInvalid if `run` holds something else than a run with these settings, or `start_from` other
        networks; OptionInvalid if the device is not there or there is nothing to train; DataInvalid for a held-out
        picture that can't be read.
        """
        check_count("workers", workers, least=0)
        self.settings = settings
        self._run = run
        self._device = _find_device(device)
        self._workers = workers
        self._stream = PairStream(training, seed=settings.seed)
        self._pictures = len(training)
        self._seen = set(training.names)
        self._held_out = frozenset(held_out.names)
        self._previewed = held_out_pairs(held_out, seed=settings.seed)
        self._drawings = drawings
        self.steps = settings.count_steps(self._pictures)
        self.step = 0
        self.saved_step: int | None = None
        self._calibrated_step: int | None = None
        self._calibration: list[Tensor] = []  # kept: drawing it takes longer than painting it
        self._in_step = False
        self._model = Pix2Pix(settings, device=self._device, compiled=compiled)
        if self.checkpoint_path.exists():
            self._resume()
        elif start_from is not None:
            self._start_from(start_from)
        if self.steps < max(self.step, 1):
            raise OptionInvalid(
                f"{settings.epochs} epochs of {self._pictures} pictures in batches of {settings.batch_size} are "
                f"{self.steps} steps, and {self.step} are done. Raise the epochs, or add pictures."
                if settings.steps is None
                else f"{self.steps} steps are asked for, and {self.step} are done. Raise the steps."
            )

    @property
    def checkpoint_path(self) -> Path:
        """Where the run keeps its checkpoint."""
        return self._run / "checkpoint.pt"

    def train(self, *, report: Callable[[Progress], None], save_every: int = 200, preview_every: int = 400) -> None:
        """Train to the last step, saving every `save_every` steps, at the end, and when interrupted between steps.

        report: called after every step; whatever it raises stops the run there, saved, and comes through. An exception
        within a step, such as KeyboardInterrupt, leaves the networks half updated: then the last checkpoint stands, and
        this object is of no more use. The weights don't depend on `save_every` or `preview_every`, both at least 1.
        Raises DataInvalid for a photo that can't be decoded, OptionInvalid, OSError if the run can't be written, and
        TrainingError if the losses are no numbers any more or a process that draws was killed.
        """
        check_count("save_every", save_every, least=1)
        check_count("preview_every", preview_every, least=1)
        keep_freed_memory()
        self._run.mkdir(parents=True, exist_ok=True)
        log = LossLog(self._run / "losses.csv", step=self.step)
        board = Board(self._run / "tensorboard", step=self.step)
        try:
            for sketches, photos in self._batches():
                progress = self._train_step(sketches, photos)
                log.add(progress)
                board.add(progress)
                report(progress)
                if self.step % preview_every == 0:
                    board.add_sheet(self.preview(), step=self.step)
                if self.step % save_every == 0:
                    self.save()
        except BaseException:
            if not self._in_step:
                self.save()
            raise
        else:
            self.save()
            board.add_sheet(self.preview(), step=self.step)
        finally:
            board.close()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return load_batches(
            self._stream,
            batch_size=self.settings.batch_size,
            first=self.step,
            stop=self.steps,
            workers=self._workers,
        )

    def _train_step(self, sketches: Tensor, photos: Tensor) -> Progress:
        rate = self.settings.learning_rate * min(1.0, max(2 * (1 - self.step / self.steps), 0.02))
        self._in_step = True
        losses = self._model.learn(sketches, photos, step=self.step, rate=rate)
        if not math.isfinite(losses.l1 + losses.generator_gan + losses.discriminator + (losses.features or 0.0)):
            raise TrainingError(
                f"The losses of step {self.step + 1} are no numbers any more: {losses}. Start again from an older "
                "checkpoint or afresh, with a lower learning rate."
            )
        self.step += 1
        self._in_step = False
        return Progress(
            step=self.step,
            steps=self.steps,
            l1=losses.l1,
            features=losses.features,
            generator_gan=losses.generator_gan,
            discriminator=losses.discriminator,
            learning_rate=rate,
        )

    def calibrate(self) -> None:
        """Measure the batch statistics of the averaged weights, on the run's first 40 batches, 320 pairs or pass.

        Touches nothing that is trained. Raises DataInvalid for a photo that can't be decoded.
        """
        if self._calibrated_step == self.step:
            return
        if not self._calibration:
            size = self.settings.batch_size
            batches = min(_CALIBRATION_BATCHES, max(1, _CALIBRATION_PAIRS // size), -(-self._pictures // size))
            self._calibration = [
                torch.stack([self._stream[first + offset][0] for offset in range(size)])
                for first in range(0, batches * size, size)
            ]
        self._model.calibrate(self._calibration)
        self._calibrated_step = self.step

    def preview(self) -> Image:
        """Paint the fixed drawings with the averaged weights; write the sheet to `previews/` and return it.

        Raises DataInvalid for a photo that can't be decoded, OSError if the sheet can't be written.
        """
        self.calibrate()
        sheet = make_sheet(self._previewed, self._drawings, self._paint)
        write_whole(self._run / "previews" / f"{self.step:06d}.png", encode(sheet))
        return sheet

    def _paint(self, sketch: Image) -> Image:
        return to_image(self._model.paint(to_tensor(sketch)[None])[0])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; nothing to do if this step is saved. Raises OSError."""
        if self.saved_step == self.step:
            return
        self.calibrate()
        checkpoint = Checkpoint(
            step=self.step,
            steps=self.steps,
            settings=self.settings,
            pictures=tuple(sorted(self._seen)),
            states=self._model.states(),
        )
        write_checkpoint(self.checkpoint_path, checkpoint)
        self.saved_step = self.step

    def _resume(self) -> None:
        checkpoint = read_checkpoint(self.checkpoint_path, device=self._device)
        made_with = checkpoint.settings
        wanted = self.settings
        if dataclasses.replace(made_with, epochs=wanted.epochs, steps=wanted.steps) != wanted:
            raise CheckpointInvalid(
                f"`{self._run}` was started with {made_with}; asked for now: {wanted}. "
                "Use the same settings (epochs and steps may differ) or name another run folder."
            )
        seen = sorted(self._held_out.intersection(checkpoint.pictures))
        if seen:
            raise CheckpointInvalid(
                f"`{self._run}` was trained on {len(seen)} of the pictures that are to be held out now, such as "
                f"`{seen[0]}`. Hold out what the run held out when it was started, or name another run folder."
            )
        try:
            self._model.restore(checkpoint.states)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as exc:
            raise CheckpointInvalid(
                f"`{self.checkpoint_path}` doesn't hold the networks that its settings describe. "
                "Name another run folder, or move this file away to start afresh."
            ) from exc
        self._seen.update(checkpoint.pictures)
        self.step = self.saved_step = self._calibrated_step = checkpoint.step
        logger.info("resumed run=%s step=%d steps=%d", self._run, self.step, self.steps)

    def _start_from(self, path: Path) -> None:
        try:
            judged = self._model.start_from(*read_weights(path))
        except RuntimeError as exc:
            raise CheckpointInvalid(
                f"The generator in `{path}` has other layers than one with ngf {self.settings.ngf}. "
                "Give the ngf that it was trained with, or another checkpoint."
            ) from exc
        logger.info("started run=%s from=%s discriminator=%s", self._run, path, "taken over" if judged else "fresh")


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise OptionInvalid(f"There is no device `{name}` here ({reason}). Try `cpu`, `cuda` or `cuda:1`.") from exc
    return device
