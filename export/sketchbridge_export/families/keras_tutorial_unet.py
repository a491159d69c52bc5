"""Weights alone of the generator in TensorFlow's pix2pix tutorial.

Downwards: 4 x 4 convolution, stride 2, without bias, batch normalisation (not in the first), LeakyReLU with Keras's own
slope of 0.3. Upwards: transposed convolution without bias, batch normalisation, half dropped in the first three, ReLU,
then the skip is joined behind. The last one has a bias and tanh. Each block is a Sequential model.
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
from sketchbridge_export.families.keras_recipe import (
    Recipe,
    choose,
    kernels,
    layer,
    rebuild_recipe,
    recognise_recipe,
    sequential,
)
from sketchbridge_export.families.layers import StructureMismatch

_FEWEST_DOWNS, _MOST_DOWNS = 4, 10
_LEVELS_WITH_DROPOUT = 3  # the innermost ones
_WINDOW = {"kernel_size": 4, "strides": 2, "padding": "same"}


def recognise(weights: Weights) -> Recognition:
    """Whether shapes and order are that generator's, every one of them."""
    return recognise_recipe(
        weights, _candidates, lambda graph: f"U-Net of the TensorFlow tutorial, {_depth(graph)} levels"
    )


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
    skips = ["0"]
    for index, width in enumerate(widths):
        norm = [layer("BatchNormalization")] if index else []
        down = [layer("Conv2D", filters=width, use_bias=False, **_WINDOW), *norm, layer("LeakyReLU")]
        skips.append(recipe.add(sequential(down), skips[-1]))
    value = skips.pop()
    for index, width in enumerate(widths[-2::-1]):
        drop = [layer("Dropout", rate=0.5)] if index < _LEVELS_WITH_DROPOUT else []
        up = layer("Conv2DTranspose", filters=width, use_bias=False, **_WINDOW)
        value = recipe.add(sequential([up, layer("BatchNormalization"), *drop, layer("ReLU")]), value)
        value = recipe.add(layer("Concatenate"), value, skips.pop())
    last = layer("Conv2DTranspose", filters=outputs, activation="tanh", **_WINDOW)
    return [recipe.graph(recipe.add(last, value))]


def read_widths(shapes: Shapes) -> tuple[list[int], int, int]:
    """Widths of the levels, input channels and output channels of a U-Net of 4 x 4 kernels; or StructureMismatch."""
    found = kernels(shapes)
    odd = [shape for shape in found if shape[:2] != (4, 4)]
    if odd:
        raise StructureMismatch(f"a kernel is {odd[0]}, expected (4, 4, any, any)")
    depth = len(found) // 2
    if len(found) % 2 or not _FEWEST_DOWNS <= depth <= _MOST_DOWNS:
        raise StructureMismatch(
            f"it has {len(found)} kernels; a U-Net of {_FEWEST_DOWNS} to {_MOST_DOWNS} levels has two a level"
        )
    return [shape[3] for shape in found[:depth]], found[0][2], found[-1][2]


FAMILY = Family(
    name="keras_tutorial_unet",
    title="TensorFlow's pix2pix tutorial, weights alone (.weights.h5, .h5, SavedModel or checkpoint)",
    recognised_by="as many 4 x 4 convolutions without bias down as transposed up, in Keras's order",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="instance: the tutorial paints with training=True",
    dropout="the tutorial drops half in the three innermost levels upwards, at test time too",
    native_size="2 ** levels, or a multiple of it",
    exact="depth, widths, channels, epsilon 0.001, slope 0.3, order of the steps",
    assumed="the tutorial's wiring and settings, which weights alone don't show; dark lines in RGB",
    source="https://www.tensorflow.org/tutorials/generative/pix2pix",
)
