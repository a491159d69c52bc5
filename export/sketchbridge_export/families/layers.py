"""What families have in common: a convolution with its normalisation, and taking weights out of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families.family import Activation, Choices, NormMode, Shapes, State

NORM_SUFFIXES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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
