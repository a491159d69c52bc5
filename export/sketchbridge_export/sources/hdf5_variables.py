"""Run by itself, never imported: copies the weights in an HDF5 file of Keras into a NumPy archive.

    python hdf5_variables.py SHOWN MAX_BYTES OUTPUT < FILE

HDF5's library can hang on a damaged file, or end the process, so it runs in a process of its own. SHOWN is the file's
name in messages. OUTPUT gets the arrays `0`, `1`, ... in the order of the layers, `names`, and in `config` and
`metadata` the texts that the file holds, empty if there are none. Exit status 0; 3 with a sentence on stdout if the
file can't be used.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

import h5py
import numpy as np

_METADATA_KEY = "sketchbridge"
_MAX_TEXT_BYTES = 16 * 1024**2  # a U-Net's configuration has 50 kB
_MOST_DATASETS = 20_000
_DEEPEST_GROUP = 32
_RANDOM_STATE = "seed_generator"  # of Dropout layers
_OF_TRAINING = ("optimizer", "optimizer_weights", "metrics", "compile_metrics", "loss_tracker")  # groups
_NOT_USABLE = 3


class _NotUsable(Exception):
    """What is wrong, after "`file` "."""


def read(file: IO[bytes], max_bytes: int) -> dict[str, np.ndarray[Any, Any]]:
    """What OUTPUT gets. Raises _NotUsable, or almost any exception if the file is damaged."""
    with h5py.File(file, "r") as content:
        groups = sorted(content)
        if "layer_names" in content.attrs or "layer_names0" in content.attrs:
            found = _walk_layers(content)
        elif "model_weights" in groups:
            found = _walk_layers(_member(content, "model_weights"))
        else:
            found = _walk_groups(content)
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        left_bytes = max_bytes
        for name, dataset in found:
            left_bytes -= _check_dataset(name, dataset, left_bytes)
            if name in arrays or len(arrays) >= _MOST_DATASETS:
                raise _NotUsable(f"is damaged: it names `{name[:100]}` twice, or too many tensors. Copy it again.")
            arrays[name] = np.asarray(dataset[()])
        if not arrays:
            shown = ", ".join(repr(name[:60]) for name in groups[:8])
            raise _NotUsable(f"holds no weights that Keras saved; its entries are: {shown or 'none'}.")
        return {
            "names": np.array(list(arrays)),
            "config": np.array(_attribute_text(content.attrs, "model_config")),
            "metadata": np.array(_attribute_text(content.attrs, _METADATA_KEY)),
            **{str(index): array for index, array in enumerate(arrays.values())},
        }


def _walk_layers(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """The old format: each layer's group names its weights, in order."""
    for layer in _attribute_names(group.attrs, "layer_names"):
        own = _member(group, layer)
        if not isinstance(own, h5py.Group):
            raise _NotUsable(f"is damaged: `{layer[:100]}` is no group. Copy it again.")
        for name in _attribute_names(own.attrs, "weight_names"):
            if _RANDOM_STATE not in name:
                yield f"{layer}/{name}", _member(own, name)


