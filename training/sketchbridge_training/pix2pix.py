"""The two networks, their optimisers and the average, and what one step does to them.

Everything random in step i is drawn from (seed, i), so it makes no difference what else draws random numbers.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sketchbridge_training.diff_augment import draw_augment
from sketchbridge_training.losses import feature_loss, fooling_loss, judging_loss
from sketchbridge_training.networks import PatchDiscriminator, UNetGenerator
from sketchbridge_training.settings import Settings

_DROPOUT_STREAM, _AUGMENT_STREAM = 3, 4  # of random numbers; 0 to 2 are the pairs' and the preview's


@dataclass(frozen=True)
class States:
    """Everything that training changes, as state_dicts in float32. optimisers: by the name of their network."""

    average: dict[str, Tensor] = field(repr=False)
    generator: dict[str, Tensor] = field(repr=False)
    discriminator: dict[str, Tensor] = field(repr=False)
    optimisers: dict[str, dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Losses:
    """Of one batch, before their weights. features: None where it is left out."""

    l1: float
    generator_gan: float
    discriminator: float
    features: float | None


class Pix2Pix:
    """A generator and a discriminator in training.

    average: the exponential average of the generator's weights, which is what is kept and served.
    """

    def __init__(self, settings: Settings, *, device: torch.device, compiled: bool) -> None:
        """Fresh networks. compiled: let torch.compile fuse them, which takes a C++ compiler and a minute at first."""
        self._settings = settings
        self._device = device
        with torch.random.fork_rng(devices=[]):  # the networks are made on the CPU
            torch.manual_seed(settings.seed)
            self._generator = self._place(UNetGenerator(ngf=settings.ngf))
            self._discriminator = self._place(
                PatchDiscriminator(ndf=settings.ndf, spectral_norm=settings.spectral_norm)
            )
        self._paint: Callable[..., Tensor] = self._generator
        self._judge: Callable[..., tuple[Tensor, list[Tensor]]] = self._discriminator
        self._match: Callable[..., Tensor] = feature_loss
        if compiled:
            self._match = torch.compile(feature_loss, dynamic=False)
            self._paint = torch.compile(self._generator, dynamic=False)
            self._judge = torch.compile(self._discriminator, dynamic=False)
        self.average = copy.deepcopy(self._generator).requires_grad_(requires_grad=False)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999), fused=True)
            for name, network in (("generator", self._generator), ("discriminator", self._discriminator))
        }

    def learn(self, sketches: Tensor, photos: Tensor, *, step: int, rate: float) -> Losses:
        """Step number `step`, from 0 on, at the learning rate `rate`: first the discriminator, then the generator.

        sketches, photos: (N, 3, S, S) float in [-1, 1], anywhere.
        """
        settings = self._settings
        sketches, photos = self._move(sketches), self._move(photos)
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        self._generator.train()
        with self._dropout_of_step(step), self.autocast():
            painted = self._paint(sketches)
        augment = self._augment_of_step(step, photos)

        self._discriminator.requires_grad_(requires_grad=True)
        with self.autocast():
            on_painting, _ = self._judge(*augment(sketches, painted.detach()))
            on_photo, of_photo = self._judge(*augment(sketches, photos))
        judging = judging_loss(settings.gan_loss, on_photo, on_painting)
        self._descend("discriminator", judging)

        self._discriminator.requires_grad_(requires_grad=False)
        with self.autocast():
            verdict, of_painting = self._judge(*augment(sketches, painted))
        fooling = fooling_loss(settings.gan_loss, verdict)
        l1 = functional.l1_loss(painted.float(), photos)
        total = fooling + settings.l1_weight * l1
        features = self._match(of_photo, of_painting) if settings.feature_weight else None
        if features is not None:
            total = total + settings.feature_weight * features
        self._descend("generator", total)
        self._update_average(step)
        return Losses(
            l1=float(l1.detach()),
            generator_gan=float(fooling.detach()),
            discriminator=float(judging.detach()),
            features=None if features is None else float(features.detach()),
        )

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure the batch statistics of the average afresh: those of the generator in training don't fit it.

        batches: sketches, (N, 3, S, S) float in [-1, 1]. Touches nothing that is trained.
        """
        for module in self.average.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a plain mean over all batches
                module.train()
            elif isinstance(module, nn.Dropout):
                module.eval()
        with torch.no_grad(), self.autocast():
            for sketches in batches:
                self.average(self._move(sketches))
        self.average.eval()

    def paint(self, sketches: Tensor) -> Tensor:
        """Photos painted by the average, calibrated before: (N, 3, S, S) in [-1, 1] from sketches of the same."""
        with torch.no_grad(), self.autocast():
            painted: Tensor = self.average(self._move(sketches))
        return painted

    def states(self) -> States:
        """What a checkpoint keeps; the tensors are the living ones."""
        return States(
            average=self.average.state_dict(),
            generator=self._generator.state_dict(),
            discriminator=self._discriminator.state_dict(),
            optimisers={name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
        )

    def restore(self, states: States) -> None:
        """Go on from there. Raises KeyError, RuntimeError or ValueError from torch if they are of other networks."""
        self.average.load_state_dict(states.average)
        self._generator.load_state_dict(states.generator)
        self._discriminator.load_state_dict(states.discriminator)
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(states.optimisers[name])

    def start_from(self, generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor]) -> bool:
        """Take over the weights of another run, with fresh optimisers. Returns whether the discriminator's fitted too.

        Raises RuntimeError from torch if the generator's don't fit.
        """
        self._generator.load_state_dict(generator)
        self.average.load_state_dict(generator)
        own = self._discriminator.state_dict()
        if {name: value.shape for name, value in own.items()} != {n: v.shape for n, v in discriminator.items()}:
            return False
        self._discriminator.load_state_dict(discriminator)
        return True

    @contextlib.contextmanager
    def _dropout_of_step(self, step: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(self._seed_of(_DROPOUT_STREAM, step))
            yield

    def _augment_of_step(self, step: int, photos: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(self._seed_of(_AUGMENT_STREAM, step))
        return draw_augment(self._settings.augment, batch=photos.shape[0], side=photos.shape[-1], random=random)

    def _seed_of(self, stream: int, step: int) -> int:
        mixed = np.random.SeedSequence([self._settings.seed, stream, step])
        return int(mixed.generate_state(1, np.uint64)[0])

    def _descend(self, name: str, loss: Tensor) -> None:
        self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimisers[name].step()

    def _update_average(self, step: int) -> None:
        decay = min(self._settings.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for average, value in zip(self.average.parameters(), self._generator.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _move(self, batch: Tensor) -> Tensor:
        return batch.to(self._device).contiguous(memory_format=torch.channels_last)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Computes in bfloat16, where the device does so in hardware."""
        fast = self._device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=fast)
