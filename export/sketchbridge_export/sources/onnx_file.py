"""Reads ONNX files, which hold a graph of standard operators.

A graph can't run code, but it can be enormous, refer to any file, draw random numbers or never end: such graphs are
refused before a runtime sees them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.inliner
import onnxruntime
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.files import METADATA_KEY, first_line, parse_metadata
from sketchbridge_export.sources.probing import SIZES, Found
from sketchbridge_export.sources.source import ONNX, Layout, ReadyNetwork

_LARGEST_BYTES = 2 * 1024**3 - 16 * 1024**2  # protobuf ends at 2 GiB
_MOST_NODES = 50_000  # a U-Net-256 has 200
_STANDARD = ("", "ai.onnx")
_OLDEST_OPSET, _NEWEST_OPSET = 7, 24
_FORBIDDEN = {
    "Loop": "a loop, which may never end",
    "Scan": "a loop, which may never end",
    "If": "a condition, which can't be compared with the checkpoint both ways",
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
        "chance: it paints another picture each time",
    ),
}
_MOST_SIZES = 64  # values of a tensor that may be a list of sizes
_MOST_VALUES = 2**28  # of one step: 64 channels of 2048 x 2048 pixels, 1 GiB
_SMALLEST, _LARGEST = 16, 2048  # pixels a side
_CHANNELS = (3, 1)
_HOUSE_SIDE = 256
_HOUSE_NAMES = ("sketch", "photo")


def looks_like_onnx(head: bytes) -> bool:
    """Whether a file of this beginning may be one: they have no magic, but all begin with a small version number."""
    return head[:1] == b"\x08" and 0 < head[1] < 0x20


def read_onnx(path: Path, file: IO[bytes], sha256: str, max_bytes: int) -> ReadyNetwork:
    """The network in `file`. Weights beside it, in files of the same folder, are taken in, and count for the digest.

    Raises CheckpointInvalid if it is damaged, holds operators that aren't standard, or isn't one picture in, one out.
    """
    try:
        model = onnx.load_model_from_string(file.read())
    except Exception as exc:
        raise CheckpointInvalid(f"`{path}` is neither a checkpoint nor ONNX, or it is damaged. Copy it again.") from exc
    if not model.HasField("graph") or not model.graph.node:
        raise CheckpointInvalid(f"`{path}` is neither a checkpoint nor ONNX, or it is damaged. Copy it again.")
    sha256 = _take_in_weights(path, model, sha256, max_bytes)
    model = _inlined(path, model)
    opset = _check_operators(path, model)
    _check_tensors(path, model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:
        raise CheckpointInvalid(f"`{path}` is no valid ONNX: {first_line(exc)}.") from exc
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    metadata = parse_metadata(path, text)
    face = _read_face(path, model)
    found = _probe(path, model, face)
    shown = "it shows the house interface already" if face.house else f"its own graph, of opset {opset}, is exported"
    return ReadyNetwork(
        path=path,
        sha256=sha256,
        format=ONNX,
        metadata=metadata,
        notes=(shown,),
        network=model,
        runtime=model,
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=found.native_size,
        layout=face.layout,
        house=face.house,
    )


def _take_in_weights(path: Path, model: ModelProto, sha256: str, max_bytes: int) -> str:
    """Load external data, of plain file names in the model's folder only. Returns the digest of all files together."""
    outside = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    if not outside:
        return sha256
    total, digests, sizes = 0, {path.name: sha256}, {}
    for tensor in outside:
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        place = path.parent / location
        if location != PurePosixPath(location).name or location in ("", ".", "..") or "\\" in location:
            raise CheckpointInvalid(
                f"`{path}` keeps weights in `{location[:80]}`; only files in its own folder are read. Save it as one "
                "file."
            )
        try:
            if location not in sizes:
                if place.is_symlink() or not place.is_file():
                    raise CheckpointInvalid(f"`{path}` keeps weights in `{location[:80]}`, which is not beside it.")
                sizes[location] = place.stat().st_size
                total += sizes[location]
                if total > min(max_bytes, _LARGEST_BYTES):
                    raise CheckpointInvalid(f"The weights of `{path}` have {total:,} bytes and more; that is too many.")
                digests[location] = _digest(place)
            offset, length = int(said.get("offset", "0")), int(said.get("length", sizes[location]))
        except (OSError, ValueError) as exc:
            raise CheckpointInvalid(f"The weights of `{path}` can't be read: {first_line(exc)}.") from exc
        if offset < 0 or length < 0 or offset + length > sizes[location]:
            raise CheckpointInvalid(f"`{tensor.name[:80]}` of `{path}` lies outside of `{location[:80]}`.")
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as exc:
        raise CheckpointInvalid(f"The weights of `{path}` can't be read: {first_line(exc)}.") from exc
    return hashlib.sha256("\n".join(f"{name} {digests[name]}" for name in sorted(digests)).encode()).hexdigest()


