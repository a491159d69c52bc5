"""Weights alone of the plain U-Net of Keras that ends in sigmoid: max-pooling down, upsampling up.

Each level is two 3 x 3 convolutions with ReLU. Upwards there are two schools, told apart by the kernels' shapes:
upsampling, then a 2 x 2 convolution with ReLU, joined behind the skip; or a transposed convolution without activation,
the skip joined behind it. Before the last 1 x 1 convolution there may be one more 3 x 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from sketchbridge_export.families.family import (
    UNIT_RANGE,
    Choices,
    Convention,
    Family,
    Generator,
    Recognition,
    Shapes,
    Weights,
)
from sketchbridge_export.families.keras_graph import Graph
from sketchbridge_export.families.keras_recipe import Recipe, choose, kernels, layer, rebuild_recipe, recognise_recipe
from sketchbridge_export.families.layers import StructureMismatch

_MOST_LEVELS = 7
_USUAL_SIZE = 256


def recognise(weights: Weights) -> Recognition:
    """Whether shapes and order are such a U-Net's, every one of them."""
    return recognise_recipe(weights, _candidates, lambda graph: f"max-pooling U-Net, {_levels(graph)} pooled levels")


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    graph = choose(weights, _candidates)
    levels = _levels(graph)
    return rebuild_recipe(
        graph, weights, choices, usual=_USUAL_SIZE, multiple=2**levels, facts={"pooled_levels": levels}
    )


def _levels(graph: Graph) -> int:
    return sum(part.class_name == "MaxPooling2D" for part in graph.layers)


def _candidates(shapes: Shapes) -> Sequence[Graph]:
    found = kernels(shapes)
    last = [shape for shape in found if shape[:2] == (1, 1)]
    if len(last) != 1:
        raise StructureMismatch(f"it has {len(last)} kernels of 1 x 1, expected the last one alone")
    threes = [shape for shape in found if shape[:2] == (3, 3)]
    inputs = found[0][2]
    graphs = []
    for levels in range(1, _MOST_LEVELS + 1):
        convolutions = 4 * levels + 2
        ups = len(found) - convolutions - 1
        if ups not in (levels, levels + 1) or len(threes) < convolutions:
            continue
        widths = [shape[3] for shape in threes[1 : 2 * levels + 2 : 2]]
        extra = threes[-1][3] if ups == levels + 1 else None
        windows = [shape[0] for shape in found if shape[:2] in ((2, 2), (4, 4))] or [3]
        if len(widths) == levels + 1:
            graphs += [_upsampled(inputs, widths, extra, last[0][3])]
            graphs += [_transposed(inputs, widths, extra, last[0][3], windows[0])]
    if not graphs:
        raise StructureMismatch(f"it has {len(found)} kernels, which no such U-Net of up to {_MOST_LEVELS} levels has")
    return graphs


def _upsampled(inputs: int, widths: Sequence[int], extra: int | None, outputs: int) -> Graph:
    recipe = Recipe(inputs)
    value, skips = _down(recipe, widths, dropout=True)
    for width in widths[-2::-1]:
        value = recipe.add(layer("UpSampling2D", size=2), value)
        value = recipe.add(layer("Conv2D", filters=width, kernel_size=2, padding="same", activation="relu"), value)
        value = _twice(recipe, recipe.add(layer("Concatenate"), skips.pop(), value), width)
    return _end(recipe, value, extra, outputs)


def _transposed(inputs: int, widths: Sequence[int], extra: int | None, outputs: int, window: int) -> Graph:
    recipe = Recipe(inputs)
    value, skips = _down(recipe, widths, dropout=False)
    for width in widths[-2::-1]:
        up = layer("Conv2DTranspose", filters=width, kernel_size=window, strides=2, padding="same")
        value = recipe.add(up, value)
        value = _twice(recipe, recipe.add(layer("Concatenate"), value, skips.pop()), width)
    return _end(recipe, value, extra, outputs)


def _down(recipe: Recipe, widths: Sequence[int], *, dropout: bool) -> tuple[str, list[str]]:
    value, skips = "0", []
    for index, width in enumerate(widths):
        value = _twice(recipe, value, width)
        if dropout and index >= len(widths) - 2:
            value = recipe.add(layer("Dropout", rate=0.5), value)
        if index < len(widths) - 1:
            skips.append(value)
            value = recipe.add(layer("MaxPooling2D"), value)
    return value, skips


def _twice(recipe: Recipe, value: str, width: int) -> str:
    for _ in range(2):
        value = _conv3(recipe, value, width)
    return value


def _conv3(recipe: Recipe, value: str, width: int) -> str:
    return recipe.add(layer("Conv2D", filters=width, kernel_size=3, padding="same", activation="relu"), value)


def _end(recipe: Recipe, value: str, extra: int | None, outputs: int) -> Graph:
    if extra is not None:
        value = _conv3(recipe, value, extra)
    return recipe.graph(recipe.add(layer("Conv2D", filters=outputs, kernel_size=1, activation="sigmoid"), value))


FAMILY = Family(
    name="keras_pooling_unet",
    title="the plain Keras U-Net with sigmoid, weights alone (.weights.h5, .h5, SavedModel of Keras 3)",
    recognised_by="two 3 x 3 convolutions a level, one 2 x 2 or transposed convolution a level up, a last one of 1 x 1",
    recognise=recognise,
    rebuild=rebuild,
    convention=Convention(UNIT_RANGE, UNIT_RANGE),
    norm="it has none",
    dropout="drops half in its two lowest levels while training only, where it upsamples",
    native_size="256, or another multiple of 2 ** levels",
    exact="depth, widths, channels, kernels",
    assumed="ReLU after every convolution but the transposed, sigmoid at the end; upsampled values behind the skip, "
    "transposed before it: save the whole model to have this from the file",
    source="https://github.com/zhixuhao/unet model.py, and the same with Conv2DTranspose",
)
