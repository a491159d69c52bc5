"""Reads what torch.export.save wrote: the graph from its JSON, the weights from their bytes.

torch.export.load is not used on a file that nobody has vouched for: it unpickles whatever calls itself a constant,
evaluates sizes as expressions, and looks operators up anywhere in torch. Here the graph is rebuilt from operators on
the list, and everything else is refused.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.files import METADATA_KEY, first_line, parse_metadata, read_entry
from sketchbridge_export.sources.graph_network import NUMBERS, GraphNetwork, Step, Value, aten_operator
from sketchbridge_export.sources.probing import OWN_GRAPH, Probe, choose_reading, probe, take_state_dict
from sketchbridge_export.sources.source import EXPORTED_PROGRAM, Checkpoint, ReadyNetwork

_MODEL = "models/model.json"
_OLD_MODEL = "serialized_exported_program.json"
_LARGEST_GRAPH_BYTES = 128 * 1024**2  # a U-Net-256 with its stack traces has 300 kB
# As numbered by torch._export.serde.schema: ScalarType, MemoryFormat, Layout.
_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_STRIDED = 7
_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range",
           "sym_constrain_range_for_size", "_functional_assert_scalar")  # fmt: skip


def is_exported_program(names: Mapping[str, zipfile.ZipInfo]) -> bool:
    """Whether an archive of these entries is one, of this PyTorch or an older one."""
    return _OLD_MODEL in names or "archive_format" in names or any(name.startswith("models/") for name in names)


def read_exported_program(
    path: Path, file: IO[bytes], sha256: str, names: Mapping[str, zipfile.ZipInfo], *, weights_first: bool
) -> Checkpoint | ReadyNetwork:
    """The network in `file`: its own graph, or, with `weights_first`, rebuilt by the family that knows its weights.

    The second is also done where the first is impossible. Raises CheckpointInvalid if it is damaged, compiled, or holds
    more than weights and operators on the list.
    """
    if _OLD_MODEL in names:
        raise CheckpointInvalid(
            f"`{path}` was written by an older PyTorch. Save it again with torch.export.save of 2.9."
        )
    if any(name.startswith("data/aotinductor/") for name in names):
        raise CheckpointInvalid(f"`{path}` holds compiled code, which is not run. Save it with torch.export.save.")
    if _MODEL not in names:
        raise CheckpointInvalid(f"`{path}` holds no graph: `{_MODEL}` is missing. Save it with torch.export.save.")
    if names[_MODEL].file_size > _LARGEST_GRAPH_BYTES:
        raise CheckpointInvalid(f"`{path}` has a graph of {names[_MODEL].file_size:,} bytes; that is no generator's.")
    with zipfile.ZipFile(file) as archive:
        try:
            program = json.loads(read_entry(path, archive, names[_MODEL]))
            weights = _read_tensors(path, archive, names, "data/weights", "model_weights_config.json")
            constants = _read_tensors(path, archive, names, "data/constants", "model_constants_config.json")
            extra = names.get(f"extra/{METADATA_KEY}")
            metadata = parse_metadata(path, None if extra is None else read_entry(path, archive, extra).decode())
        except CheckpointInvalid:
            raise
        except Exception as exc:  # a damaged description fails in any way
            raise _damaged(path, exc) from exc
    return choose_reading(
        lambda: _own_graph(path, sha256, metadata, program, {**weights, **constants}),
        lambda note: take_state_dict(path, sha256, weights, metadata, EXPORTED_PROGRAM, note),
        weights_first=weights_first,
    )


def _damaged(path: Path, exc: Exception) -> CheckpointInvalid:
    reason = f"{type(exc).__name__}: {first_line(exc)}"
    return CheckpointInvalid(f"`{path}` is damaged, or written by another PyTorch: {reason}.")


def _own_graph(
    path: Path, sha256: str, metadata: Mapping[str, Any], program: Any, tensors: dict[str, torch.Tensor]
) -> ReadyNetwork:
    try:
        network, shape = _rebuild(program, tensors)
    except CheckpointInvalid:
        raise
    except Exception as exc:  # as above
        raise _damaged(path, exc) from exc
    found = probe(path, network, _choose(shape))
    return ReadyNetwork(
        path=path,
        sha256=sha256,
        format=EXPORTED_PROGRAM,
        metadata=metadata,
        notes=(OWN_GRAPH,),
        network=network,
        runtime=network,
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=found.native_size,
    )


def _read_tensors(
    path: Path, archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo], folder: str, config: str
) -> dict[str, torch.Tensor]:
    described = names.get(f"{folder}/{config}")
    if described is None:
        raise CheckpointInvalid(f"`{path}` is damaged: `{folder}/{config}` is missing. Copy it again.")
    tensors = {}
    for name, entry in json.loads(read_entry(path, archive, described))["config"].items():
        content = names.get(f"{folder}/{entry['path_name']}")
        if content is None or not entry["path_name"].startswith(("weight_", "tensor_")):
            raise CheckpointInvalid(
                f"`{path}` holds an object, `{name[:80]}`, that is no tensor; objects can run code when loaded, so the "
                "file was not run."
            )
        data = read_entry(path, archive, content)
        if entry["use_pickle"]:
            tensors[name] = _unpickled(path, name, data)
        else:
            tensors[name] = _as_described(path, name, data, entry["tensor_meta"])
    return tensors


def _unpickled(path: Path, name: str, data: bytes) -> torch.Tensor:
    try:
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as exc:
        raise CheckpointInvalid(f"`{name[:80]}` in `{path}` is damaged, or no plain tensor. It was not run.") from exc
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointInvalid(f"`{name[:80]}` in `{path}` is no tensor.")
    return tensor


def _as_described(path: Path, name: str, data: bytes, described: Mapping[str, Any]) -> torch.Tensor:
    dtype = _TYPES[described["dtype"]]
    sizes, strides = ([int(axis["as_int"]) for axis in described[key]] for key in ("sizes", "strides"))
    offset = int(described["storage_offset"]["as_int"])
    if min([offset, *sizes, *strides], default=0) < 0 or described["layout"] != _STRIDED:
        raise CheckpointInvalid(f"`{name[:80]}` in `{path}` is not a plain tensor of numbers.")
    if 0 in sizes:
        return torch.zeros(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(data) or math.prod(sizes) * dtype.itemsize > len(data):
        raise CheckpointInvalid(f"`{name[:80]}` in `{path}` claims {tuple(sizes)} values but stores fewer.")
    values = torch.frombuffer(bytearray(data[: len(data) // dtype.itemsize * dtype.itemsize]), dtype=dtype)
    return values.as_strided(sizes, strides, offset).clone()


def _rebuild(program: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> tuple[GraphNetwork, list[int | None]]:
    """The network, and the shape of the picture it takes; None where the graph leaves an axis open."""
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    constants, pictures = {}, []
    for spec in signature["input_specs"]:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            pictures.append(content["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            constants[content["arg"]["name"]] = tensors[content[f"{kind}_name"]].contiguous()
        else:
            raise CheckpointInvalid(f"The network takes a {kind[:40]!r}; expected weights and one picture.")
    results = []
    for spec in signature["output_specs"]:
        ((kind, content),) = spec.items()
        if kind == "buffer_mutation":
            raise CheckpointInvalid(
                "The network was exported in training mode: it changes its own statistics. Call .eval() on it and "
                "export it again."
            )
        if kind != "user_output":
            raise CheckpointInvalid(f"The network gives a {kind[:40]!r}; expected one picture.")
        results.append(content["arg"]["as_tensor"]["name"])
    if len(pictures) != 1 or len(results) != 1:
        raise CheckpointInvalid(
            f"The network takes {len(pictures)} tensors and gives {len(results)}; a generator takes and gives one."
        )
    steps = [step for node in graph["nodes"] for step in _read_step(node)]
    shape = [axis.get("as_int") for axis in graph["tensor_values"][pictures[0]]["sizes"]]
    return GraphNetwork(steps, constants, entry=pictures[0], end=results[0]), shape


def _read_step(node: Mapping[str, Any]) -> list[Step]:
    target = node["target"]
    arguments = {argument["name"]: _read_argument(argument["arg"]) for argument in node["inputs"]}
    results, unpacked = _read_results(node["outputs"])
    words = target.split(".")
    if words[0] == "_operator" and len(words) == 2 and words[1] in NUMBERS:
        return [Step(NUMBERS[words[1]], tuple(arguments.values()), {}, results, unpacked)]
    if words[:3] == ["torch", "ops", "aten"] and len(words) == 5:
        if words[3] in _CHECKS:
            return []
        return [Step(aten_operator(words[3], words[4]), (), arguments, results, unpacked, name=words[3])]
    raise CheckpointInvalid(
        f"The network uses `{target[:80]}`, which is not among the operators that are let through. Pass its state_dict "
        "if it is of a known family."
    )


def _read_results(outputs: list[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        return tuple(tensor["name"] for tensor in outputs[0]["as_tensors"]), True
    names = []
    for index, output in enumerate(outputs):
        ((kind, content),) = output.items()
        if kind == "as_tensor":
            names.append(content["name"])
        elif kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
            names.append(content["as_name"])
        else:
            names.append(f"unused {index}")
    return tuple(names), len(names) > 1


def _read_argument(argument: Mapping[str, Any]) -> Any:
    ((kind, content),) = argument.items()
    read = _ARGUMENTS.get(kind)
    if read is None:
        raise CheckpointInvalid(f"The network's graph holds a {kind[:40]!r}, which no generator needs.")
    return read(content)


def _read_symbol(symbol: Mapping[str, Any]) -> Any:
    ((kind, content),) = symbol.items()
    return Value(content) if kind == "as_name" else content


def _choose(shape: list[int | None]) -> Probe:
    if len(shape) != 4:
        raise CheckpointInvalid(f"The network takes {len(shape)} axes; a generator takes (N, C, H, W).")
    if shape[2] != shape[3]:
        raise CheckpointInvalid(f"The network takes pictures of {shape[2]} x {shape[3]}; only squares are taken.")
    return Probe(channels=shape[1], size=shape[2])


_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    **{f"as_{kind}": lambda content: content for kind in ("int", "ints", "float", "floats", "bool", "bools", "string")},
    "as_tensor": lambda content: Value(content["name"]),
    "as_tensors": lambda content: [Value(tensor["name"]) for tensor in content],
    "as_optional_tensors": lambda content: [_read_argument(tensor) for tensor in content],
    **dict.fromkeys(("as_sym_int", "as_sym_bool", "as_sym_float"), _read_symbol),
    **dict.fromkeys(("as_sym_ints", "as_sym_bools", "as_sym_floats"), lambda content: list(map(_read_symbol, content))),
    "as_scalar_type": lambda content: _TYPES[content],
    "as_memory_format": lambda content: _MEMORY_FORMATS[content],
    "as_device": lambda _: torch.device("cpu"),
    "as_layout": lambda content: {_STRIDED: torch.strided}[content],
}
