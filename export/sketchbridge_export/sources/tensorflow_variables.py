"""Run by itself, never imported: copies the variables of a TensorFlow checkpoint into a NumPy archive.

    python tensorflow_variables.py SHOWN PREFIX MAX_BYTES OUTPUT

TensorFlow takes seconds to import, writes to stderr, and may end the process on damaged files, so it runs in a process
of its own. Only its checkpoint reader is used: the graph beside the variables is never loaded. SHOWN is the folder's
name in messages. OUTPUT gets the arrays `0`, `1`, ... in the order of the layers, and `names`. Exit status 0; 3 with a
sentence on stdout if there is nothing to copy; any other if TensorFlow failed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What Keras 2 and 3 call the list of a model's layers. The first that is there is followed.
_LAYER_LISTS = ("_operations", "_layers", "_functional")
_GENERATORS = ("generator", "generator_g", "g_model", "netG", "gen", "G", "model")
_VARIABLES = (
    "kernel", "depthwise_kernel", "pointwise_kernel", "bias",
    "gamma", "beta", "moving_mean", "moving_variance", "alpha",
)  # fmt: skip
_MOST_NODES = 200_000
_NOT_USABLE = 3


class _NotUsable(Exception):
    """Nothing to copy, and why."""


def _number(name: str) -> int:
    digits = re.search(r"(\d{1,9})$", name)
    return int(digits[1]) if digits else 0


def _children(node: Any) -> dict[str, int]:
    return {child.local_name: child.node_id for child in node.children}


def _walk(nodes: Any, start: int) -> Iterator[tuple[str, str]]:
    """(name, checkpoint key) of each variable, layer by layer. No node is visited twice, so a cycle ends."""
    seen: set[int] = set()
    waiting = [("", start)]
    while waiting:
        path, index = waiting.pop()
        if index in seen or not 0 <= index < len(nodes):
            continue
        seen.add(index)
        node = nodes[index]
        for attribute in node.attributes:
            if attribute.name == "VARIABLE_VALUE":
                yield path, attribute.checkpoint_key
        below = _children(node)
        waiting.extend(reversed([(f"{path}/{name}" if path else name, below[name]) for name in _next(below)]))


def _next(below: dict[str, int]) -> list[str]:
    """The children to follow, in order: layers where there are some, else variables."""
    layers = sorted((name for name in below if name.startswith("layer_with_weights-")), key=_number)
    if layers:
        return layers
    lists = [name for name in _LAYER_LISTS if name in below]
    if lists:
        return lists[:1]
    numbered = sorted((name for name in below if name.isdigit()), key=_number)
    own = {name.lstrip("_"): name for name in sorted(below, reverse=True)}  # `_kernel` and `kernel` are one
    return [*numbered, *(own[name] for name in _VARIABLES if name in own)]


def _list_variables(graph: Any) -> list[tuple[str, str]]:
    nodes = graph.nodes
    if not 0 < len(nodes) <= _MOST_NODES:
        raise _NotUsable("its list of objects is empty, or too long")
    top = _children(nodes[0])
    inside = next((name for name in _GENERATORS if name in top), None)
    if inside is not None:
        return list(_walk(nodes, top[inside]))
    if any(name.startswith("layer_with_weights-") or name in _LAYER_LISTS for name in top):
        return list(_walk(nodes, 0))
    if "variables" in top:  # written by `model.export`, which keeps the variables' full names
        listed = _children(nodes[top["variables"]])
        found = []
        for name in sorted((name for name in listed if name.isdigit()), key=_number):
            node = nodes[listed[name]] if 0 <= listed[name] < len(nodes) else None
            attributes = node.attributes if node is not None else ()
            found += [(f"{name}/{attribute.full_name}", attribute.checkpoint_key) for attribute in attributes]
        return found
    raise _NotUsable("it holds no model of Keras: its objects are " + ", ".join(sorted(top)[:8]))


def copy(prefix: str, output: str, max_bytes: int) -> None:
    """Copy the variables of the model in the checkpoint `prefix`.index into the archive `output`."""
    import numpy as np  # noqa: PLC0415 - this file's own folder must be off the path first
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.core.protobuf import trackable_object_graph_pb2  # noqa: PLC0415

    reader = tf.train.load_checkpoint(prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    if _GRAPH not in shapes:
        raise _NotUsable("it was written by TensorFlow 1, which does not store how its variables belong together")
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_GRAPH))
    found = [pair for pair in _list_variables(graph) if "seed_generator" not in pair[0]]
    if not found:
        raise _NotUsable("it holds no variables of layers")
    claimed_bytes = 0
    for _, key in found:
        if key not in shapes or not types[key].is_floating:
            raise _NotUsable(f"its variable {key[:100]!r} is missing, or holds no floating-point numbers")
        claimed_bytes += int(np.prod(shapes[key], dtype=np.float64)) * types[key].size
    if claimed_bytes > max_bytes:
        raise _NotUsable(f"its variables claim {claimed_bytes:,} bytes; at most {max_bytes:,} are taken")
    arrays = {str(index): np.asarray(reader.get_tensor(key), np.float32) for index, (_, key) in enumerate(found)}
    np.savez(output, names=np.array([name for name, _ in found]), **arrays)


def main(arguments: list[str]) -> int:
    """The command; see the module."""
    sys.path.pop(0)  # this file's folder, whose modules must not stand in for others of the same name
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    shown, prefix, max_bytes, output = arguments
    try:
        copy(prefix, output, int(max_bytes))
    except _NotUsable as exc:
        sys.stdout.write(f"`{shown}` can't be used: {exc}.\n")
        return _NOT_USABLE
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