def _digest(place: Path) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _inlined(path: Path, model: ModelProto) -> ModelProto:
    if not model.functions:
        return model
    _check_functions(path, model)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as exc:
        raise CheckpointInvalid(f"`{path}` holds functions that can't be resolved: {first_line(exc)}.") from exc


def _check_functions(path: Path, model: ModelProto) -> None:
    """Raise CheckpointInvalid if there would be too many nodes with each function in the place of its calls.

    A function is counted after those it calls; one that has none left to wait for never comes: it calls itself.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    calls = {
        key: [(node.domain, node.op_type) for node in function.node if (node.domain, node.op_type) in functions]
        for key, function in functions.items()
    }
    sizes: dict[tuple[str, str], int] = {}
    waiting = {key: len(called) for key, called in calls.items()}
    callers: dict[tuple[str, str], list[tuple[str, str]]] = {key: [] for key in functions}
    for key, called in calls.items():
        for one in called:
            callers[one].append(key)
    ready = [key for key, count in waiting.items() if count == 0]
    while ready:
        key = ready.pop()
        sizes[key] = len(functions[key].node) + sum(sizes[called] for called in calls[key])
        for caller in callers[key]:
            waiting[caller] -= 1
            if waiting[caller] == 0:
                ready.append(caller)
    if len(sizes) < len(functions):
        raise CheckpointInvalid(f"`{path}` holds a function that calls itself, which never ends.")
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    if total > _MOST_NODES:
        raise CheckpointInvalid(
            f"`{path}` has {_MOST_NODES:,} nodes and more once its functions are put in; that is too many."
        )


def _check_operators(path: Path, model: ModelProto) -> int:
    """The opset's number."""
    opset = int(next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0))
    if not _OLDEST_OPSET <= opset <= _NEWEST_OPSET:
        raise CheckpointInvalid(
            f"`{path}` is of opset {opset}; {_OLDEST_OPSET} to {_NEWEST_OPSET} are taken. Export it again."
        )
    if len(model.graph.node) > _MOST_NODES:
        raise CheckpointInvalid(f"`{path}` has {len(model.graph.node):,} nodes; at most {_MOST_NODES:,} are taken.")
    if model.graph.sparse_initializer:
        raise CheckpointInvalid(f"`{path}` has sparse weights, which are small in the file only. Export dense ones.")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        _check_node(path, constants, node)
    return opset


def _check_node(path: Path, constants: Mapping[str, TensorProto], node: NodeProto) -> None:
    if node.domain not in _STANDARD:
        raise CheckpointInvalid(
            f"`{path}` uses `{node.domain[:60]}::{node.op_type[:60]}`, which is no standard operator. Export it "
            "with standard operators only."
        )
    if node.op_type in _FORBIDDEN:
        raise CheckpointInvalid(f"`{path}` depends on {_FORBIDDEN[node.op_type]} (`{node.op_type}`).")
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise CheckpointInvalid(f"`{path}` uses `{node.op_type[:60]}` with a graph inside, which is not taken.")
    if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute):
        raise CheckpointInvalid(f"`{path}` has sparse weights, which are small in the file only. Export dense ones.")
    if node.op_type == "BatchNormalization" and any(
        attribute.name == "training_mode" and attribute.i for attribute in node.attribute
    ):
        raise CheckpointInvalid(
            f"`{path}` was exported in training mode: its pictures depend on the others of a batch. Export it "
            "after .eval(), or pass the checkpoint that it was made from."
        )
    if (
        node.op_type == "Dropout"
        and len(node.input) > 2
        and node.input[2]
        and not _is_false(constants.get(node.input[2]))
    ):
        raise CheckpointInvalid(f"`{path}` was exported with dropout on: it paints another picture each time.")


def _is_false(tensor: TensorProto | None) -> bool:
    return tensor is not None and not numpy_helper.to_array(tensor).any()


