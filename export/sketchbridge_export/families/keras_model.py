"""Any Keras generator whose file says how its layers are wired: `.keras`, full `.h5` models, SavedModels of Keras 2.

The configuration is interpreted layer by layer; see keras_graph, keras_layers and keras_network. This covers the
generators of the TensorFlow tutorial and of Brownlee's book in all their variants, and most others.
"""

from __future__ import annotations

from sketchbridge_export.families.family import TANH_CONVENTION, Choices, Family, Generator, Recognition, Weights
from sketchbridge_export.families.keras_graph import Graph, read_graph
from sketchbridge_export.families.keras_network import build_generator, plan_network
from sketchbridge_export.families.layers import StructureMismatch


def recognise(weights: Weights) -> Recognition:
    """Whether the graph is understood, every layer known, and every tensor one of its weights."""
    try:
        graph = _graph(weights)
        network = plan_network(graph, weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    channels, height, width = network.output
    return Recognition(
        matches=True,
        why=f"Keras model of {len(graph.layers)} layers, from {graph.input_shape[2]} to {channels} channels, "
        f"{network.side} x {network.side} to {height} x {width} pixels, ends in {network.last}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    return build_generator(_graph(weights), weights, choices, {})


def _graph(weights: Weights) -> Graph:
    if weights.framework != "keras" or weights.graph is None:
        raise StructureMismatch("the configuration of a Keras model is missing")
    return read_graph(weights.graph)


FAMILY = Family(
    name="keras_model",
    title="Keras generators saved with their configuration (.keras, .h5, SavedModel of Keras 2)",
    recognised_by="the configuration in the file, whose layers are all known and explain every weight",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance where the graph calls normalisation with training=True, or has dropout and ends in tanh (the "
    "TensorFlow tutorial paints with training=True); else running",
    dropout="as the graph says; test-time dropout is off",
    native_size="the model's input; 256 if it takes any",
    exact="wiring, every layer's settings, padding as TensorFlow has it, epsilon, slopes",
    assumed="RGB, dark lines; [-1, 1] in and out for tanh or no activation, [0, 1] for sigmoid, 0 to 255 at Rescaling",
    source="https://keras.io/api/layers/ and the files that Keras 2 and 3 write",
)
