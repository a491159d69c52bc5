"""Which stored tensor is which layer's: Keras keeps weights by class name and counter, or simply in order.

`.weights.h5` and `.keras` files of the new format hold `layers/sequential_1/layers/conv2d/vars/0`. The old HDF5 files
and TensorFlow's SavedModels hold names that end in the variable's (`conv2d_1/kernel`) in the order of the layers, and
that order is also what Keras itself goes by when it loads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sketchbridge_export.families.family import Shapes
from sketchbridge_export.families.keras_graph import Layer
from sketchbridge_export.families.layers import StructureMismatch

# Parts of a stored name that say how Keras found the layer, not which one it is.
_FILLERS = frozenset(("layers", "_layer_checkpoint_dependencies", "_operations", "_functional"))


@dataclass(frozen=True)
class Variable:
    """One tensor of a layer. switch: the setting that can turn it off; moving: not trained."""

    name: str
    switch: str | None = None
    moving: bool = False
    aliases: tuple[str, ...] = ()


_KERNEL, _BIAS = Variable("kernel"), Variable("bias", "use_bias")
_DEPTHWISE = Variable("depthwise_kernel", aliases=("kernel",))
_GAMMA, _BETA = Variable("gamma", "scale"), Variable("beta", "center")
VARIABLES: Mapping[str, tuple[Variable, ...]] = {
    "Conv2D": (_KERNEL, _BIAS),
    "Conv2DTranspose": (_KERNEL, _BIAS),
    "DepthwiseConv2D": (_DEPTHWISE, _BIAS),
    "SeparableConv2D": (_DEPTHWISE, Variable("pointwise_kernel"), _BIAS),
    "BatchNormalization": (
        _GAMMA,
        _BETA,
        Variable("moving_mean", moving=True),
        Variable("moving_variance", moving=True),
    ),
    "LayerNormalization": (_GAMMA, _BETA),
    "GroupNormalization": (_GAMMA, _BETA),
    "Addons>InstanceNormalization": (_GAMMA, _BETA),
    "PReLU": (Variable("alpha"),),
}


def is_ordered(shapes: Shapes) -> bool:
    """Whether the tensors are in the order of the layers, rather than under class names and counters."""
    return not any("/vars/" in name for name in shapes)


def assign(layers: Sequence[Layer], shapes: Shapes) -> dict[str, dict[str, str]]:
    """Layer's path -> variable's name -> stored tensor's name. Shapes are not looked at.

    Raises StructureMismatch unless every variable is there and every stored tensor is one.
    """
    return _assign_in_order(layers, list(shapes)) if is_ordered(shapes) else _assign_by_key(layers, shapes)


def _variables(layer: Layer) -> list[Variable]:
    every = VARIABLES.get(layer.class_name, ())
    return [variable for variable in every if variable.switch is None or layer.config.get(variable.switch, True)]


def _assign_by_key(layers: Sequence[Layer], stored: Iterable[str]) -> dict[str, dict[str, str]]:
    left = {"/".join(part for part in name.split("/") if part not in _FILLERS): name for name in stored}
    found: dict[str, dict[str, str]] = {}
    for layer in layers:
        for index, variable in enumerate(_variables(layer)):
            name = left.pop(f"{layer.key}/vars/{index}", None)
            if name is None:
                raise StructureMismatch(f"the {variable.name} of layer `{layer.path}` is missing")
            found.setdefault(layer.path, {})[variable.name] = name
    if left:
        rest = sorted(left.values())
        raise StructureMismatch(f"`{rest[0]}` and {len(rest) - 1} more belong to no layer")
    return found


def _assign_in_order(layers: Sequence[Layer], stored: Sequence[str]) -> dict[str, dict[str, str]]:
    expected = [(layer, variable) for layer in layers for variable in _variables(layer)]
    if len(expected) != len(stored):
        raise StructureMismatch(f"its layers have {len(expected)} weights, the file holds {len(stored)}")
    # Old files keep what is trained before what is not, outermost layer by outermost layer; SavedModels keep layer by
    # layer. A layer whose training was switched off counts as not trained as a whole.
    orders = (
        expected,
        sorted(expected, key=lambda pair: (pair[0].top, pair[1].moving or not pair[0].trainable)),
        sorted(expected, key=lambda pair: (pair[0].top, pair[1].moving)),
        sorted(expected, key=lambda pair: pair[1].moving),
    )
    for order in orders:
        if all(_is_called(variable, name) for (_, variable), name in zip(order, stored, strict=True)):
            found: dict[str, dict[str, str]] = {}
            for (layer, variable), name in zip(order, stored, strict=True):
                found.setdefault(layer.path, {})[variable.name] = name
            return found
    wrong = next(
        (layer, variable, name)
        for (layer, variable), name in zip(expected, stored, strict=True)
        if not _is_called(variable, name)
    )
    raise StructureMismatch(f"`{wrong[2]}` is stored where the {wrong[1].name} of layer `{wrong[0].path}` is due")


def _is_called(variable: Variable, stored: str) -> bool:
    leaf = re.sub(r"(:\d+)?$", "", stored.rpartition("/")[2]).lstrip("_")
    return re.sub(r"_\d+$", "", leaf) in (variable.name, *variable.aliases)
