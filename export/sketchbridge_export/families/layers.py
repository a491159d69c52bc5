"""What families have in common: a convolution with its normalisation, and taking weights out of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families.family import Activation, Choices, NormMode, Shapes, State, Weights

NORM_SUFFIXES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

NormKind = Literal["batch", "instance, affine", "instance", "none"]
_NORM_KINDS: dict[frozenset[str], NormKind] = {
    frozenset(("weight", "bias", "running_mean", "running_var")): "batch",
    frozenset(("weight", "bias")): "instance, affine",
    # Left over from PyTorch before 0.4; the reference drops them.
    frozenset(("running_mean", "running_var")): "instance",
}
_LARGEST_SIZE = 1024  # pixels, the side of the largest picture a caller may ask a network to paint


class StructureMismatch(ValueError):
    """Weights that don't have a family's structure. Stays inside families: it becomes a Recognition."""


class NormalisedConvolution(nn.Module):
    """A convolution (either direction) followed by its normalisation."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        result: torch.Tensor = self.norm(self.convolution(x))
        return result


class FixedDropout(nn.Module):
    """Dropout whose mask is drawn once and is part of the network: the same noise for every picture.

    shape: (C, H, W) of what it is applied to. rate: the share of values that are zeroed; the rest is scaled by
    1 / (1 - rate), as torch.nn.Dropout does. seed: the caller's; layer: tells this mask from the network's others.
    """

    mask: torch.Tensor

    def __init__(self, shape: tuple[int, int, int], *, rate: float, seed: int, layer: int) -> None:
        super().__init__()
        kept = np.random.default_rng([seed, layer]).random(shape) >= rate
        self.register_buffer("mask", torch.from_numpy(kept)[None])  # (1, C, H, W) bool: an eighth of float32's bytes
        self.scale = 1 / (1 - rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        return x * (self.mask.to(x.dtype) * self.scale)


def require_torch(weights: Weights) -> None:
    """Raise StructureMismatch unless the tensors are laid out as torch has them."""
    if weights.framework != "torch":
        raise StructureMismatch(f"its tensors are laid out as {weights.framework} has them")


def refuse_dropout(choices: Choices) -> None:
    """Raise OptionInvalid if dropout is asked of a family that has none."""
    if choices.dropout_seed is not None:
        raise OptionInvalid("This network has no dropout to seed. Leave --dropout out.")


def choose_activation(choices: Choices, known: Activation) -> None:
    """Raise OptionInvalid if another last activation is asked for than the one that the family is known to have."""
    if choices.activation not in (None, known):
        raise OptionInvalid(
            f"activation is {choices.activation!r}, but networks of this family end in {known!r}. Leave it out."
        )


def choose_fixed_size(choices: Choices, size: int) -> int:
    """`size`; raises OptionInvalid if another one is asked of a family whose networks take only that."""
    if choices.size not in (None, size):
        raise OptionInvalid(f"size is {choices.size}, but this network takes {size} x {size} pixels. Leave it out.")
    return size


def choose_free_size(choices: Choices, *, multiple: int, smallest: int) -> int:
    """The size asked for, else 256 pixels; raises OptionInvalid if the network can't take it.

    multiple: what the network's halvings need a side to be a multiple of. smallest: the least side that leaves its
    innermost layer the pixels it needs.
    """
    size = choices.size or 256
    if size % multiple or not smallest <= size <= _LARGEST_SIZE:
        raise OptionInvalid(
            f"size is {size}, but this network takes multiples of {multiple} from {smallest} to {_LARGEST_SIZE} pixels."
        )
    return size


def dropout_state(choices: Choices) -> str:
    """Generator.dropout of a network that has dropout."""
    return "off" if choices.dropout_seed is None else f"seed {choices.dropout_seed}"


def choose_norm(kind: NormKind, wanted: NormMode | None, *, default: NormMode) -> NormMode | None:
    """The statistics to normalise with, None if there is nothing to normalise.

    default: what batch normalisation is run with unless asked otherwise. Raises OptionInvalid if the network can't.
    """
    if kind == "none":
        if wanted is not None:
            raise OptionInvalid(
                f"norm is {wanted!r}, but the checkpoint was trained without normalisation. Leave it out."
            )
        return None
    if kind == "batch":
        return wanted or default
    if wanted == "running":
        raise OptionInvalid(
            f"norm is 'running', but the checkpoint's normalisation is of kind {kind!r}: it has no running statistics "
            "to use. Leave it out, or pass 'instance'."
        )
    return "instance"


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy of `module` whose running-statistics normalisations are folded into their convolutions.

    The copy computes the same function with fewer steps: ONNX Runtime folds ordinary convolutions by itself, transposed
    ones not. Normalisation with the picture's own statistics can't be folded and stays.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, NormalisedConvolution) and isinstance(part.norm, nn.BatchNorm2d):
            norm, convolution = part.norm, part.convolution
            if norm.running_mean is None or norm.running_var is None:
                continue
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
                transpose=isinstance(convolution, nn.ConvTranspose2d),
            )
            part.norm = nn.Identity()
    return module


