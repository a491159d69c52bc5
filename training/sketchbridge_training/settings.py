"""What a training run can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sketchbridge_training.errors import OptionInvalid

GanLoss = Literal["bce", "lsgan", "hinge"]
Augmentation = Literal["colour", "translation", "cutout"]
GAN_LOSSES: tuple[GanLoss, ...] = get_args(GanLoss)
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)


@dataclass(frozen=True)
class Settings:
    """What defines a run; a checkpoint remembers them and refuses to resume under others (epochs, steps may differ).

    epochs: passes over the pictures; the learning rate falls linearly towards zero over the second half. steps: if
    given, it counts instead of the epochs. batch_size: pairs a step. ngf, ndf: features in the first layer of the
    generator and of the discriminator; 64 is the paper's width, 32 trains four times as fast. learning_rate: of Adam,
    at the start. average_decay: of the exponential average of the generator's weights, which is what is kept; in
    [0, 1). seed: at least 0; the same seed repeats a run on the same machine.

    gan_loss: `bce` as in the paper, `lsgan` (Mao et al. 2017) or `hinge` (Lim and Ye 2017). l1_weight: lambda of the
    paper's L1 term; 0 leaves it out. feature_weight: of the distance between the discriminator's features of painting
    and photo (feature matching, Wang et al. 2018, who take 10); 0 leaves it out.
    spectral_norm: bound the discriminator's layers (Miyato et al. 2018), in place of batch normalisation.
    augment: what the discriminator sees changed, in paintings and photos alike (DiffAugment, Zhao et al. 2020); it
    keeps a discriminator from learning a small set of photos by heart.
    Raises OptionInvalid for a value outside its range.
    """

    epochs: int = 30
    steps: int | None = None
    batch_size: int = 4
    ngf: int = 32
    ndf: int = 32
    learning_rate: float = 2e-4
    average_decay: float = 0.999
    gan_loss: GanLoss = "bce"
    l1_weight: float = 100.0
    feature_weight: float = 0.0
    spectral_norm: bool = False
    augment: tuple[Augmentation, ...] = ()
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "ngf", "ndf"):
            check_count(name, getattr(self, name), least=1)
        if self.steps is not None:
            check_count("steps", self.steps, least=1)
        check_count("seed", self.seed, least=0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionInvalid(f"`learning_rate` is {self.learning_rate}; it must be more than 0. Try 0.0002.")
        if not 0 <= self.average_decay < 1:
            raise OptionInvalid(f"`average_decay` is {self.average_decay}; it must be in [0, 1). Try 0.999.")
        for name, usual in (("l1_weight", 100), ("feature_weight", 10)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise OptionInvalid(f"`{name}` is {value}; it must be 0 or more. Try {usual}.")
        if self.gan_loss not in GAN_LOSSES:
            raise OptionInvalid(f"`gan_loss` is `{self.gan_loss}`; it must be one of {', '.join(GAN_LOSSES)}.")
        object.__setattr__(self, "augment", tuple(self.augment))  # a checkpoint gives it back as a list
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown or len(set(self.augment)) < len(self.augment):
            raise OptionInvalid(
                f"`augment` is {', '.join(self.augment)}; it takes each of {', '.join(AUGMENTATIONS)} at most once."
            )

    def count_steps(self, photos: int) -> int:
        """Steps of the whole run on that many photos."""
        return self.epochs * photos // self.batch_size if self.steps is None else self.steps


def check_count(name: str, value: int, *, least: int) -> None:
    """Raise OptionInvalid, naming the option, if `value` is below `least`."""
    if value < least:
        raise OptionInvalid(f"`{name}` is {value}; it must be at least {least}.")
