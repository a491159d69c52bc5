"""Weights that were trained as a product of parts, multiplied out to what the network computes with in evaluation mode.

Spectral normalisation divides by the largest singular value, which it estimates with two stored vectors; weight
normalisation scales each channel's direction to a stored length; pruning multiplies with a mask.
Sources: the documentation of torch.nn.utils.spectral_norm, weight_norm, parametrizations and prune.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sketchbridge_export.errors import CheckpointInvalid

_CLEARLY_SMALLER = 0.5  # how much better one reading of the vectors must fit than the other


def fold_reparametrisations(path: Path, tensors: dict[str, torch.Tensor], notes: list[str]) -> dict[str, torch.Tensor]:
    """`tensors` with plain weights in the place of those that are stored in parts; says so in `notes`.

    Raises CheckpointInvalid if a weight is stored in parts that can't be multiplied out exactly.
    """
    result: dict[str, torch.Tensor] = {}
    folded: dict[str, str] = {}
    rest = dict(tensors)
    for name in tensors:
        for kind, endings, whole, fold in _KINDS:
            parts = [_sibling(name, endings[0], ending) for ending in endings]
            if name in rest and name.endswith(endings[0]) and all(part in rest for part in parts):
                weight = fold(path, name, [rest.pop(part) for part in parts])
                if not bool(torch.isfinite(weight).all()):
                    raise CheckpointInvalid(f"`{name}` in `{path}` can't be multiplied out: its {kind} divides by 0.")
                result[_sibling(name, endings[0], whole)] = weight
                folded[name] = kind
                break
        if name in rest:
            result[name] = rest[name]
    result = {name: tensor for name, tensor in result.items() if name in rest or name not in tensors}
    odd = next((name for name in result if ".parametrizations." in f".{name}" or name.endswith("weight_orig")), None)
    if odd is not None:
        raise CheckpointInvalid(
            f"`{odd[:100]}` in `{path}` is part of a weight that is computed in a way that is not known here. Call "
            "remove_parametrizations (or remove_spectral_norm, remove_weight_norm) and save the state_dict again."
        )
    counts = Counter(folded.values())
    notes.extend(f"multiplied out the {kind} of {count} weights" for kind, count in counts.items())
    return result


def _sibling(name: str, ending: str, other: str) -> str:
    return name[: -len(ending)] + other


def _spectral(path: Path, name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weight / (u . (matrix v)), matrix being the weight with the output axis first."""
    weight, u, v = parts
    answers = []
    for axis in (0, 1):  # 1 in transposed convolutions
        if weight.dim() <= axis or u.dim() != 1 or v.dim() != 1 or weight.shape[axis] != len(u):
            continue
        matrix = weight.transpose(0, axis).flatten(1)
        if matrix.shape[1] != len(v):
            continue
        projected = matrix @ v
        sigma = u @ projected
        residual = float((projected - sigma * u).norm() / projected.norm())  # 0 if they are its singular vectors
        answers.append((residual, weight / sigma))
    answers.sort(key=lambda answer: answer[0])
    if not answers:
        raise CheckpointInvalid(
            f"`{name}` in `{path}` is {tuple(weight.shape)}, which its vectors of {u.numel()} and {v.numel()} values "
            "do not fit."
        )
    if len(answers) == 2 and not answers[0][0] < _CLEARLY_SMALLER * answers[1][0]:
        raise CheckpointInvalid(
            f"`{name}` in `{path}` can be read as a convolution's or as a transposed convolution's. Call "
            "remove_spectral_norm and save the state_dict again."
        )
    return answers[0][1]


def _weight_norm(path: Path, name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Direction * length / |direction|, along the axis whose lengths are stored."""
    length, direction = parts
    if length.dim() not in (0, direction.dim()):
        raise CheckpointInvalid(
            f"`{name}` in `{path}` is {tuple(length.shape)}, which does not fit a weight of {tuple(direction.shape)}."
        )
    axes = [axis for axis in range(direction.dim()) if length.dim() == 0 or length.shape[axis] == 1]
    kept = [axis for axis in range(direction.dim()) if axis not in axes]
    if any(length.shape[axis] != direction.shape[axis] for axis in kept):
        raise CheckpointInvalid(
            f"`{name}` in `{path}` is {tuple(length.shape)}, which does not fit a weight of {tuple(direction.shape)}."
        )
    norm = direction.pow(2).sum(axes, keepdim=True).sqrt() if axes else direction.abs()
    return direction * (length / norm)


def _masked(path: Path, name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    weight, mask = parts
    if weight.shape != mask.shape:
        raise CheckpointInvalid(
            f"`{name}` in `{path}` is {tuple(weight.shape)}, but its pruning mask is {tuple(mask.shape)}."
        )
    return weight * mask


_Fold = Callable[[Path, str, Sequence[torch.Tensor]], torch.Tensor]
# What it is called, how its parts end, how the weight is called then.
_KINDS: tuple[tuple[str, tuple[str, ...], str, _Fold], ...] = (
    ("spectral normalisation", ("weight_orig", "weight_u", "weight_v"), "weight", _spectral),
    (
        "spectral normalisation",
        ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
        "weight",
        _spectral,
    ),
    ("weight normalisation", ("weight_g", "weight_v"), "weight", _weight_norm),
    (
        "weight normalisation",
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        "weight",
        _weight_norm,
    ),
    ("pruning", ("weight_orig", "weight_mask"), "weight", _masked),
    ("pruning", ("bias_orig", "bias_mask"), "bias", _masked),
)