def convolution_weights(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """The weight and, where there is one, the bias under `prefix`, as float32."""
    return {key: state[f"{prefix}.{key}"].float() for key in ("weight", "bias") if f"{prefix}.{key}" in state}


def build_convolution(
    state: State,
    prefix: str,
    *,
    stride: int = 1,
    padding: int = 0,
    padding_mode: Literal["zeros", "reflect"] = "zeros",
) -> nn.Conv2d:
    """The convolution under `prefix`, of the kernel its weight has."""
    own = convolution_weights(state, prefix)
    outputs, inputs, kernel, _ = own["weight"].shape
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=padding, padding_mode=padding_mode, bias="bias" in own
    )
    convolution.load_state_dict(own)
    return convolution


def build_transposed(state: State, prefix: str, *, output_padding: int = 0) -> nn.ConvTranspose2d:
    """The transposed convolution under `prefix` that doubles: stride 2, padding 1."""
    own = convolution_weights(state, prefix)
    inputs, outputs, kernel, _ = own["weight"].shape
    convolution = nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=1, output_padding=output_padding, bias="bias" in own
    )
    convolution.load_state_dict(own)
    return convolution


def normalised(
    state: State, convolution: nn.Conv2d | nn.ConvTranspose2d, norm: str | None, mode: NormMode | None
) -> NormalisedConvolution:
    """`convolution` with the normalisation under the prefix `norm`; with none if `norm` or `mode` is None."""
    if norm is None or mode is None:
        return NormalisedConvolution(convolution, nn.Identity())
    return NormalisedConvolution(convolution, build_norm(state, norm, convolution.out_channels, mode))


def build_norm(state: State, prefix: str, channels: int, mode: NormMode) -> nn.Module:
    """The normalisation under `prefix`, in evaluation mode.

    "running" takes the stored statistics. "instance" takes each picture's own: what batch normalisation in training
    mode computes for a batch of one, but independent of other pictures in the batch (both use the biased variance).
    """
    affine = f"{prefix}.weight" in state
    norm: nn.BatchNorm2d | nn.InstanceNorm2d
    norm = nn.BatchNorm2d(channels, affine=affine) if mode == "running" else nn.InstanceNorm2d(channels, affine=affine)
    wanted = NORM_SUFFIXES[:4] if mode == "running" else NORM_SUFFIXES[:2]
    norm.load_state_dict(
        {key: state[f"{prefix}.{key}"].float() for key in wanted if f"{prefix}.{key}" in state}, strict=False
    )
    return norm.eval()


def norm_keys(shapes: Shapes, prefix: str) -> frozenset[str]:
    """Which of the normalisation's tensors are stored under `prefix`; the batch counter is left out."""
    return frozenset(key for key in NORM_SUFFIXES[:4] if f"{prefix}.{key}" in shapes)


def require_shape(shapes: Shapes, key: str, expected: Mapping[int, int], *, dimensions: int = 4) -> tuple[int, ...]:
    """The shape of `key`, after checking the axes in `expected`; raises StructureMismatch naming the difference."""
    if key not in shapes:
        raise StructureMismatch(f"`{key}` is missing")
    shape = shapes[key]
    if len(shape) != dimensions or any(shape[axis] != size for axis, size in expected.items()):
        wanted = ", ".join(str(expected.get(axis, "any")) for axis in range(dimensions))
        raise StructureMismatch(f"`{key}` is {shape}, expected ({wanted})")
    if 0 in shape:
        raise StructureMismatch(f"`{key}` is {shape}, which holds nothing")
    return shape


