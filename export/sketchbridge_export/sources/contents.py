"""Finds the generator's weights in what a training script saved: wrappers, averaged copies, prefixes, parts.

What is chosen never depends on luck: the generator by name before "the model", an averaged copy before the raw weights,
and where two readings of the names are possible, the one that a family recognises. Every choice leaves a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.families import FAMILIES, Weights
from sketchbridge_export.sources.reparametrised import fold_reparametrisations

Tensors = Mapping[str, torch.Tensor]

# Where training scripts put the generator's weights, first come first served: the generator by name before "the model".
_GENERATORS = ("generator", "netG", "net_g", "gen", "G", "g", "unet", "generator_model")
_WRAPPERS = (
    *(f"{name}{ending}" for name in _GENERATORS for ending in ("", "_state_dict", "_state", "_weights")),
    "state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module", "model_weights",
)  # fmt: skip
# Averages over the training, which paint better than the last step's weights.
_AVERAGED = (
    "generator_ema", "netG_ema", "net_g_ema", "gen_ema", "G_ema", "g_ema", "ema_generator", "ema_netG", "ema_gen",
    "ema_G", "ema_g", "params_ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "shadow",
    "averaged_model", "swa_model",
)  # fmt: skip
_AVERAGE_CONTENTS = (
    "shadow",
    "shadow_params",
    "module",
    "ema_model",
    "state_dict",
    "params",
    "model",
    "averaged_model",
)
_DEEPEST_WRAPPING = 4
_MOST_VALUES = 2**29  # as float32 they have 2 GiB, more than an ONNX file holds
_LONGEST_NAME = 500  # characters; the innermost ones of a U-Net have 100

_TWO_WAYS = re.compile(
    r"(?i)^(?:net_?)?(?:g|gen|generator|netg)_?(?:a2b|b2a|ab|ba|xy|yx|a|b|x|y|f|h|z)(?:_state_dict)?$"
)
_CRITIC = re.compile(r"(?i)^(?:net_?)?(?:d|dis|disc|discriminator|critic)(?:_?\w{1,3})?(?:_state_dict)?$")

# A part of a larger module, by the first word of its tensors' names.
_GENERATOR_PARTS = ("generator", "netG", "net_g", "gen", "G", "g", "unet")
_AVERAGED_PARTS = ("ema_model", "generator_ema", "netG_ema", "gen_ema", "G_ema", "g_ema", "ema_generator", "ema")
_OUTER_PARTS = ("model", "net", "network", *_GENERATOR_PARTS)
_TRANSPARENT = ("module.", "_orig_mod.")  # put there by DataParallel and torch.compile


def choose_generator(path: Path, content: object) -> tuple[Weights, tuple[str, ...]]:
    """The generator's weights in what a file holds, float32 and under the network's own names, and notes on the choice.

    Raises CheckpointInvalid if there are none, or two generators, or tensors that are not plain finite numbers.
    """
    notes: list[str] = []
    tensors, averaged = _unwrap(path, content, notes)
    tensors = _apply_average(path, tensors, averaged, notes)
    tensors = _take_part(path, tensors, notes)
    tensors = fold_reparametrisations(path, _clean(path, tensors), notes)
    return _read_names(tensors, notes), tuple(notes)


def is_recognised(weights: Weights) -> bool:
    """Whether any family explains every tensor."""
    return any(family.recognise(weights).matches for family in FAMILIES.values())


def _unwrap(path: Path, content: object, notes: list[str]) -> tuple[dict[str, torch.Tensor], Mapping[str, Any] | None]:
    """The innermost dict of tensors, and the averaged copy that lies beside it or beside one of its wrappers."""
    averaged = None
    for _ in range(_DEEPEST_WRAPPING):
        if not isinstance(content, Mapping):
            raise CheckpointInvalid(f"`{path}` holds a {type(content).__name__}; expected a dict of tensors.")
        averaged = _find_average(content, notes) or averaged
        chosen = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if chosen is None:
            chosen = _only_direction(path, content)
        if chosen is None and not tensors and averaged is not None:
            return {}, averaged
        if chosen is None and tensors:
            return _check_names(path, content, tensors), averaged
        if chosen is None:
            raise _no_weights(path, content)
        if len(content) > 1:
            notes.append(f"took `{chosen}` and left {_list(key for key in content if key != chosen)} aside")
        content = content[chosen]
    raise CheckpointInvalid(f"`{path}` wraps its weights more than {_DEEPEST_WRAPPING} deep.")


def _find_average(content: Mapping[Any, Any], notes: list[str]) -> Mapping[str, Any] | None:
    for key in _AVERAGED:
        inner = content.get(key)
        for _ in range(_DEEPEST_WRAPPING):
            if not isinstance(inner, Mapping) or any(isinstance(value, torch.Tensor) for value in inner.values()):
                break
            inner = next((inner[name] for name in (*_AVERAGE_CONTENTS, *_GENERATORS) if inner.get(name)), None)
        if isinstance(inner, Mapping) and inner:
            return {"name": key, "tensors": inner}
        if isinstance(inner, list | tuple) and inner:
            notes.append(f"left the averaged copy `{key}` aside: it is a list, without the tensors' names")
    return None


def _apply_average(
    path: Path, tensors: dict[str, torch.Tensor], averaged: Mapping[str, Any] | None, notes: list[str]
) -> dict[str, torch.Tensor]:
    """The averaged copy; where it holds parameters only, the raw weights' statistics beside it."""
    if averaged is None:
        return tensors
    found = {key: value for key, value in averaged["tensors"].items() if isinstance(value, torch.Tensor)}
    found.pop("n_averaged", None)
    found = _strip(_check_names(path, found, found))
    raw = _strip(tensors)
    if not raw:
        notes.append(f"took the averaged copy `{averaged['name']}`")
        return found
    named = set(found) <= set(raw) and all(found[key].shape == raw[key].shape for key in found)
    if not named or not found:
        notes.append(f"left the averaged copy `{averaged['name']}` aside: its names are not those of the raw weights")
        return tensors
    notes.append(f"took the averaged copy `{averaged['name']}` rather than the raw weights beside it")
    if len(found) < len(raw):
        notes.append(f"{len(raw) - len(found)} tensors that the averaged copy leaves out are the raw ones")
    return raw | found


