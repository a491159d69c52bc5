"""From a file to a network that can be exported: read, recognise, rebuild, settle how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid
from sketchbridge_export.families import (
    ACTIVATIONS,
    BYTE_RANGE,
    FAMILIES,
    IMAGENET_RANGE,
    NORM_MODES,
    TANH_RANGE,
    UNIT_RANGE,
    Choices,
    Convention,
    Family,
    Generator,
    Recognition,
    ValueRange,
    find_family,
)
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.sources import Checkpoint, load_checkpoint

VALUE_RANGES: Mapping[str, ValueRange] = {
    "tanh": TANH_RANGE,
    "unit": UNIT_RANGE,
    "imagenet": IMAGENET_RANGE,
    "byte": BYTE_RANGE,
}
CHANNEL_ORDERS = ("rgb", "bgr")
LINE_POLARITIES = ("dark-on-light", "light-on-dark")
MIN_SIZE_PX, MAX_SIZE_PX = 32, 1024


@dataclass(frozen=True)
class Wishes:
    """How the caller wants the checkpoint understood; None leaves it to the checkpoint's metadata, then to its family.

    family: a key of FAMILIES. norm, dropout_seed, activation, size: see Choices. input_range, output_range: a key of
    VALUE_RANGES. channel_order, line_polarity: see Convention.
    """

    family: str | None = None
    norm: str | None = None
    dropout_seed: int | None = None
    activation: str | None = None
    size: int | None = None
    input_range: str | None = None
    output_range: str | None = None
    channel_order: str | None = None
    line_polarity: str | None = None


_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "family": tuple(FAMILIES),
    "norm": NORM_MODES,
    "activation": ACTIVATIONS,
    "input_range": tuple(VALUE_RANGES),
    "output_range": tuple(VALUE_RANGES),
    "channel_order": CHANNEL_ORDERS,
    "line_polarity": LINE_POLARITIES,
}


@dataclass(frozen=True)
class Reconstruction:
    """A checkpoint understood. interface: the network with the house's interface around it, in evaluation mode."""

    checkpoint: Checkpoint
    family: Family
    recognition: Recognition
    generator: Generator
    convention: Convention
    interface: GeneratorInterface


def reconstruct(path: Path, wishes: Wishes) -> Reconstruction:
    """Rebuild the generator in `path`.

    Raises OptionInvalid if a wish does not exist or can't be met, CheckpointInvalid if the file can't be read or its
    metadata is wrong, FamilyUnknown if it is no generator that is known.
    """
    check_wishes(wishes)
    checkpoint = load_checkpoint(path)
    said = _wishes_of(checkpoint)
    both = Wishes(**{field.name: _first(wishes, said, field.name) for field in fields(Wishes)})
    family = find_family(checkpoint.weights, name=both.family)
    try:
        generator = family.rebuild(checkpoint.weights, _choices(both))
    except OptionInvalid as exc:
        if said == Wishes() or wishes.norm is not None:
            raise
        raise CheckpointInvalid(
            f"The `sketchbridge` metadata of `{path}` does not fit its weights: {exc} Or say otherwise with an option."
        ) from exc
    convention = _convention(generator.convention or family.convention, both)
    interface = GeneratorInterface(generator, convention)
    interface.eval()
    return Reconstruction(
        checkpoint=checkpoint,
        family=family,
        recognition=family.recognise(checkpoint.weights),
        generator=generator,
        convention=convention,
        interface=interface,
    )


def check_wishes(wishes: Wishes) -> None:
    """Raise OptionInvalid for a wish that no checkpoint could meet."""
    for key, allowed in _ALLOWED.items():
        value = getattr(wishes, key)
        if value is not None and value not in allowed:
            raise OptionInvalid(f"{key} is {value!r}; there are: {', '.join(allowed)}.")
    if wishes.dropout_seed is not None and not 0 <= wishes.dropout_seed < 2**32:
        raise OptionInvalid(f"dropout_seed is {wishes.dropout_seed}; it must be a whole number from 0 to {2**32 - 1}.")
    if wishes.size is not None and not MIN_SIZE_PX <= wishes.size <= MAX_SIZE_PX:
        raise OptionInvalid(f"size is {wishes.size}; it must be {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels.")


def _wishes_of(checkpoint: Checkpoint) -> Wishes:
    """The choices that the checkpoint makes for itself; everything else in its metadata is only recorded."""
    known: dict[str, Any] = {
        field.name: checkpoint.metadata[field.name]
        for field in fields(Wishes)
        if checkpoint.metadata.get(field.name) is not None
    }
    for key, value in known.items():
        allowed = _ALLOWED.get(key)
        if allowed is not None and value not in allowed:
            raise CheckpointInvalid(
                f"The `sketchbridge` metadata of `{checkpoint.path}` says {key} {value!r}; "
                f"there are: {', '.join(allowed)}."
            )
        if allowed is None and (not isinstance(value, int) or isinstance(value, bool)):
            raise CheckpointInvalid(
                f"The `sketchbridge` metadata of `{checkpoint.path}` says {key} {value!r}; it must be a whole number."
            )
    said = Wishes(**known)
    try:
        check_wishes(said)
    except OptionInvalid as exc:
        raise CheckpointInvalid(f"The `sketchbridge` metadata of `{checkpoint.path}` is wrong: {exc}") from exc
    return said


def _first(asked: Wishes, said: Wishes, key: str) -> Any:
    value = getattr(asked, key)
    return getattr(said, key) if value is None else value


def _choices(wishes: Wishes) -> Choices:
    return Choices(
        norm=next((mode for mode in NORM_MODES if mode == wishes.norm), None),
        dropout_seed=wishes.dropout_seed,
        activation=next((activation for activation in ACTIVATIONS if activation == wishes.activation), None),
        size=wishes.size,
    )


def _convention(usual: Convention, wishes: Wishes) -> Convention:
    changes: dict[str, Any] = {}
    for key in ("channel_order", "line_polarity"):
        if getattr(wishes, key) is not None:
            changes[key] = getattr(wishes, key)
    for key in ("input_range", "output_range"):
        if getattr(wishes, key) is not None:
            changes[key] = VALUE_RANGES[getattr(wishes, key)]
    return replace(usual, **changes)
