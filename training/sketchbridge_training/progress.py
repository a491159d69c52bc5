"""What a step reports, and where it is kept: a CSV file and TensorBoard."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_training.writing import write_whole

if TYPE_CHECKING:
    from sketchbridge_preprocess import Image

_COLUMNS = ("step", "l1", "features", "generator_gan", "discriminator")


@dataclass(frozen=True)
class Progress:
    """What one step did: `step` of `steps`, counted from 1, and the losses of its batch, before their weights.

    l1: mean distance of painting and photo, in [0, 2]. features: mean distance in the discriminator's features, None if
    it is left out. generator_gan, discriminator: see losses.py for where a discriminator is that can't tell.
    learning_rate: of this step.
    """

    step: int
    steps: int
    l1: float
    features: float | None
    generator_gan: float
    discriminator: float
    learning_rate: float


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
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, progress: Progress) -> None:
        """Append the row of one step."""
        values = (progress.l1, progress.features, progress.generator_gan, progress.discriminator)
        with self._path.open("a") as file:
            file.write(f"{progress.step}," + ",".join("" if v is None else f"{v:.5f}" for v in values) + "\n")


class Board:
    """Scalars of every tenth step and the previews, for `tensorboard --logdir`. All methods raise OSError.

    Events are written here and not by a SummaryWriter: its thread ends when the disk is full, and then whoever adds
    something waits for it for ever.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        """Open the board of a run that is at `step`; what was written after it is hidden."""
        from tensorboardX import summary  # noqa: PLC0415 - comes with the extra, as torch does
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415

        self._summary, self._event = summary, Event
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))
        self._writer.flush()

    def add(self, progress: Progress) -> None:
        """Take down one step."""
        if progress.step % 10:
            return
        for name in ("l1", "features", "generator_gan", "discriminator", "learning_rate"):
            value = getattr(progress, name)
            if value is not None:
                self._add(progress.step, summary=self._summary.scalar(f"train/{name}", value))
        if progress.step % 100 == 0:
            self._writer.flush()

    def add_sheet(self, sheet: Image, *, step: int) -> None:
        """Take down a preview: (H, W, 3) uint8."""
        self._add(step, summary=self._summary.image("preview", sheet, dataformats="HWC"))
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()

    def _add(self, step: int, **content: object) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, **content))


def _read_rows(path: Path) -> dict[int, str]:
    """The last whole row of each step."""
    lines = path.read_text(errors="replace").split("\n")[:-1]  # what follows the last line break was cut short
    numbered = ((line.partition(",")[0], line) for line in lines if line.count(",") == len(_COLUMNS) - 1)
    return {int(step): line for step, line in numbered if step.isdecimal()}