def require_nothing_else(shapes: Shapes, explained: set[str]) -> None:
    """Raise StructureMismatch unless every stored tensor has been explained."""
    rest = sorted(set(shapes) - explained)
    if rest:
        raise StructureMismatch(f"`{rest[0]}` {tuple(shapes[rest[0]])} and {len(rest) - 1} more have no place in it")


def convolution_tensor_names(shapes: Shapes, prefix: str, channels: int) -> set[str]:
    """Names of the weight and, where there is one, the bias under `prefix`; the bias must have one value a channel."""
    names = {f"{prefix}.weight"}
    if f"{prefix}.bias" in shapes:
        require_shape(shapes, f"{prefix}.bias", {0: channels}, dimensions=1)
        names.add(f"{prefix}.bias")
    return names


def norm_tensor_names(shapes: Shapes, prefix: str, channels: int) -> set[str]:
    """Names of the normalisation tensors stored under `prefix`, after checking that each has one value a channel."""
    names = {f"{prefix}.{key}" for key in NORM_SUFFIXES if f"{prefix}.{key}" in shapes}
    for name in names - {f"{prefix}.num_batches_tracked"}:
        require_shape(shapes, name, {0: channels}, dimensions=1)
    return names


def read_norm_kind(shapes: Shapes, prefixes: Iterable[str], *, if_nothing_stored: NormKind) -> NormKind:
    """Which normalisation all the prefixes hold; raises StructureMismatch if they differ or it is none there is.

    if_nothing_stored: what the family's networks have where no tensor says it.
    """
    found = {norm_keys(shapes, prefix) for prefix in prefixes}
    if len(found) > 1:
        raise StructureMismatch(f"its normalisations differ: {sorted(map(sorted, found))}")
    stored = next(iter(found), frozenset())
    if not stored:
        return if_nothing_stored
    if stored not in _NORM_KINDS:
        raise StructureMismatch(f"its normalisations hold {sorted(stored)}, which no kind of normalisation does")
    return _NORM_KINDS[stored]


class Reading:
    """Checks a checkpoint part by part and remembers what has been explained."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.explained: set[str] = set()
        self.norms: list[str] = []  # prefixes
        self.normalised_biases: set[bool] = set()  # whether the convolutions before them have a bias

    def convolution(
        self,
        prefix: str,
        *,
        kernel: int,
        inputs: int | None = None,
        outputs: int | None = None,
        transposed: bool = False,
        norm: str | None = None,
        bias: bool | None = None,
    ) -> tuple[int, int]:
        """Its numbers of input and output channels.

        norm: prefix of the normalisation that follows, stored or not. bias: whether it must have one.
        Raises StructureMismatch if it isn't there or is another than expected (None: any).
        """
        input_axis, output_axis = (0, 1) if transposed else (1, 0)
        expected = {2: kernel, 3: kernel}
        expected |= {axis: size for axis, size in ((input_axis, inputs), (output_axis, outputs)) if size is not None}
        shape = require_shape(self.shapes, f"{prefix}.weight", expected)
        biased = f"{prefix}.bias" in self.shapes
        if bias is not None and biased != bias:
            raise StructureMismatch(f"`{prefix}.bias` {'is missing' if bias else 'has no place in it'}")
        self.explained |= convolution_tensor_names(self.shapes, prefix, shape[output_axis])
        if norm is not None:
            self.norms.append(norm)
            self.normalised_biases.add(biased)
            self.explained |= norm_tensor_names(self.shapes, norm, shape[output_axis])
        return shape[input_axis], shape[output_axis]

    def buffer(self, name: str, shape: tuple[int, ...]) -> None:
        """Explain a stored tensor of exactly this shape."""
        require_shape(self.shapes, name, dict(enumerate(shape)), dimensions=len(shape))
        self.explained.add(name)

    def finish(self) -> None:
        """Raise StructureMismatch unless every stored tensor has been explained."""
        require_nothing_else(self.shapes, self.explained)
