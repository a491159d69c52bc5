"""Reads the configuration that Keras saves with a model: its layers, and what is fed to what.

Three dialects are understood: the lists of Keras 2 (`inbound_nodes: [[["conv2d", 0, 0, {}]]]`), the tensors of
Keras 3 (`inbound_nodes: [{"args": [{"class_name": "__keras_tensor__", ...}]}]`), and Sequential models. Models inside
models are taken apart, so what comes out is one flat list of steps. Nothing here runs: a configuration is data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sketchbridge_export.families.layers import StructureMismatch

CONTAINERS = ("Functional", "Model", "Sequential")
_MOST_STEPS = 2_000  # the largest generators of this kind have some 200
_DEEPEST_NESTING = 8
_KWARGS_WITHOUT_EFFECT = frozenset(("mask", "training"))  # training is read by itself


@dataclass(frozen=True)
class Layer:
    """One layer: what it is, not what it is fed.

    path: names of the models around it and its own, joined by `/`. key: where Keras 3 keeps its weights, made of class
    names and counters (`sequential_1/conv2d`). trainable: its own flag and those of the models around it.
    top: the place of the outermost model or layer that it belongs to.
    """

    path: str
    key: str
    class_name: str
    config: Mapping[str, Any] = field(repr=False)
    trainable: bool
    top: int


@dataclass(frozen=True)
class Step:
    """One use of a layer. inputs: values it is fed; value 0 is the picture, value k + 1 is what step k gives.

    training: what the call itself says (`layer(x, training=True)`); None if it says nothing.
    """

    layer: Layer
    inputs: tuple[int, ...]
    training: bool | None


@dataclass(frozen=True)
class Graph:
    """A model with one input and one output.

    layers: in the order in which Keras stores their weights. steps: in an order that can be run.
    input_shape: height, width (None: any) and channels of the picture. output: the value that is the result.
    """

    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]
    input_shape: tuple[int | None, int | None, int]
    output: int


@dataclass(frozen=True)
class _Reference:
    name: str
    node: int
    tensor: int


@dataclass(frozen=True)
class _Node:
    inputs: tuple[_Reference, ...]
    training: bool | None


@dataclass(frozen=True)
class _Container:
    """A model: its parts by name, and either its nodes (functional) or None (sequential: one after the other)."""

    parts: Mapping[str, Layer | _Container]
    nodes: Mapping[tuple[str, int], _Node] | None
    inputs: tuple[_Reference, ...]
    outputs: tuple[_Reference, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]


def read_graph(config: Mapping[str, Any]) -> Graph:
    """The model that a configuration (`{"class_name": ..., "config": ...}`) describes.

    Raises StructureMismatch if it is not one of a picture in and a picture out, or can't be understood.
    """
    layers: list[Layer] = []
    root = _read_container(config, _Place(), layers)
    if len(root.input_shapes) != 1:
        raise StructureMismatch(
            f"the model takes {len(root.input_shapes)} inputs: it looks like a conditional discriminator or a "
            "composite for training. Save the generator alone"
        )
    if len(root.outputs) > 1:
        raise StructureMismatch(
            f"the model gives {len(root.outputs)} results: it looks like a GAN composite for training. Save the "
            "generator alone"
        )
    steps: list[Step] = []
    results = _run(root, [0], steps, training=None)
    return Graph(tuple(layers), tuple(steps), _picture_shape(root.input_shapes[0]), results[0])


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """`value`, if it is a JSON object; raises StructureMismatch."""
    if not isinstance(value, Mapping):
        raise StructureMismatch(f"the configuration's {what} is a {type(value).__name__}, expected an object")
    return value


def _sequence(value: object, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise StructureMismatch(f"the configuration's {what} is a {type(value).__name__}, expected a list")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise StructureMismatch(f"the configuration's {what} is a {type(value).__name__}, expected text")
    return value


def _picture_shape(shape: Sequence[int | None]) -> tuple[int | None, int | None, int]:
    if len(shape) != 3 or shape[2] is None:
        raise StructureMismatch(
            f"the model takes an input of shape {tuple(shape)} without the batch, where a picture has height, width "
            "and channels: it looks like a generator that starts from a latent vector, or no image network"
        )
    return shape[0], shape[1], shape[2]


def _snake_case(class_name: str) -> str:
    """What Keras makes of a class's name where it keeps weights: LeakyReLU -> leaky_re_lu."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


@dataclass(frozen=True)
class _Place:
    """Where a model or layer is; see Layer for the fields. depth: models around it."""

    path: str = ""
    key: str = ""
    trainable: bool = True
    top: int | None = None
    depth: int = 0