def _take_part(path: Path, tensors: dict[str, torch.Tensor], notes: list[str]) -> dict[str, torch.Tensor]:
    """The generator's tensors of a module that holds the discriminator too; prefixes of wrappers removed."""
    if "n_averaged" in tensors:  # torch.optim.swa_utils.AveragedModel
        tensors = {key: value for key, value in tensors.items() if key != "n_averaged"}
        notes.append("the file is an averaged model; its counter was left aside")
    tensors = _strip(tensors)
    parts = {key.partition(".")[0] for key in tensors}
    if len(parts) < 2 or is_recognised(Weights(tensors)):
        return tensors
    chosen = next((part for part in (*_AVERAGED_PARTS, *_GENERATOR_PARTS) if part in parts), None)
    if chosen is None:
        if sum(bool(_TWO_WAYS.match(part)) for part in parts) > 1:
            raise _two_generators(path, [part for part in sorted(parts) if _TWO_WAYS.match(part)])
        chosen = "model" if "model" in parts and any(_CRITIC.match(part) for part in parts) else None
    if chosen is None:
        chosen = next((part for part in _OUTER_PARTS if part in parts and is_recognised(_part(tensors, part))), None)
    if chosen is None:
        return tensors
    notes.append(f"took `{chosen}.*` and left {_list(f'{part}.*' for part in sorted(parts - {chosen}))} aside")
    return dict(_part(tensors, chosen).tensors)


def _part(tensors: Tensors, name: str) -> Weights:
    """The tensors whose names begin with that word, without it and without wrappers' prefixes."""
    return Weights(_strip({key.partition(".")[2]: tensors[key] for key in tensors if key.startswith(f"{name}.")}))


def _read_names(tensors: dict[str, torch.Tensor], notes: list[str]) -> Weights:
    """The names as they are if a family knows them so, else without a first word that all of them share."""
    weights = first = Weights(tensors)
    while not is_recognised(weights):
        words = {key.partition(".")[0] for key in weights.tensors}
        if len(words) != 1 or not words & set(_OUTER_PARTS) or not all("." in key for key in weights.tensors):
            return first
        weights = Weights({key.partition(".")[2]: value for key, value in weights.tensors.items()})
    if weights is not first:
        notes.append(f"removed a prefix from the names: `{next(iter(tensors))}` is `{next(iter(weights.tensors))}`")
    return weights