def _walk_groups(content: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The new format: `layers/conv2d_1/vars/0`; class by class, in the order of the counters."""
    seen: set[Any] = set()
    waiting: list[tuple[str, h5py.Group | h5py.Dataset]] = [("", content)]
    while waiting:
        name, thing = waiting.pop()
        if isinstance(thing, h5py.Dataset):
            yield name, thing
            continue
        place = h5py.h5o.get_info(thing.id).addr
        if place in seen or name.count("/") > _DEEPEST_GROUP or len(seen) > _MOST_DATASETS:
            raise _NotUsable("is damaged: its groups hold themselves, or are too many.")
        seen.add(place)
        for member in sorted(thing, key=_count, reverse=True):
            inner = f"{name}/{member}" if name else member
            if _RANDOM_STATE not in member and (name or member not in _OF_TRAINING):
                waiting.append((inner, _member(thing, member)))


def _count(name: str) -> tuple[str, int]:
    """conv2d < conv2d_1 < conv2d_10 < conv2d_transpose."""
    found = re.fullmatch(r"(.*?)_?(\d{1,9})", name, re.DOTALL)
    return (found[1], int(found[2])) if found else (name, 0)


def _member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What is stored under `name`, which may have slashes: in this file, nowhere else."""
    found: h5py.Group | h5py.Dataset = group
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or part in ("", ".", ".."):
            raise _NotUsable(f"is damaged: there is no `{name[:100]}`. Copy it again.")
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise _NotUsable(f"is damaged: `{name[:100]}` is missing, or a link to elsewhere. Save it again.")
        found = found[part]
    return found


def _check_dataset(name: str, dataset: object, left_bytes: int) -> int:
    """The bytes it takes, after a look at how it is stored: plainly, in this file, as many as it claims."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise _NotUsable(f"is damaged: `{name[:100]}` is no tensor. Copy it again.")
    if dataset.dtype.kind not in "fiu":
        raise _NotUsable(f"can't be used: `{name[:100]}` is of type {dataset.dtype}, expected float32.")
    size_bytes = int(math.prod(dataset.shape) * dataset.dtype.itemsize)
    if dataset.external or dataset.is_virtual or dataset.id.get_create_plist().get_nfilters():
        raise _NotUsable(
            f"can't be used: `{name[:100]}` is compressed or kept in another file, which Keras never does. Save it "
            "again."
        )
    if size_bytes > left_bytes or dataset.id.get_storage_size() < size_bytes:
        raise _NotUsable(f"is damaged: `{name[:100]}` claims {dataset.shape} values but stores fewer. Copy it again.")
    return size_bytes


def _attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    """Its value, after a look at its size."""
    stored = attributes.get_id(name)
    if math.prod(stored.shape) * stored.dtype.itemsize > _MAX_TEXT_BYTES:
        raise _NotUsable(f"has an attribute {name!r} of more than {_MAX_TEXT_BYTES:,} bytes.")
    return attributes[name]


def _attribute_text(attributes: h5py.AttributeManager, name: str) -> str:
    value = _attribute(attributes, name) if name in attributes else ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or len(value) > _MAX_TEXT_BYTES:
        raise _NotUsable(f"has an attribute {name!r} that is no text, or too long.")
    return value


def _attribute_names(attributes: h5py.AttributeManager, name: str) -> list[str]:
    """A list of names; one that is too long for one attribute continues in `name0`, `name1`, ..."""
    keys = [name] if name in attributes else []
    while not keys or (keys[0] != name and f"{name}{len(keys)}" in attributes):
        if f"{name}{len(keys)}" not in attributes:
            raise _NotUsable(f"is damaged: the attribute {name!r} is missing. Copy it again.")
        keys.append(f"{name}{len(keys)}")
    names: list[str] = []
    for key in keys:
        for value in np.ravel(_attribute(attributes, key)):
            names.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
            if len(names) > _MOST_DATASETS:
                raise _NotUsable(f"names more than {_MOST_DATASETS:,} layers or weights.")
    return names


def main(arguments: list[str]) -> int:
    """The command; see the module."""
    shown, max_bytes, output = arguments
    try:
        arrays = read(sys.stdin.buffer, int(max_bytes))
    except _NotUsable as exc:
        sys.stdout.write(f"`{shown}` {exc}\n")
        return _NOT_USABLE
    except Exception as exc:  # noqa: BLE001 - HDF5 meets damage with almost any exception
        text = (str(exc).strip().splitlines() or ["no reason given"])[0][:200]
        sys.stdout.write(f"`{shown}` is truncated or damaged: {type(exc).__name__}: {text}. Copy it again.\n")
        return _NOT_USABLE
    np.savez(output, **arrays)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
