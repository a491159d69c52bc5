"""From a file to a network that can be exported: read, recognise, rebuild, settle how it is fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from onnx import load_model, save_model
from torch import nn

from sketchbridge_export.artefacts import compose, onnx
from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid, RepositoryError
from sketchbridge_export.families import (
    ACTIVATIONS,
    BYTE_RANGE,
    FAMILIES,
    IMAGENET_RANGE,
    NORM_MODES,
    TANH_CONVENTION,
    TANH_RANGE,
    UNIT_RANGE,
    Choices,
    Convention,
    ValueRange,
    find_family,
)
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import Pictures, paint_alone
from sketchbridge_export.sources import Checkpoint, ReadyNetwork, open_source

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

READY = "ready"  # the family of networks that bring their own graph
_READY_CHOICES = ("family", "norm", "dropout_seed", "activation", "size")


@dataclass(frozen=True)
class Reconstruction:
    """A network that can be exported, and everything that is known of it.

    family: a key of FAMILIES, or READY. why: what gave it away. network: what was read from the weights. norm, dropout:
    see Generator. exact, assumed: what is as in the source for sure, and what no checkpoint says. origin: where the
    structure comes from. write_onnx: writes model.onnx, its weights stored as asked. paint: what the checkpoint paints,
    each picture alone, (P, 256, 256, 3) uint8 to the same; it raises CheckpointInvalid if a rebuilt network paints no
    numbers.
    """

    source: Checkpoint | ReadyNetwork
    family: str
    title: str
    why: str
    network: Mapping[str, Any]
    input_channels: int
    output_channels: int
    native_size: int
    norm: str
    dropout: str
    parameters: int
    convention: Convention
    exact: str
    assumed: str
    origin: str
    write_onnx: Callable[[Path, onnx.Weights], None] = field(repr=False)
    paint: Callable[[Pictures], Pictures] = field(repr=False)


def reconstruct(path: Path, wishes: Wishes) -> Reconstruction:
    """Rebuild the generator in `path`, or take the network that it brings.

    Raises OptionInvalid if a wish does not exist or can't be met, CheckpointInvalid if the file can't be read or its
    metadata is wrong, FamilyUnknown if it is no generator that is known.
    """
    check_wishes(wishes)
    source = open_source(path, weights_first=any(getattr(wishes, key) is not None for key in _READY_CHOICES))
    said = _wishes_of(source)
    both = Wishes(**{field.name: _first(wishes, said, field.name) for field in fields(Wishes)})
    try:
        return _take(source, both) if isinstance(source, ReadyNetwork) else _rebuild(source, both)
    except OptionInvalid as exc:
        if both == wishes:  # the file had no say
            raise
        raise CheckpointInvalid(
            f"The `sketchbridge` metadata of `{path}` does not fit its weights: {exc} Or say otherwise with an option."
        ) from exc


def _rebuild(checkpoint: Checkpoint, wishes: Wishes) -> Reconstruction:
    family = find_family(checkpoint.weights, name=wishes.family)
    generator = family.rebuild(checkpoint.weights, _choices(wishes))
    convention = _convention(generator.convention or family.convention, wishes)
    interface = GeneratorInterface(generator, convention)
    interface.eval()

    def write(path: Path, weights: onnx.Weights) -> None:
        onnx.write_onnx(interface, path, weights=weights)

    return Reconstruction(
        source=checkpoint,
        family=family.name,
        title=family.title,
        why=family.recognise(checkpoint.weights).why,
        network=generator.facts,
        input_channels=generator.input_channels,
        output_channels=generator.output_channels,
        native_size=generator.native_size,
        norm=generator.norm,
        dropout=generator.dropout,
        parameters=sum(parameter.numel() for parameter in generator.module.parameters()),
        convention=convention,
        exact=family.exact,
        assumed=family.assumed,
        origin=family.source,
        write_onnx=write,
        paint=partial(_paint_finite, interface),
    )


def _paint_finite(interface: GeneratorInterface, pictures: Pictures) -> Pictures:
    """As `paint_alone`. Raises CheckpointInvalid where no numbers come out, which every artefact would paint alike."""

    def check(_: nn.Module, __: object, painted: torch.Tensor) -> None:
        if not torch.isfinite(painted).all():
            raise CheckpointInvalid(
                "The network paints values that are no numbers: its weights are damaged, or its training diverged. "
                "Export an earlier checkpoint."
            )

    handle = interface.network.register_forward_hook(check)
    try:
        return paint_alone(interface, pictures)
    finally:
        handle.remove()


def _take(ready: ReadyNetwork, wishes: Wishes) -> Reconstruction:
    for key in _READY_CHOICES:
        if getattr(wishes, key) is not None:
            raise OptionInvalid(
                f"{key.replace('_', ' ')} can't be chosen: `{ready.path}` is {ready.format} whose weights no family "
                "knows, so its own graph is exported. Leave it out, or export the weights it was made from."
            )
    convention = _convention(TANH_CONVENTION, wishes)

    def write(path: Path, weights: onnx.Weights) -> None:
        compose.write_interface_onnx(ready, convention, path)
        if weights == "fp16":
            model = load_model(path)
            onnx.halve_weights(model)
            try:
                save_model(model, path)
            except OSError as exc:
                raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc

    return Reconstruction(
        source=ready,
        family=READY,
        title=f"{ready.format}, passed on as it is",
        why="the file brings the network's own graph",
        network={},
        input_channels=ready.input_channels,
        output_channels=ready.output_channels,
        native_size=ready.native_size,
        norm="as it is",
        dropout="as it is",
        parameters=_count_parameters(ready),
        convention=convention,
        exact="the graph, as its own runtime runs it",
        assumed="nothing: it shows uint8 pictures itself" if ready.house else "value ranges, channel order, dark lines",
        origin=str(ready.path.name),
        write_onnx=write,
        paint=partial(compose.paint_reference, ready, convention),
    )


def _count_parameters(ready: ReadyNetwork) -> int:
    if isinstance(ready.network, nn.Module):
        return sum(parameter.numel() for parameter in ready.network.parameters())
    return sum(math.prod(tensor.dims) for tensor in ready.network.graph.initializer)


def check_wishes(wishes: Wishes) -> None:
    """Raise OptionInvalid for a wish that no checkpoint could meet."""
    for key, allowed in _ALLOWED.items():
        value = getattr(wishes, key)
        if value is not None and value not in allowed:
            raise OptionInvalid(f"{key} is {value!r}; there are: {', '.join(allowed)}.")
    if wishes.dropout_seed is not None and not 0 <= wishes.dropout_seed < 2**32:
        raise OptionInvalid(f"The dropout seed is {wishes.dropout_seed}; it must be 0 to {2**32 - 1}.")
    if wishes.size is not None and not MIN_SIZE_PX <= wishes.size <= MAX_SIZE_PX:
        raise OptionInvalid(f"size is {wishes.size}; it must be {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels.")


def _wishes_of(source: Checkpoint | ReadyNetwork) -> Wishes:
    """The choices that the checkpoint makes for itself; everything else in its metadata is only recorded."""
    known: dict[str, Any] = {
        field.name: source.metadata[field.name]
        for field in fields(Wishes)
        if source.metadata.get(field.name) is not None
    }
    for key, value in known.items():
        allowed = _ALLOWED.get(key)
        if allowed is not None and value not in allowed:
            raise CheckpointInvalid(
                f"The `sketchbridge` metadata of `{source.path}` says {key} {value!r}; there are: {', '.join(allowed)}."
            )
        if allowed is None and (not isinstance(value, int) or isinstance(value, bool)):
            raise CheckpointInvalid(
                f"The `sketchbridge` metadata of `{source.path}` says {key} {value!r}; it must be a whole number."
            )
    said = Wishes(**known)
    try:
        check_wishes(said)
    except OptionInvalid as exc:
        raise CheckpointInvalid(f"The `sketchbridge` metadata of `{source.path}` is wrong: {exc}") from exc
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