def _only_direction(path: Path, content: Mapping[Any, Any]) -> str | None:
    """The one generator of a two-way training; raises CheckpointInvalid if both ways are there."""
    ways = [
        key for key in content if isinstance(key, str) and _TWO_WAYS.match(key) and isinstance(content[key], Mapping)
    ]
    if len(ways) > 1:
        raise _two_generators(path, ways)
    return ways[0] if ways else None


def _two_generators(path: Path, ways: list[str]) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"`{path}` holds {len(ways)} generators, {_list(ways)}, one for each direction. Save the one that turns "
        f"sketches into photos alone: torch.save(checkpoint[{ways[0]!r}], ...)."
    )


def _no_weights(path: Path, content: Mapping[Any, Any]) -> CheckpointInvalid:
    if {"state", "param_groups"} <= set(content):
        return CheckpointInvalid(f"`{path}` is an optimiser's state. Pass the generator's weights saved beside it.")
    critics = [key for key in content if isinstance(key, str) and _CRITIC.match(key)]
    if critics:
        return CheckpointInvalid(
            f"`{path}` holds no weights of a generator, only a discriminator's, {_list(critics)}. Pass the generator's "
            "file, such as `latest_net_G.pth`."
        )
    keys = ", ".join(repr(key)[:60] for key in list(content)[:8])
    return CheckpointInvalid(f"`{path}` holds no weights of a generator; its entries are: {keys or 'none'}.")


def _check_names(path: Path, content: Mapping[Any, Any], tensors: dict[Any, torch.Tensor]) -> dict[str, torch.Tensor]:
    odd = [key for key in content if key not in tensors or not isinstance(key, str)]
    if odd:
        raise CheckpointInvalid(
            f"`{path}` mixes tensors with other things, such as {repr(odd[0])[:60]}. Save the state_dict alone."
        )
    return tensors


def _strip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _TRANSPARENT * 2:  # compiled and distributed, in either order
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors


def _clean(path: Path, tensors: Tensors) -> dict[str, torch.Tensor]:
    if not tensors:
        raise CheckpointInvalid(f"`{path}` holds no tensors.")
    for name, tensor in tensors.items():
        _check_plain(path, name, tensor)
    if sum(tensor.numel() for tensor in tensors.values()) > _MOST_VALUES:  # many may look at the same few bytes
        raise CheckpointInvalid(f"`{path}` holds more than {_MOST_VALUES:,} values, which no ONNX file can.")
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach()
        if plain.is_floating_point():
            try:
                plain = plain.float()  # before anything is computed: the small types can hardly do more than this
            except (NotImplementedError, RuntimeError) as exc:
                raise CheckpointInvalid(f"`{name[:100]}` in `{path}` is {tensor.dtype}. Save it as float32.") from exc
            if not bool(torch.isfinite(plain).all()):
                raise CheckpointInvalid(f"`{name[:100]}` in `{path}` holds NaN or infinity: its training diverged.")
        result[name] = plain.contiguous()
    return result


def _check_plain(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Raise CheckpointInvalid unless it is a tensor of numbers that are all there, under a name that can be shown."""
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise CheckpointInvalid(f"`{path}` holds a tensor of the name {name[:40]!r}, which no network gives.")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
        raise CheckpointInvalid(f"`{name[:100]}` in `{path}` is not a plain tensor of numbers.")
    if tensor.numel() and max(tensor.numel(), _reach(tensor)) * tensor.element_size() > _stored_bytes(tensor):
        raise CheckpointInvalid(f"`{name[:100]}` in `{path}` claims {tuple(tensor.shape)} values but stores fewer.")


def _reach(tensor: torch.Tensor) -> int:
    """How far into its storage a tensor looks, in values."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(tensor.storage_offset()) + steps + 1


def _stored_bytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _list(names: Iterable[object]) -> str:
    shown = [f"`{_printable(name)}`" for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _printable(name: object) -> str:
    """A name from the file on one line of a terminal, which must not obey it."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[:40])
