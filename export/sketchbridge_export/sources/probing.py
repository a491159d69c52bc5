"""Finds out what a ready network takes and gives by painting with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.contents import choose_generator, is_recognised
from sketchbridge_export.sources.files import first_line
from sketchbridge_export.sources.source import Checkpoint, ReadyNetwork

SIZES = (256, 512, 128, 1024, 64)  # the house's first, then those that generators are trained at
_CHANNELS = (3, 1)
_SMALLEST, _LARGEST = 16, 2048  # pixels a side


@dataclass(frozen=True)
class Probe:
    """What a file says of the picture its network takes; None where it doesn't say."""

    channels: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Found:
    """What a network takes, (1, input_channels, native_size, native_size), and how many channels it gives."""

    input_channels: int
    output_channels: int
    native_size: int


def probe(path: Path, network: nn.Module, said: Probe) -> Found:
    """Paint a gray picture of each size and number of channels that is possible, until one works.

    Raises CheckpointInvalid, with the first failure's reason, if none does or if the result is no picture.
    """
    if said.channels not in (None, *_CHANNELS):
        raise CheckpointInvalid(f"The network in `{path}` takes {said.channels} channels; a generator takes 1 or 3.")
    if said.size is not None and not _SMALLEST <= said.size <= _LARGEST:
        raise CheckpointInvalid(
            f"The network in `{path}` takes pictures of {said.size} pixels; {_SMALLEST} to {_LARGEST} are taken."
        )
    why = "no size works"
    for size in SIZES if said.size is None else (said.size,):
        for channels in _CHANNELS if said.channels is None else (said.channels,):
            try:
                with torch.inference_mode():
                    painted = network(torch.zeros(1, channels, size, size))
            except CheckpointInvalid:
                raise
            except Exception as exc:  # noqa: BLE001 - a network fails in any way
                why = why if why != "no size works" else f"{channels} channels of {size} pixels: {_reason(exc)}"
                continue
            if not isinstance(painted, torch.Tensor) or painted.dim() != 4 or painted.shape[0] != 1:
                what = tuple(painted.shape) if isinstance(painted, torch.Tensor) else type(painted).__name__
                raise CheckpointInvalid(
                    f"The network in `{path}` turns (1, {channels}, {size}, {size}) into {what}; a generator paints a "
                    "picture, (1, C, H, W)."
                )
            if not painted.is_floating_point():
                raise CheckpointInvalid(f"The network in `{path}` paints {painted.dtype}; expected float32.")
            if not bool(torch.isfinite(painted).all()):
                raise CheckpointInvalid(f"The network in `{path}` paints NaN or infinity: its training diverged.")
            if 2 * min(painted.shape[2:]) <= size:  # unpadded convolutions may cost a generator a few pixels
                sides = f"{size} x {size} pixels into {painted.shape[2]} x {painted.shape[3]}"
                raise CheckpointInvalid(
                    f"The network in `{path}` turns {sides}, as discriminators do; a generator paints as large as it "
                    "sees."
                )
            if painted.shape[1] not in _CHANNELS:
                raise CheckpointInvalid(
                    f"The network in `{path}` paints {painted.shape[1]} channels; a generator paints 1 or 3."
                )
            return Found(channels, int(painted.shape[1]), size)
    raise CheckpointInvalid(f"The network in `{path}` can't be run. With {why}.")


OWN_GRAPH = "its own graph is exported; pass --norm, --dropout or --family to have its weights rebuilt instead"


def choose_reading(
    own_graph: Callable[[], ReadyNetwork],
    rebuilt: Callable[[str], Checkpoint | None],
    *,
    weights_first: bool,
) -> Checkpoint | ReadyNetwork:
    """One of the two ways to read a file that holds both a graph and weights.

    rebuilt: gets a note on why; None if no family knows the weights. Raises what `own_graph` raises if that is the only
    way left.
    """
    if weights_first:
        return (
            rebuilt("its weights are rebuilt by their family, as was asked; its own graph is not used") or own_graph()
        )
    try:
        return own_graph()
    except CheckpointInvalid as exc:
        known = rebuilt(f"its weights are rebuilt by their family, since its own graph can't be exported: {exc}")
        if known is None:
            raise
        return known


def take_state_dict(
    path: Path, sha256: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], format_: str, note: str
) -> Checkpoint | None:
    """The weights of a network that comes with its graph, if a family knows them. note: why they are taken."""
    try:
        weights, notes = choose_generator(path, dict(tensors))
    except CheckpointInvalid:
        return None  # the graph may know what to do with them
    if not is_recognised(weights):
        return None
    return Checkpoint(path, sha256, weights, metadata, format_, (note, *notes))


def _reason(exc: Exception) -> str:
    lines = [line for line in str(exc).strip().splitlines() if line.strip()]
    # The interpreter of TorchScript puts a traceback before the reason.
    chosen = next((line for line in reversed(lines) if "Error:" in line), lines[0] if lines else "no reason given")
    return first_line(Exception(chosen))
