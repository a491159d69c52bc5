"""The training loop: pix2pix losses, averaged weights, runs that resume exactly.

Everything random in step i is drawn from (seed, i): the pairs (see PairStream) and the dropout. So it makes no
difference where a run was stopped, how often it was saved, or what else in the process uses torch's random numbers.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sketchbridge_preprocess import INTERFACE_SIDE_PX, Image, Size, encode
from sketchbridge_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import CheckpointInvalid, OptionInvalid
from sketchbridge_training.loading import load_batches
from sketchbridge_training.networks import PatchDiscriminator, UNetGenerator
from sketchbridge_training.pairs import PairStream, check_photos, find_photos, load_photo, to_image, to_tensor
from sketchbridge_training.progress import LossLog, Progress
from sketchbridge_training.settings import Settings, check_count

logger = logging.getLogger(__name__)

_EMA_DECAY = 0.999
_CALIBRATION_BATCHES = 40
_PREVIEW_COLUMNS = 10
_PREVIEW_STREAM, _DROPOUT_STREAM = 2, 3  # of random numbers; PairStream has 0 and 1


class Trainer:
    """One run in one folder: `checkpoint.pt` (resumable), `previews/`, `losses.csv`.

    step: steps done. steps: steps in all. saved_step: the step that `checkpoint.pt` holds, None if there is none yet.
    On a CPU a resumed run has exactly the weights of one that never stopped; on a GPU, what cuDNN leaves open differs.
    """

    def __init__(self, photos: Path, run: Path, settings: Settings, *, device: str = "cpu", workers: int = 1) -> None:
        """Make ready to start a run in the folder `run`, or to resume the one that is there. Writes nothing yet.

        photos: folder of at least 12 PNG, JPEG, WebP or BMP files, any size. If it changed since, the run goes on with
        what is there now. device: as torch names it. workers: processes that draw sketches, see
        `load_batches`; 0 for none.
        Raises DataInvalid for unusable photos, CheckpointInvalid if `run` holds something else than a run with these
        settings, OptionInvalid if the device is not there or there is nothing to train.
        """
        check_count("workers", workers, least=0)
        self.settings = settings
        self._run = run
        self._device = _find_device(device)
        self._workers = workers
        self._photos, self._held_out = find_photos(photos)
        check_photos([*self._photos, *self._held_out])
        self._size = Size(INTERFACE_SIDE_PX, INTERFACE_SIDE_PX)
        self._stream = PairStream(self._photos, size=self._size, seed=settings.seed)
        self.steps = settings.epochs * len(self._photos) // settings.batch_size
        self.step = 0
        self.saved_step: int | None = None
        self._calibrated_step: int | None = None
        self._in_step = False

        with torch.random.fork_rng(devices=[]):  # the networks are made on the CPU
            torch.manual_seed(settings.seed)
            self._generator = self._place(UNetGenerator(ngf=settings.ngf))
            self._discriminator = self._place(PatchDiscriminator(ndf=settings.ndf))
        self._average = copy.deepcopy(self._generator).requires_grad_(requires_grad=False)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999), fused=True)
            for name, network in (("generator", self._generator), ("discriminator", self._discriminator))
        }
        if self.checkpoint_path.exists():
            self._resume()
        if self.steps < max(self.step, 1):
            raise OptionInvalid(
                f"{settings.epochs} epochs of {len(self._photos)} photos in batches of {settings.batch_size} are "
                f"{self.steps} steps, and {self.step} are done. Raise the epochs, or add photos."
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
        Raises DataInvalid for a photo that can't be decoded, OptionInvalid, OSError if the run can't be written.
        """
        check_count("save_every", save_every, least=1)
        check_count("preview_every", preview_every, least=1)
        self._run.mkdir(parents=True, exist_ok=True)
        log = LossLog(self._run / "losses.csv", step=self.step)
        try:
            for sketch, photo in self._batches():
                progress = self._train_step(sketch, photo)
                log.add(progress)
                report(progress)
                if self.step % preview_every == 0:
                    self.preview()
                if self.step % save_every == 0:
                    self.save()
        except BaseException:
            if not self._in_step:
                self.save()
            raise
        self.save()
        self.preview()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = load_batches(
            self._stream,
            batch_size=self.settings.batch_size,
            first=self.step,
            stop=self.steps,
            workers=self._workers,
        )
        for sketch, photo in batches:
            yield self._move(sketch), self._move(photo)

    def _train_step(self, sketch: Tensor, photo: Tensor) -> Progress:
        self._in_step = True
        self._set_learning_rate()
        self._generator.train()
        with self._dropout_of_step(), self._autocast():
            painted = self._generator(sketch)

        self._discriminator.requires_grad_(requires_grad=True)
        with self._autocast():
            on_fake = self._discriminator(sketch, painted.detach())
            on_real = self._discriminator(sketch, photo)
        judging = 0.5 * (_gan_loss(on_fake, real=False) + _gan_loss(on_real, real=True))
        self._descend("discriminator", judging)

        self._discriminator.requires_grad_(requires_grad=False)
        with self._autocast():
            verdict = self._discriminator(sketch, painted)
        fooling = _gan_loss(verdict, real=True)
        l1 = functional.l1_loss(painted.float(), photo)
        self._descend("generator", fooling + self.settings.l1_weight * l1)

        self._update_average()
        self.step += 1
        self._in_step = False
        return Progress(self.step, self.steps, float(l1.detach()), float(fooling.detach()), float(judging.detach()))

    @contextlib.contextmanager
    def _dropout_of_step(self) -> Iterator[None]:
        mixed = np.random.SeedSequence([self.settings.seed, _DROPOUT_STREAM, self.step])
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
            yield

    def _descend(self, name: str, loss: Tensor) -> None:
        self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimisers[name].step()

    def _set_learning_rate(self) -> None:
        done = self.step / self.steps
        rate = self.settings.learning_rate * min(1.0, max(2 * (1 - done), 0.02))
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate

    def _update_average(self) -> None:
        decay = min(_EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(self._average.parameters(), self._generator.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def calibrate(self) -> None:
        """Measure the batch statistics of the averaged weights afresh: the trained weights' own don't fit them.

        They are measured on the run's first 40 batches, or its first pass over the photos if that is shorter. Touches
        nothing that is trained. Raises DataInvalid for a photo that can't be decoded.
        """
        if self._calibrated_step == self.step:
            return
        for module in self._average.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a plain mean over all batches
                module.train()
            elif isinstance(module, nn.Dropout):
                module.eval()
        batch_size = self.settings.batch_size
        batches = min(_CALIBRATION_BATCHES, -(-len(self._photos) // batch_size))
        with torch.no_grad(), self._autocast():
            for first in range(0, batches * batch_size, batch_size):
                sketches = torch.stack([self._stream[first + offset][0] for offset in range(batch_size)])
                self._average(self._move(sketches))
        self._average.eval()
        self._calibrated_step = self.step

    def preview(self) -> Path:
        """Paint drawings of held-out photos with the averaged weights; write one contact sheet and return its path.

        Rows: drawing, painting, photo; a column for each of the first ten held-out photos. Raises as `train`.
        """
        self.calibrate()
        columns = []
        for number, path in enumerate(self._held_out[:_PREVIEW_COLUMNS]):
            photo = load_photo(path, self._size)
            sketch = draw(photo, np.random.default_rng([self.settings.seed, _PREVIEW_STREAM, number]))
            with torch.no_grad(), self._autocast():
                painted = self._average(self._move(to_tensor(sketch)[None]))[0]
            columns.append(np.vstack([np.repeat(sketch[:, :, None], 3, axis=2), to_image(painted), photo]))
        path = self._run / "previews" / f"{self.step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(_shrink(np.hstack(columns))))
        return path

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; nothing to do if this step is saved. Raises OSError."""
        if self.saved_step == self.step:
            return
        self.calibrate()
        checkpoint = Checkpoint(
            step=self.step,
            steps=self.steps,
            settings=self.settings,
            average=self._average.state_dict(),
            generator=self._generator.state_dict(),
            discriminator=self._discriminator.state_dict(),
            optimisers={name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
        )
        write_checkpoint(self.checkpoint_path, checkpoint)
        self.saved_step = self.step

    def _resume(self) -> None:
        checkpoint = read_checkpoint(self.checkpoint_path, device=self._device)
        made_with = checkpoint.settings
        if dataclasses.replace(made_with, epochs=self.settings.epochs) != self.settings:
            raise CheckpointInvalid(
                f"`{self._run}` was started with {made_with}; asked for now: {self.settings}. "
                "Use the same settings (epochs may differ) or name another run folder."
            )
        try:
            self._average.load_state_dict(checkpoint.average)
            self._generator.load_state_dict(checkpoint.generator)
            self._discriminator.load_state_dict(checkpoint.discriminator)
            for name, optimiser in self._optimisers.items():
                optimiser.load_state_dict(checkpoint.optimisers[name])
        except (KeyError, RuntimeError, ValueError) as exc:
            raise CheckpointInvalid(
                f"`{self.checkpoint_path}` doesn't hold the networks that its settings describe. "
                "Name another run folder, or move this file away to start afresh."
            ) from exc
        self.step = self.saved_step = self._calibrated_step = checkpoint.step
        logger.info("resumed run=%s step=%d steps=%d", self._run, self.step, self.steps)

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _move(self, batch: Tensor) -> Tensor:
        return batch.to(self._device).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise OptionInvalid(f"There is no device `{name}` here ({reason}). Try `cpu`, `cuda` or `cuda:1`.") from exc
    return device


def _gan_loss(logits: Tensor, *, real: bool) -> Tensor:
    target = torch.full_like(logits, float(real), dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def _shrink(sheet: Image) -> Image:
    return np.asarray(cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), np.uint8)
