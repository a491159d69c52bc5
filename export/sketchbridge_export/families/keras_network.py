"""Builds the torch network that a Keras graph and its weights describe.

Which statistics? `layer(x, training=True)` is part of a graph, and such a layer normalises with its batch's statistics
whenever it runs: "instance" here. (So does Keras 2; `predict` of Keras 3 overrides it, with pictures that the training
never saw.) The TensorFlow tutorial does not write it into the graph but paints with
`generator(x, training=True)`, so a graph with dropout that ends in tanh is taken to want "instance" too. Any other is
run as `model.predict` runs it, with the stored statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families.family import (
    BYTE_RANGE,
    TANH_RANGE,
    UNIT_RANGE,
    Activation,
    Choices,
    Convention,
    Fact,
    Generator,
    NormMode,
    ValueRange,
    Weights,
)
from sketchbridge_export.families.keras_graph import Graph, Layer, Step
from sketchbridge_export.families.keras_layers import PLANNERS, Chain, Given, How, Plan, Shape, plan, refusal
from sketchbridge_export.families.keras_weights import assign
from sketchbridge_export.families.layers import StructureMismatch, choose_activation

_DEFAULT_SIZE = 256
_LARGEST_SIZE = 2048
_DROPOUTS = ("Dropout", "SpatialDropout2D")
_OWN_STATISTICS = ("GroupNormalization", "LayerNormalization", "Addons>InstanceNormalization")
_WITHOUT_EFFECT = ("ActivityRegularization", "Identity", "Dropout", "SpatialDropout2D")
_LAST: Mapping[str, Activation] = {"tanh": "tanh", "sigmoid": "sigmoid", "linear": "none"}
_BYTES_ABOVE = 16.0  # a first Rescaling that divides by more than this takes values up to 255


@dataclass(frozen=True)
class Network:
    """A graph whose every layer is known to fit.

    names: layer's path -> variable -> stored tensor. last: what turns numbers into colours.
    """

    graph: Graph
    plans: tuple[Plan, ...]
    names: Mapping[str, Mapping[str, str]]
    side: int
    last: Activation
    convention: Convention

    @property
    def output(self) -> Shape:
        """(C, H, W) of the result."""
        return self.plans[self.graph.output - 1].shape


class KerasNetwork(nn.Module):
    """Runs the steps of a graph. (N, C, H, W) -> (N, C', H', W')."""

    def __init__(self, parts: Sequence[nn.Module], wiring: Sequence[tuple[tuple[int, ...], int]], output: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.wiring = tuple(wiring)  # of each part: the values it takes, and the one it gives
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        values = {0: x}
        for part, (sources, result) in zip(self.parts, self.wiring, strict=True):
            values[result] = part(*(values[source] for source in sources))
        return values[self.output]


def plan_network(graph: Graph, weights: Weights, size: int | None = None) -> Network:
    """Check that every layer is known and fits what it is fed and its weights.

    size: side in pixels, where the graph leaves it open. Raises StructureMismatch.
    """
    _refuse_other_kinds(graph)
    height, width, channels = graph.input_shape
    if height != width and None not in (height, width):
        raise StructureMismatch(f"it takes {height} x {width} pixels; square pictures are made")
    side = height or width or size or _DEFAULT_SIZE
    if side > _LARGEST_SIZE:
        raise StructureMismatch(f"it takes {side} x {side} pixels; at most {_LARGEST_SIZE} are made")
    names = assign(graph.layers, weights.shapes)
    shapes: list[Shape] = [(channels, side, side)]
    plans: list[Plan] = []
    for step in graph.steps:
        stored = {variable: weights.shapes[name] for variable, name in names.get(step.layer.path, {}).items()}
        planned = plan(Given(step.layer, [shapes[value] for value in step.inputs], stored))
        plans.append(planned)
        shapes.append(planned.shape)
    if graph.output == 0:
        raise StructureMismatch("it gives back what it is fed")
    _check_result(shapes[graph.output], side)
    last, convention = _read_ends(graph, plans)
    return Network(graph, tuple(plans), names, side, last, convention)


def build_generator(graph: Graph, weights: Weights, choices: Choices, facts: Mapping[str, Fact]) -> Generator:
    """The network with its weights. Raises OptionInvalid if it can't be run as chosen."""
    network = _sized_network(graph, weights, choices.size)
    choose_activation(choices, network.last)
    kind, modes = _norm_modes(network, choices.norm)
    dropouts = sum(step.layer.class_name in _DROPOUTS for step in graph.steps)
    if choices.dropout_seed is not None and not dropouts:
        raise OptionInvalid("This network has no dropout to seed. Leave --dropout out.")
    seed = "off" if choices.dropout_seed is None else f"seed {choices.dropout_seed}"
    channels, _, _ = network.output
    return Generator(
        module=_build(network, weights, modes, choices.dropout_seed).eval().requires_grad_(requires_grad=False),
        input_channels=graph.input_shape[2],
        output_channels=channels,
        native_size=network.side,
        norm=kind,
        facts={**facts, "layers": len(graph.layers), "ends_in": network.last},
        dropout=seed if dropouts else "none",
        convention=network.convention,
    )


def _refuse_other_kinds(graph: Graph) -> None:
    """Say what a network looks like that is no generator of pictures from pictures."""
    kinds = {layer.class_name for layer in graph.layers}
    if "Dense" in kinds and "Reshape" in kinds and kinds & {"Conv2DTranspose", "UpSampling2D"}:
        raise StructureMismatch(
            "it makes a picture of a few numbers (Dense, Reshape): it looks like a generator that starts from a latent "
            "vector, which takes no drawing"
        )
    unknown = [layer for layer in graph.layers if layer.class_name not in PLANNERS]
    if unknown:
        raise refusal(unknown[0])


def _check_result(shape: Shape, side: int) -> None:
    channels, height, width = shape
    if 2 * min(height, width) <= side:  # unpadded convolutions may cost a generator a few pixels
        raise StructureMismatch(
            f"it turns {side} x {side} pixels into {height} x {width} values of {channels} channels: it looks like a "
            "discriminator (PatchGAN) or a classifier, which gives scores, no picture"
        )


def _read_ends(graph: Graph, plans: Sequence[Plan]) -> tuple[Activation, Convention]:
    """The last activation, and the ranges that it and Rescaling layers at both ends mean."""
    scale, offset = 1.0, 0.0
    value = graph.output
    while value and graph.steps[value - 1].layer.class_name in (*_WITHOUT_EFFECT, "Rescaling"):
        layer = graph.steps[value - 1].layer
        if layer.class_name == "Rescaling":
            own = Given(layer, (), {})
            offset += scale * own.number("offset", 0.0)
            scale *= own.number("scale", 1.0)
        value = graph.steps[value - 1].inputs[0]
    found = plans[value - 1].activation if value else "linear"
    if found not in _LAST:
        raise StructureMismatch(f"it ends in {found}; what paints pictures ends in tanh, sigmoid or nothing")
    last = _LAST[found]
    if scale == 0:
        raise StructureMismatch("it scales its result by 0")
    low, usual = (0.0, UNIT_RANGE) if last == "sigmoid" else (-1.0, TANH_RANGE)
    output = ValueRange(low * scale + offset, scale + offset)
    return last, Convention(BYTE_RANGE if _takes_bytes(graph) else usual, output)


def _takes_bytes(graph: Graph) -> bool:
    first = [step.layer for step in graph.steps if 0 in step.inputs]
    return (
        len(first) == 1
        and first[0].class_name == "Rescaling"
        and abs(Given(first[0], (), {}).number("scale", 1.0)) < 1 / _BYTES_ABOVE
    )


def _sized_network(graph: Graph, weights: Weights, size: int | None) -> Network:
    fixed = graph.input_shape[0] or graph.input_shape[1]
    if fixed is not None and size not in (None, fixed):
        raise OptionInvalid(f"size is {size}, but this network takes {fixed} x {fixed} pixels. Leave it out.")
    if size is not None and not 1 <= size <= _LARGEST_SIZE:
        raise OptionInvalid(f"size is {size}; from 1 to {_LARGEST_SIZE} are taken.")
    try:
        return plan_network(graph, weights, size)
    except StructureMismatch as exc:
        if size is None:
            raise
        raise OptionInvalid(f"size is {size}, but then {exc}. Choose another, such as {_DEFAULT_SIZE}.") from exc


def _is_batch_norm(layer: Layer) -> bool:
    return layer.class_name == "BatchNormalization"


def _in_training(step: Step) -> bool:
    """Keras: a layer whose training was switched off normalises with stored statistics, whatever the call says."""
    return step.training is True and step.layer.trainable


def _norm_modes(network: Network, wanted: NormMode | None) -> tuple[str, dict[int, NormMode]]:
    """The Generator's norm, and the statistics of each step that is a batch normalisation."""
    steps = network.graph.steps
    norms = [index for index, step in enumerate(steps) if _is_batch_norm(step.layer)]
    if not norms:
        own = any(step.layer.class_name in _OWN_STATISTICS for step in steps)
        if wanted == "running" or (wanted is not None and not own):
            raise OptionInvalid(
                f"norm is {wanted!r}, but this network has no batch normalisation to choose for. Leave it out."
            )
        return ("instance" if own else "none"), {}
    if wanted is not None:
        return wanted, dict.fromkeys(norms, wanted)
    said = {index: _in_training(steps[index]) for index in norms}
    if any(said.values()):
        return "instance", {index: "instance" if own else "running" for index, own in said.items()}
    dropout = any(step.layer.class_name in _DROPOUTS for step in steps)
    mode: NormMode = "instance" if dropout and network.last == "tanh" else "running"
    return mode, dict.fromkeys(norms, mode)


def _build(network: Network, weights: Weights, modes: Mapping[int, NormMode], seed: int | None) -> nn.Module:
    steps = network.graph.steps
    uses = [0] * (len(steps) + 1)
    for value in (*(value for step in steps for value in step.inputs), network.graph.output):
        uses[value] += 1
    parts: list[nn.Module] = []
    wiring: list[tuple[tuple[int, ...], int]] = []
    alias = {0: 0}  # value -> the value that holds it: a step that does nothing, or was merged, has none of its own
    for index, (step, planned) in enumerate(zip(steps, network.plans, strict=True)):
        names = network.names.get(step.layer.path, {})
        tensors = {variable: weights.tensors[name] for variable, name in names.items()}
        part = planned.build(tensors, How(modes.get(index, "running"), seed, index))
        source = step.inputs[0]
        alias[index + 1] = alias[source]
        if isinstance(part, nn.Identity):
            continue
        if isinstance(part, nn.BatchNorm2d) and uses[source] == 1 and wiring and wiring[-1][1] == source:
            before = parts[-1]
            if isinstance(before, Chain) and before.can_normalise:
                before.normalise(part)
                continue
        alias[index + 1] = index + 1
        parts.append(part)
        wiring.append((tuple(alias[value] for value in step.inputs), index + 1))
    return KerasNetwork(parts, wiring, alias[network.graph.output])
