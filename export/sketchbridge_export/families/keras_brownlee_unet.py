"""Weights alone of the pix2pix generator in Jason Brownlee's tutorials.

Downwards: 4 x 4 convolution, stride 2, with bias, batch normalisation (not in the first and the innermost), LeakyReLU
with slope 0.2; the innermost ends in ReLU. Upwards: transposed convolution with bias, batch normalisation, half dropped
in the first three, then the skip is joined behind, then ReLU. Normalisation and dropout are called with training=True.
"""

from __future__ import annotations

from collections.abc import Sequence

from sketchbridge_export.families.family import (
    TANH_CONVENTION,
    Choices,
    Family,
    Generator,
    Recognition,
    Shapes,
    Weights,
)
from sketchbridge_export.families.keras_graph import Graph
from sketchbridge_export.families.keras_recipe import Recipe, choose, layer, rebuild_recipe, recognise_recipe
from sketchbridge_export.families.keras_tutorial_unet import read_widths

_LEVELS_WITH_DROPOUT = 3  # the innermost ones
_WINDOW = {"kernel_size": 4, "strides": 2, "padding": "same"}


def recognise(weights: Weights) -> Recognition:
    """Whether shapes and order are that generator's, every one of them."""
    return recognise_recipe(weights, _candidates, lambda graph: f"Brownlee's U-Net, {_depth(graph)} levels")


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    graph = choose(weights, _candidates)
    side = 2 ** _depth(graph)
    return rebuild_recipe(graph, weights, choices, usual=side, multiple=side, facts={"num_downs": _depth(graph)})


def _depth(graph: Graph) -> int:
    return sum(part.class_name == "Conv2D" for part in graph.layers)


def _candidates(shapes: Shapes) -> Sequence[Graph]:
    widths, inputs, outputs = read_widths(shapes)
    recipe = Recipe(inputs)
    skips: list[str] = []
    value = "0"
    for index, width in enumerate(widths[:-1]):
        value = recipe.add(layer("Conv2D", filters=width, **_WINDOW), value)
        if index:
            value = recipe.add(layer("BatchNormalization"), value, training=True)
        value = recipe.add(layer("LeakyReLU", alpha=0.2), value)
        skips.append(value)
    value = recipe.add(layer("Conv2D", filters=widths[-1], activation="relu", **_WINDOW), value)
    for index, width in enumerate(widths[-2::-1]):
        value = recipe.add(layer("Conv2DTranspose", filters=width, **_WINDOW), value)
        value = recipe.add(layer("BatchNormalization"), value, training=True)
        if index < _LEVELS_WITH_DROPOUT:
            value = recipe.add(layer("Dropout", rate=0.5), value, training=True)
        value = recipe.add(layer("Concatenate"), value, skips.pop())
        value = recipe.add(layer("ReLU"), value)
    return [recipe.graph(recipe.add(layer("Conv2DTranspose", filters=outputs, activation="tanh", **_WINDOW), value))]


FAMILY = Family(
    name="keras_brownlee_unet",
    title="Brownlee's pix2pix generator in Keras, weights alone (.weights.h5, .h5, SavedModel of Keras 3)",
    recognised_by="as many 4 x 4 convolutions with bias down as transposed up, in Keras's order",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: its layers are called with training=True",
    dropout="drops half in the three innermost levels upwards, at test time too",
    native_size="2 ** levels, or a multiple of it",
    exact="depth, widths, channels, epsilon 0.001, slope 0.2, order of the steps",
    assumed="the tutorial's wiring and settings, which weights alone don't show; dark lines in RGB",
    source="https://machinelearningmastery.com/how-to-develop-a-pix2pix-gan-for-image-to-image-translation/",
)
