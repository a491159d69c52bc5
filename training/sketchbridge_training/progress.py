"""What a step reports, and the file it is kept in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_COLUMNS = ("step", "l1", "generator_gan", "discriminator")


@dataclass(frozen=True)
class Progress:
    """What one step did: `step` of `steps`, counted from 1, and the losses of its batch.

    l1: mean distance of painting and photo, in [0, 2]. generator_gan, discriminator: cross entropies in nats; a
    discriminator that can't tell is at ln 2 = 0.69.
    """

    step: int
    steps: int
    l1: float
    generator_gan: float
    discriminator: float


class LossLog:
    """A CSV file with one header line and one row a step, in order."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Open the log of a run that is at `step`, which its folder must exist for.

        Rows after `step` are dropped: they are of steps that were lost with the process that took them, and will be
        taken again. So is a row that was cut short. Raises OSError if the file can't be written.
        """
        self._path = path
        rows = _read_rows(path) if path.exists() else {}
        kept = [",".join(_COLUMNS), *(rows[number] for number in sorted(rows) if number <= step)]
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        partial.replace(path)

    def add(self, progress: Progress) -> None:
        """Append the row of one step."""
        with self._path.open("a") as file:
            file.write(f"{progress.step},{progress.l1:.5f},{progress.generator_gan:.5f},{progress.discriminator:.5f}\n")


def _read_rows(path: Path) -> dict[int, str]:
    """The last whole row of each step."""
    lines = path.read_text(errors="replace").split("\n")[:-1]  # what follows the last line break was cut short
    numbered = ((line.partition(",")[0], line) for line in lines if line.count(",") == len(_COLUMNS) - 1)
    return {int(step): line for step, line in numbered if step.isdecimal()}