def _read_container(entry: Mapping[str, Any], place: _Place, layers: list[Layer]) -> _Container:
    class_name = _text(entry.get("class_name"), "class_name")
    if class_name not in CONTAINERS:
        raise StructureMismatch(
            f"the model is of the class `{class_name[:60]}`, whose layers are code and not in the file. Save a "
            "functional model that holds the same layers"
        )
    if place.depth > _DEEPEST_NESTING:
        raise StructureMismatch(f"its models nest more than {_DEEPEST_NESTING} deep")
    inner = entry.get("config")
    if isinstance(inner, list):  # Sequential models of Keras before 2.2.3
        inner = {"layers": inner}
    config = mapping(inner, "config")
    parts: dict[str, Layer | _Container] = {}
    nodes: dict[tuple[str, int], _Node] = {}
    inputs: dict[str, tuple[int | None, ...]] = {}
    counters: dict[str, int] = {}
    for index, value in enumerate(_sequence(config.get("layers"), "layers")):
        part = mapping(value, "layer")
        kind = _text(part.get("class_name"), "class_name")
        own = mapping({} if isinstance(part.get("config"), list) else part.get("config"), "config of a layer")
        snake = _snake_case(kind)
        name = _text(part.get("name") or own.get("name") or f"{snake}_{index}", "name")
        if name in parts or name in inputs:
            raise StructureMismatch(f"two of its layers are called {name!r}")
        count = counters[snake] = counters.get(snake, -1) + 1
        if kind == "InputLayer":
            inputs[name] = _input_shape(own)
            continue
        where = _Place(
            path=f"{place.path}/{name}" if place.path else name,
            key=(f"{place.key}/" if place.key else "") + snake + (f"_{count}" if count else ""),
            trainable=place.trainable and config.get("trainable") is not False and own.get("trainable") is not False,
            top=index if place.top is None else place.top,
            depth=place.depth + 1,
        )
        parts[name] = _read_container(part, where, layers) if kind in CONTAINERS else _read_layer(kind, own, where)
        _remember(parts[name], layers)
        if class_name != "Sequential":
            found = _sequence(part.get("inbound_nodes"), "inbound_nodes")
            nodes |= {(name, number): _read_node(node) for number, node in enumerate(found)}
    if class_name == "Sequential":
        return _Container(parts, None, (), (), tuple(inputs.values()) or _first_shape(parts))
    sources = _references(config.get("input_layers"), "input_layers")
    missing = [source.name for source in sources if source.name not in inputs]
    if missing:
        raise StructureMismatch(f"its input {missing[0]!r} is no input layer")
    outputs = _references(config.get("output_layers"), "output_layers")
    return _Container(
        parts, _renumbered(nodes, parts, outputs), sources, outputs, tuple(inputs[source.name] for source in sources)
    )


def _read_layer(kind: str, config: Mapping[str, Any], place: _Place) -> Layer:
    return Layer(place.path, place.key, kind, config, place.trainable, place.top or 0)


def _remember(part: Layer | _Container, layers: list[Layer]) -> None:
    if isinstance(part, Layer):
        layers.append(part)
    if len(layers) > _MOST_STEPS:
        raise StructureMismatch(f"it has more than {_MOST_STEPS} layers")


