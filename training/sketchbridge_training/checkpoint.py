"""The checkpoint file: what `sketchbridge export` takes, and what a run needs to go on.

sketchbridge  family, norm, step, steps: read by the exporter
generator     the averaged weights, calibrated: the generator that is served
training      settings, names of the pictures, and the states of the networks and optimisers: read on resuming
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sketchbridge_training.errors import CheckpointInvalid, TrainingError
from sketchbridge_training.pix2pix import States
from sketchbridge_training.settings import Settings
from sketchbridge_training.writing import written_whole


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` of `steps` steps. pictures: names of those it was trained on."""

    step: int
    steps: int
    settings: Settings
    pictures: tuple[str, ...] = field(repr=False)
    states: States = field(repr=False)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file whole or not at all. Raises OSError, or what torch.save raises; `path` is then as it was."""
    states = checkpoint.states
    content = {
        "sketchbridge": {
            "family": "junyanz_unet",
            "norm": "running",
            "step": checkpoint.step,
            "steps": checkpoint.steps,
        },
        "generator": {name: value.contiguous() for name, value in states.average.items()},
        "training": {
            "settings": dataclasses.asdict(checkpoint.settings),
            "pictures": list(checkpoint.pictures),
            "generator": states.generator,
            "discriminator": states.discriminator,
            "optimisers": states.optimisers,
        },
    }
    try:
        with written_whole(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as exc:
        cause = exc.__context__ if isinstance(exc, RuntimeError) else exc  # torch says that its zip file is too short
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from exc
        raise


def read_checkpoint(path: Path, *, device: torch.device) -> Checkpoint:
    """Read a file that `write_checkpoint` wrote, its tensors onto `device`. No code in it is run.

    Raises CheckpointInvalid if the file is damaged, holds something else, or was written by another version.
    """
    told, average, training = _read_parts(path, device=device, advice=_ADVICE)
    try:
        settings = training["settings"]
        odd = {entry.name for entry in dataclasses.fields(Settings)} ^ settings.keys()
        checkpoint = None
        if not odd:
            states = States(
                average=average,
                generator=training["generator"],
                discriminator=training["discriminator"],
                optimisers=training["optimisers"],
            )
            pictures = tuple(training.get("pictures", ()))
            checkpoint = Checkpoint(told["step"], told["steps"], Settings(**settings), pictures, states)
    except (KeyError, TypeError, AttributeError, TrainingError) as exc:
        raise CheckpointInvalid(_other_version(path, _first_line(exc))) from exc
    if checkpoint is None:
        raise CheckpointInvalid(_other_version(path, f"its settings differ in {', '.join(sorted(odd))}"))
    return checkpoint


def read_weights(path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """The averaged generator and the discriminator of a run, of whatever version, on the CPU. No code in it is run.

    Raises CheckpointInvalid if the file is damaged or holds something else.
    """
    advice = "Name another checkpoint to start from."
    _, average, training = _read_parts(path, device=torch.device("cpu"), advice=advice)
    discriminator: Any = training.get("discriminator", {}) if isinstance(training, Mapping) else None
    for part in (average, discriminator):
        if not isinstance(part, Mapping) or not all(isinstance(value, torch.Tensor) for value in part.values()):
            raise CheckpointInvalid(f"`{path}` holds no networks by their names. {advice}")
    return average, discriminator


def _read_parts(path: Path, *, device: torch.device, advice: str) -> tuple[Any, Any, Any]:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as exc:
        raise CheckpointInvalid(f"`{path}` can't be read: {exc.strerror or exc}. {advice}") from exc
    except Exception as exc:  # the unpickler meets damage with almost any exception
        raise CheckpointInvalid(f"`{path}` is damaged or no checkpoint ({_first_line(exc)}). {advice}") from exc
    if not isinstance(content, Mapping) or not {"sketchbridge", "generator", "training"} <= content.keys():
        raise CheckpointInvalid(f"`{path}` was not written by `sketchbridge train`. {advice}")
    return content["sketchbridge"], content["generator"], content["training"]


def _other_version(path: Path, why: str) -> str:
    return f"`{path}` was written by another version of `sketchbridge train` ({why}). {_ADVICE}"


_ADVICE = "Name another run folder, or move this file away to start afresh."


def _first_line(exc: Exception) -> str:
    text = str(exc).strip()
    return f"{type(exc).__name__}: {text.splitlines()[0][:200]}" if text else type(exc).__name__
