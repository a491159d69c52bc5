"""What a training run can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sketchbridge_training.errors import OptionInvalid


@dataclass(frozen=True)
class Settings:
    """What defines a run; a checkpoint remembers them and refuses to resume under others (epochs may differ).

    epochs: passes over the photos; the learning rate falls linearly towards zero over the second half.
    batch_size: pairs a step. ngf, ndf: features in the first layer of the generator and of the discriminator; 64 is
    the paper's width, 32 trains four times as fast. learning_rate: of Adam, at the start. l1_weight: lambda of the
    paper's L1 term; 0 leaves it out. seed: at least 0; the same seed repeats a run on the same machine.
    Raises OptionInvalid for a value outside its range.
    """

    epochs: int = 30
    batch_size: int = 4
    ngf: int = 32
    ndf: int = 32
    learning_rate: float = 2e-4
    l1_weight: float = 100.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "ngf", "ndf"):
            check_count(name, getattr(self, name), least=1)
        check_count("seed", self.seed, least=0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionInvalid(f"`learning_rate` is {self.learning_rate}; it must be more than 0. Try 0.0002.")
        if not (math.isfinite(self.l1_weight) and self.l1_weight >= 0):
            raise OptionInvalid(f"`l1_weight` is {self.l1_weight}; it must be 0 or more. Try 100.")


def check_count(name: str, value: int, *, least: int) -> None:
    """Raise OptionInvalid, naming the option, if `value` is below `least`."""
    if value < least:
        raise OptionInvalid(f"`{name}` is {value}; it must be at least {least}.")