def _check_tensors(path: Path, model: ModelProto) -> None:
    for tensor in _tensors(model):
        shown = f"`{tensor.name[:80]}` in `{path}`"
        if any(axis < 0 for axis in tensor.dims) or math.prod(tensor.dims) > _LARGEST_BYTES:
            raise CheckpointInvalid(f"{shown} claims {math.prod(tensor.dims):,} values.")
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as exc:
            raise CheckpointInvalid(f"{shown} is damaged: {first_line(exc)}. Copy it again.") from exc
        if values.dtype.kind == "f" and not np.isfinite(values).all() and values.size > 1:
            raise CheckpointInvalid(f"{shown} holds NaN or infinity: its training diverged.")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that loading external data would look at, those in functions and graphs inside nodes included."""
    parts: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while parts:
        part = parts.pop()
        if isinstance(part, GraphProto):
            yield from part.initializer
        for attribute in (attribute for node in part.node for attribute in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                parts.append(attribute.g)
            parts.extend(attribute.graphs)


@dataclass(frozen=True)
class _Face:
    """What a graph says of its picture: how it lies in memory, and what is fixed; empty where it is left open."""

    name: str
    layout: Layout
    channels: tuple[int, ...]
    sizes: tuple[int, ...]
    house: bool


def _read_face(path: Path, model: ModelProto) -> _Face:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointInvalid(
            f"The network in `{path}` takes {len(inputs)} tensors and gives {len(outputs)}; a generator takes and "
            "gives one."
        )
    axes = inputs[0].type.tensor_type.shape.dim
    shape = [axis.dim_value if axis.HasField("dim_value") else None for axis in axes]
    name = inputs[0].name
    if len(shape) != 4:
        raise CheckpointInvalid(f"The network in `{path}` takes {len(shape)} axes; a generator takes (N, C, H, W).")
    kinds = [value.type.tensor_type.elem_type for value in (inputs[0], outputs[0])]
    as_house = kinds == [TensorProto.UINT8] * 2 and (name, outputs[0].name) == _HOUSE_NAMES
    if as_house and shape[1:] == [_HOUSE_SIDE, _HOUSE_SIDE, 3]:
        return _Face(name, "nhwc", (3,), (_HOUSE_SIDE,), house=True)
    if kinds != [TensorProto.FLOAT] * 2:
        taken, given = (TensorProto.DataType.Name(kind) for kind in kinds)
        raise CheckpointInvalid(
            f"The network in `{path}` turns {taken} {tuple(shape)} into {given}; expected FLOAT both times, or uint8 "
            "`sketch` (batch, 256, 256, 3) into `photo`. Export it in float32."
        )
    layout: Layout = "nhwc" if shape[3] in _CHANNELS and shape[1] not in _CHANNELS else "nchw"
    channels, sides = (shape[3], shape[1:3]) if layout == "nhwc" else (shape[1], shape[2:])
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1 or any(not _SMALLEST <= side <= _LARGEST for side in fixed):
        raise CheckpointInvalid(
            f"The network in `{path}` takes {tuple(shape)}; only squares of {_SMALLEST} to {_LARGEST} pixels are taken."
        )
    if channels not in (None, *_CHANNELS):
        raise CheckpointInvalid(f"The network in `{path}` takes {channels} channels; a generator takes 1 or 3.")
    return _Face(name, layout, () if channels is None else (channels,), tuple(fixed), house=False)


def _probe(path: Path, model: ModelProto, face: _Face) -> Found:
    """Paint a black picture of each possible size until one works."""
    session = None
    axis = 3 if face.layout == "nhwc" else 1
    why = ""
    for size in face.sizes or SIZES:
        for count in face.channels or _CHANNELS:
            shape = (1, size, size, count) if face.layout == "nhwc" else (1, count, size, size)
            _check_sizes(path, model, face.name, shape)
            session = session or start(path, model)  # which computes all that is constant
            try:
                painted = session.run(None, {face.name: np.zeros(shape, np.uint8 if face.house else np.float32)})[0]
            except Exception as exc:  # noqa: BLE001 - the runtime's errors have no common base
                why = why or first_line(exc)
                continue
            if painted.ndim != 4 or painted.shape[0] != 1 or painted.shape[axis] not in _CHANNELS:
                raise CheckpointInvalid(
                    f"The network in `{path}` turns {shape} into {painted.shape}; a generator paints a picture of 1 or "
                    "3 channels."
                )
            if not np.isfinite(painted).all():
                raise CheckpointInvalid(f"The network in `{path}` paints NaN or infinity: its training diverged.")
            return Found(count, int(painted.shape[axis]), size)
    raise CheckpointInvalid(f"The network in `{path}` can't be run: {why}.")


def _check_sizes(path: Path, model: ModelProto, picture: str, shape: tuple[int, ...]) -> None:
    """Raise CheckpointInvalid if a step makes more values of a picture of this shape than any generator would.

    Sizes are inferred without computing anything; what can't be is left to the runtime.
    """
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "sizes"
    light.graph.node.extend(model.graph.node)
    light.graph.input.append(onnx.helper.make_tensor_value_info(picture, _element_type(model, picture), shape))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _MOST_SIZES:
            light.graph.initializer.append(tensor)
        else:  # its values are not needed
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception as exc:
        raise CheckpointInvalid(f"`{path}` is no valid ONNX: {first_line(exc)}.") from exc
    for value in inferred.value_info:
        values = math.prod(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)
        if values > _MOST_VALUES:
            raise CheckpointInvalid(
                f"`{path}` makes {values:.2g} values in one step; at most {_MOST_VALUES:,} are taken."
            )


def _element_type(model: ModelProto, name: str) -> int:
    return next(int(value.type.tensor_type.elem_type) for value in model.graph.input if value.name == name)


def start(path: Path, model: ModelProto) -> onnxruntime.InferenceSession:
    """The model in ONNX Runtime, on the CPU. Raises CheckpointInvalid if it doesn't take it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise CheckpointInvalid(f"ONNX Runtime does not take `{path}`: {first_line(exc)}.") from exc
