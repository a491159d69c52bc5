"""Writes the configuration of an architecture that is known, for files that hold nothing but weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families.family import Choices, Fact, Generator, Recognition, Shapes, Weights
from sketchbridge_export.families.keras_graph import Graph, read_graph
from sketchbridge_export.families.keras_network import build_generator, plan_network
from sketchbridge_export.families.keras_weights import is_ordered
from sketchbridge_export.families.layers import StructureMismatch


class Recipe:
    """Layers, put together as Keras writes them down. A layer is named by its number; "0" is the picture."""

    def __init__(self, channels: int) -> None:
        self.layers: list[dict[str, Any]] = [
            {
                "class_name": "InputLayer",
                "name": "0",
                "config": {"name": "0", "batch_input_shape": [None, None, None, channels]},
                "inbound_nodes": [],
            }
        ]

    def add(self, layer: Mapping[str, Any], *inputs: str, training: bool | None = None) -> str:
        """Feed a layer (see `layer`) with the results of others; its name."""
        name = str(len(self.layers))
        call = {} if training is None else {"training": training}
        node = [[source, 0, 0, call] for source in inputs]
        self.layers.append({**layer, "name": name, "inbound_nodes": [node]})
        return name

    def graph(self, output: str) -> Graph:
        """The graph whose result is that of `output`."""
        config = {"layers": self.layers, "input_layers": [["0", 0, 0]], "output_layers": [[output, 0, 0]]}
        return read_graph({"class_name": "Functional", "config": config})


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    """A layer with its settings; those that are left out are Keras's defaults."""
    return {"class_name": class_name, "config": config}


def sequential(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Layers, one after the other, as a model of its own."""
    named = [{**part, "config": {**part["config"], "name": str(index)}} for index, part in enumerate(parts)]
    return {"class_name": "Sequential", "config": {"layers": named}}


def kernels(shapes: Shapes) -> list[tuple[int, ...]]:
    """Shapes of the convolutions' kernels, (h, w, in, out), transposed ones (h, w, out, in), from input to output.

    Where weights are stored under class names (`.weights.h5`), transposed ones come behind all others, and those inside
    models before those outside. Raises StructureMismatch if there are none, or weights that are neither kernels nor a
    vector.
    """
    odd = [name for name, shape in shapes.items() if len(shape) not in (1, 4)]
    if odd:
        raise StructureMismatch(f"`{odd[0]}` {shapes[odd[0]]} is no weight of a convolution or a normalisation")
    found = [(name, shape) for name, shape in shapes.items() if len(shape) == 4]
    if not found:
        raise StructureMismatch("the kernels of convolutions are missing")
    if not is_ordered(shapes):
        found.sort(key=lambda pair: ("transpose" in pair[0], -pair[0].count("/")))
    return [shape for _, shape in found]


def recognise_recipe(
    weights: Weights, candidates: Callable[[Shapes], Sequence[Graph]], describe: Callable[[Graph], str]
) -> Recognition:
    """Whether a file without a configuration has the weights of exactly one of the candidates."""
    try:
        graph = choose(weights, candidates)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(matches=True, why=describe(graph))


def choose(weights: Weights, candidates: Callable[[Shapes], Sequence[Graph]]) -> Graph:
    """The first candidate (there is at least one) that fits. Raises StructureMismatch with the last one's reason."""
    if weights.framework != "keras":
        raise StructureMismatch("the layers of a Keras file are missing")
    if weights.graph is not None:
        raise StructureMismatch("the file has a configuration, which says more than the weights")
    reasons: list[StructureMismatch] = []
    for graph in candidates(weights.shapes):
        reason = _why_not(graph, weights)
        if reason is None:
            return graph
        reasons.append(reason)
    raise reasons[-1]


def _why_not(graph: Graph, weights: Weights) -> StructureMismatch | None:
    try:
        plan_network(graph, weights)
    except StructureMismatch as exc:
        return exc
    return None


def rebuild_recipe(
    graph: Graph, weights: Weights, choices: Choices, *, usual: int, multiple: int, facts: Mapping[str, Fact]
) -> Generator:
    """The network for pictures of `usual` pixels, or another multiple of `multiple`. Raises OptionInvalid."""
    size = choices.size or usual
    if size % multiple:
        raise OptionInvalid(f"size is {size}, but this network takes multiples of {multiple} pixels.")
    return build_generator(graph, weights, replace(choices, size=size), facts)
