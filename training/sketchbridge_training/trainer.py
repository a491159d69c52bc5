"""The training loop: pix2pix losses, averaged weights, checkpoints that resume exactly."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from sketchbridge_preprocess import Image, Size, encode
from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import CheckpointInvalid
from sketchbridge_training.networks import PatchDiscriminator, UNetGenerator
from sketchbridge_training.pairs import PairStream, find_photos, load_photo, to_image, to_tensor

logger = logging.getLogger(__name__)

IMAGE_SIDE_PX = 256
_EMA_DECAY = 0.999
_CALIBRATION_BATCHES = 40


@dataclass(frozen=True)
class Settings:
    """What defines a run; a checkpoint remembers them and refuses to resume under others (epochs may be raised).

    epochs: passes over the photos; the learning rate falls linearly to zero over the second half.
    ngf, ndf: width of the generator and the discriminator. l1_weight: lambda of the paper's L1 term.
    """

    epochs: int = 30
    batch_size: int = 4
    ngf: int = 32
    ndf: int = 32
    learning_rate: float = 2e-4
    l1_weight: float = 100.0
    seed: int = 1


@dataclass(frozen=True)
class Progress:
    """What one step did: `step` of `steps`, and the losses of its batch."""

    step: int
    steps: int
    l1: float
    generator_gan: float
    discriminator: float


class Trainer:
    """One run in one folder: `checkpoint.pt` (resumable), `previews/`, `losses.csv`."""

    def __init__(self, photos: Path, run: Path, settings: Settings, *, device: str = "cpu", workers: int = 1) -> None:
        """Start a run in the folder `run`, or resume the one that is there.

        Raises DataInvalid for unusable photos, CheckpointInvalid if `run` was made with other settings.
        """
        self.settings = settings
        self._run = run
        self._device = torch.device(device)
        self._workers = workers
        self._photos, self._held_out = find_photos(photos)
        self._size = Size(IMAGE_SIDE_PX, IMAGE_SIDE_PX)
        self._stream = PairStream(self._photos, size=self._size, seed=settings.seed)
        self.steps = settings.epochs * len(self._photos) // settings.batch_size
        self.step = 0

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

    @property
    def checkpoint_path(self) -> Path:
        """Where the run keeps its checkpoint."""
        return self._run / "checkpoint.pt"

    def train(self, *, report: Callable[[Progress], None], save_every: int = 200, preview_every: int = 400) -> None:
        """Train to the last step, saving every `save_every` steps, at the end, and when interrupted."""
        self._run.mkdir(parents=True, exist_ok=True)
        try:
            for sketch, photo in self._batches():
                report(self._train_step(sketch, photo))
                if self.step % preview_every == 0:
                    self.preview()
                if self.step % save_every == 0:
                    self.save()
        finally:
            self.save()
        self.preview()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        batch = self.settings.batch_size
        loader = DataLoader(
            self._stream,
            batch_size=batch,
            sampler=range(self.step * batch, self.steps * batch),
            num_workers=self._workers,
            worker_init_fn=_use_one_thread,
            generator=torch.Generator(),  # its own, so that starting a loader leaves dropout's random numbers alone
        )
        for sketch, photo in loader:
            yield self._move(sketch), self._move(photo)

    def _train_step(self, sketch: Tensor, photo: Tensor) -> Progress:
        self._set_learning_rate()
        self._generator.train()
        with self._autocast():
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
        progress = Progress(self.step, self.steps, float(l1.detach()), float(fooling.detach()), float(judging.detach()))
        with (self._run / "losses.csv").open("a") as file:
            file.write(f"{self.step},{progress.l1:.5f},{progress.generator_gan:.5f},{progress.discriminator:.5f}\n")
        return progress

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
        """Measure the batch statistics of the averaged weights afresh: the trained weights' own don't fit them."""
        for module in self._average.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a plain mean over all batches
                module.train()
            elif isinstance(module, nn.Dropout):
                module.eval()
        pairs = (self._stream[index] for index in range(_CALIBRATION_BATCHES * self.settings.batch_size))
        with torch.no_grad(), self._autocast():
            for _ in range(_CALIBRATION_BATCHES):
                sketches = torch.stack([next(pairs)[0] for _ in range(self.settings.batch_size)])
                self._average(self._move(sketches))
        self._average.eval()

    def preview(self) -> Path:
        """Paint held-out photos' drawings with the averaged weights and write one contact sheet; return its path."""
        self.calibrate()
        columns = []
        for number, path in enumerate(self._held_out[:10]):
            photo = load_photo(path, self._size)
            sketch = draw(photo, np.random.default_rng([self.settings.seed, 2, number]))
            with torch.no_grad(), self._autocast():
                painted = self._average(self._move(to_tensor(sketch)[None]))[0]
            columns.append(np.vstack([np.repeat(sketch[:, :, None], 3, axis=2), to_image(painted), photo]))
        return _write(self._run / "previews" / f"{self.step:06d}.png", encode(_shrink(np.hstack(columns))))

    def save(self) -> None:
        """Write the checkpoint: a whole file beside the old one, then a rename."""
        self.calibrate()
        content = {
            "sketchbridge": {"family": "junyanz_unet", "norm": "running", "step": self.step, "steps": self.steps},
            "generator": _as_contiguous(self._average.state_dict()),
            "training": {
                "settings": dataclasses.asdict(self.settings),
                "generator": self._generator.state_dict(),
                "discriminator": self._discriminator.state_dict(),
                "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
                "random_state": torch.get_rng_state(),
            },
        }
        self._run.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._run, prefix=".checkpoint-", delete=False) as file:
            try:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self.checkpoint_path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _resume(self) -> None:
        try:
            content: dict[str, Any] = torch.load(self.checkpoint_path, map_location=self._device, weights_only=True)
            then, training = content["sketchbridge"], content["training"]
            made_with = Settings(**training["settings"])
        except Exception as exc:
            raise CheckpointInvalid(
                f"`{self.checkpoint_path}` can't be resumed: {exc}. Name another run folder, or delete this one."
            ) from exc
        if dataclasses.replace(made_with, epochs=self.settings.epochs) != self.settings:
            raise CheckpointInvalid(
                f"`{self._run}` was started with {made_with}; asked for now: {self.settings}. "
                "Use the same settings (epochs may differ) or name another run folder."
            )
        self.step = then["step"]
        self._average.load_state_dict(content["generator"])
        self._generator.load_state_dict(training["generator"])
        self._discriminator.load_state_dict(training["discriminator"])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(training["optimisers"][name])
        torch.set_rng_state(training["random_state"].cpu())
        logger.info("resumed run=%s step=%d of %d", self._run, self.step, self.steps)

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _move(self, batch: Tensor) -> Tensor:
        return batch.to(self._device).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _gan_loss(logits: Tensor, *, real: bool) -> Tensor:
    target = torch.full_like(logits, float(real), dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def _as_contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in state.items()}


def _shrink(sheet: Image) -> Image:
    return np.asarray(cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), np.uint8)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _use_one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