def _input_shape(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    shape = _declared_shape(config)
    if shape is None:
        raise StructureMismatch("its input has no shape")
    return shape


def _first_shape(parts: Mapping[str, Layer | _Container]) -> tuple[tuple[int | None, ...], ...]:
    """What a Sequential model without an input layer takes: what its first part says."""
    for part in parts.values():
        if isinstance(part, _Container):
            return part.input_shapes
        shape = _declared_shape(part.config)
        return () if shape is None else (shape,)
    return ()


def _declared_shape(config: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """The shape an input layer (or the first layer of an old Sequential model) says it takes, without the batch."""
    for key in ("batch_shape", "batch_input_shape"):
        value = config.get(key)
        if value is None:
            continue
        shape = _sequence(value, key)
        if any(size is not None and (type(size) is not int or not 1 <= size <= 2**16) for size in shape[1:]):
            raise StructureMismatch(f"an input of shape {str(value)[:100]} can't be")
        return tuple(shape[1:])
    return None


def _references(value: object, what: str) -> tuple[_Reference, ...]:
    """Keras writes one reference `["conv2d", 0, 0]` or a list of them, with or without arguments behind."""
    entries = _sequence(value, what)
    if entries and isinstance(entries[0], str):
        entries = [entries]
    found = []
    for entry in entries:
        parts = _sequence(entry, what)
        if len(parts) < 3 or not isinstance(parts[0], str) or type(parts[1]) is not int or type(parts[2]) is not int:
            raise StructureMismatch(f"the configuration's {what} holds {str(entry)[:100]}, expected [name, 0, 0]")
        found.append(_Reference(parts[0], parts[1], parts[2]))
    return tuple(found)


def _read_node(node: object) -> _Node:
    if isinstance(node, Mapping):
        found: list[_Reference] = []
        _collect_tensors(node.get("args"), found, depth=0)
        return _Node(tuple(found), _read_arguments(mapping(node.get("kwargs") or {}, "kwargs")))
    references = _references(node, "inbound_nodes")
    entries = _sequence(node, "inbound_nodes")
    arguments = entries[3:] if entries and isinstance(entries[0], str) else [x for entry in entries for x in entry[3:]]
    said = [_read_arguments(mapping(argument, "call arguments")) for argument in arguments]
    return _Node(references, next((training for training in said if training is not None), None))


def _collect_tensors(value: object, found: list[_Reference], *, depth: int) -> None:
    if isinstance(value, list | tuple) and depth < 4:
        for part in value:
            _collect_tensors(part, found, depth=depth + 1)
    elif isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        history = mapping(value.get("config"), "tensor").get("keras_history")
        found.extend(_references(history, "keras_history"))
    else:
        raise StructureMismatch(f"a layer is called with {str(value)[:100]}, which is no result of a layer")


def _read_arguments(arguments: Mapping[str, Any]) -> bool | None:
    odd = [key for key, value in arguments.items() if key not in _KWARGS_WITHOUT_EFFECT and value is not None]
    if odd:
        raise StructureMismatch(f"a layer is called with the argument {odd[0]!r}, which is not understood")
    training = arguments.get("training")
    if training is None:
        return None
    if training not in (0, 1):
        raise StructureMismatch(f"a layer is called with training={str(training)[:100]}")
    return bool(training)


def _renumbered(
    nodes: Mapping[tuple[str, int], _Node],
    parts: Mapping[str, Layer | _Container],
    outputs: Sequence[_Reference],
) -> dict[tuple[str, int], _Node]:
    """The nodes under the numbers by which others refer to them.

    A model inside a model has a node 0 of its own that is not saved; its saved nodes then count from 1.
    """
    used: dict[str, int] = {}
    for reference in (*(reference for node in nodes.values() for reference in node.inputs), *outputs):
        used[reference.name] = max(used.get(reference.name, 0), reference.node)
    counts: dict[str, int] = {}
    for name, _ in nodes:
        counts[name] = counts.get(name, 0) + 1
    return {
        (name, number + (isinstance(parts[name], _Container) and used.get(name, 0) >= counts[name])): node
        for (name, number), node in nodes.items()
    }


def _run(model: _Container, inputs: Sequence[int], steps: list[Step], *, training: bool | None) -> list[int]:
    """Append the model's steps; the values that are its results."""
    if model.nodes is None:
        if len(inputs) != 1:
            raise StructureMismatch("a Sequential model is fed several values")
        value = inputs[0]
        for part in model.parts.values():
            value = _apply(part, [value], steps, training=training)[0]
        return [value]
    if len(inputs) != len(model.inputs):
        raise StructureMismatch(f"a model of {len(model.inputs)} inputs is fed {len(inputs)} values")
    names = {source.name for source in model.inputs}
    done: dict[tuple[str, int], list[int]] = {}
    for source, value in zip(model.inputs, inputs, strict=True):
        done[source.name, 0] = [value]
    waiting = [(reference.name, 0 if reference.name in names else reference.node) for reference in model.outputs]
    open_nodes: set[tuple[str, int]] = set()
    while waiting:  # depth first with a list of its own: a chain of layers may be longer than Python's stack
        key = waiting[-1]
        if key in done:
            waiting.pop()
            continue
        node = model.nodes.get(key)
        if node is None or not node.inputs:
            raise StructureMismatch(f"its layer {key[0]!r} is fed nothing, or is used {key[1] + 1} times but is not")
        needed = [(r.name, 0 if r.name in names else r.node) for r in node.inputs]
        missing = [one for one in needed if one not in done]
        if missing:
            if key in open_nodes:
                raise StructureMismatch(f"its layer {key[0]!r} is fed its own result")
            open_nodes.add(key)
            waiting.extend(missing)
            continue
        values = [_pick(done[one], reference) for one, reference in zip(needed, node.inputs, strict=True)]
        part = model.parts[key[0]]
        done[key] = _apply(part, values, steps, training=training if node.training is None else node.training)
        waiting.pop()
    return [_pick(done[r.name, 0 if r.name in names else r.node], r) for r in model.outputs]


def _pick(results: Sequence[int], reference: _Reference) -> int:
    if not 0 <= reference.tensor < len(results):
        raise StructureMismatch(f"result {reference.tensor} of {reference.name!r} is used, which has {len(results)}")
    return results[reference.tensor]


def _apply(part: Layer | _Container, inputs: Sequence[int], steps: list[Step], *, training: bool | None) -> list[int]:
    if isinstance(part, _Container):
        return _run(part, inputs, steps, training=training)
    if len(steps) >= _MOST_STEPS:
        raise StructureMismatch(f"it takes more than {_MOST_STEPS} steps")
    steps.append(Step(part, tuple(inputs), training))
    return [len(steps)]
