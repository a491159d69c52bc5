"""Gives a network that comes with its own graph the face of the house, and paints with it in its own runtime.

The exported graph is put together here; the reference goes through GeneratorInterface, picture by picture. The two
share no code for the interface of an ONNX network, so that a slip in one shows as a difference.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from sketchbridge_export.artefacts.half_precision import replace_nodes
from sketchbridge_export.artefacts.onnx import OPSET, write_onnx
from sketchbridge_export.errors import CheckpointInvalid, FamilyUnknown, RepositoryError
from sketchbridge_export.families import Convention, Generator, ValueRange
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME, GeneratorInterface
from sketchbridge_export.parity import Pictures
from sketchbridge_export.sources.files import first_line
from sketchbridge_export.sources.onnx_file import start
from sketchbridge_export.sources.source import ReadyNetwork
from sketchbridge_preprocess import INTERFACE_SIDE_PX

_PREFIX = "network/"
_BATCHES = (2, 5)
_LUMA = (19595.0, 38470.0, 7471.0)  # BT.601 in 1/65536, as in GeneratorInterface


def write_interface_onnx(ready: ReadyNetwork, convention: Convention, target: Path) -> None:
    """Write the network to `target` with the house interface around it: uint8 `sketch` -> `photo`, any batch size.

    convention: what the network was trained with; nothing in its file says so. It is not asked of a network that shows
    the house interface already. Raises CheckpointInvalid if the graph can't be exported, can't take several pictures at
    once, or lets them influence each other; RepositoryError if `target` can't be written.
    """
    if isinstance(ready.network, ModelProto):
        model = _open_batch(ready.path, ready.network)
        if not ready.house:
            model = _compose(ready, model, convention)
        _save(ready.path, model, target)
    else:
        try:
            with _hushed():
                write_onnx(GeneratorInterface(_generator(ready, ready.network), convention).eval(), target)
        except (CheckpointInvalid, FamilyUnknown, RepositoryError):
            raise
        except Exception as exc:
            raise CheckpointInvalid(
                f"The network in `{ready.path}` can't be exported for any number of pictures: {_reason(exc)}. Export "
                "it again with a dynamic batch, or with torch.onnx.export where its code is."
            ) from exc
    _check_company(ready.path, target)


def paint_reference(ready: ReadyNetwork, convention: Convention, pictures: Pictures) -> Pictures:
    """What the network paints in the runtime of its own format, every picture alone: the reference of its artefacts.

    pictures: (P, 256, 256, 3) uint8 RGB, and so is the result; not modified.
    """
    painted: list[NDArray[np.uint8]]
    if ready.house and isinstance(ready.runtime, ModelProto):
        session = start(ready.path, ready.runtime)
        painted = [np.asarray(session.run(None, {INPUT_NAME: picture[None]})[0]) for picture in pictures]
        return np.concatenate(painted)
    module = _OnnxNetwork(ready) if isinstance(ready.runtime, ModelProto) else ready.runtime
    interface = GeneratorInterface(_generator(ready, module), convention)
    with torch.inference_mode():
        painted = [interface(torch.from_numpy(picture[None].copy())).numpy() for picture in pictures]
    return np.concatenate(painted)


class _OnnxNetwork(nn.Module):
    """An ONNX model in ONNX Runtime as a module of (1, C, H, W) tensors."""

    def __init__(self, ready: ReadyNetwork) -> None:
        super().__init__()
        assert isinstance(ready.runtime, ModelProto)  # noqa: S101 - the caller has looked
        self.session = start(ready.path, ready.runtime)
        self.name = self.session.get_inputs()[0].name
        self.channels_last = ready.layout == "nhwc"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) float32 -> (1, C', H', W') float32."""
        picture = (x.permute(0, 2, 3, 1) if self.channels_last else x).contiguous()
        painted = torch.from_numpy(self.session.run(None, {self.name: picture.numpy()})[0])
        return painted.permute(0, 3, 1, 2) if self.channels_last else painted


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """What torch logs and prints while it fails is said again in the refusal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _reason(exc: BaseException) -> str:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return f"{type(exc).__name__}: {first_line(exc)}"


def _generator(ready: ReadyNetwork, module: nn.Module) -> Generator:
    return Generator(
        module=module,
        input_channels=ready.input_channels,
        output_channels=ready.output_channels,
        native_size=ready.native_size,
        norm="as exported",
        facts={},
    )


def _open_batch(path: Path, model: ModelProto) -> ModelProto:
    """A copy in an opset that has all that is needed, whose first axis is any number of pictures."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as exc:
            raise CheckpointInvalid(
                f"`{path}` is of opset {opset} and can't be converted to {OPSET}: {first_line(exc)}. Export it again "
                f"with opset {OPSET}."
            ) from exc
    opened = ModelProto()
    opened.CopyFrom(model)
    graph = opened.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    if batch.HasField("dim_value"):
        if batch.dim_value != 1:
            raise CheckpointInvalid(
                f"`{path}` takes {batch.dim_value} pictures at once. Export it with a dynamic batch, or for one."
            )
        _open_constants(graph)
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for axis in graph.output[0].type.tensor_type.shape.dim[1:]:
        axis.ClearField("value")  # inferred again
    del graph.value_info[:]
    return opened


def _open_constants(graph: GraphProto) -> None:
    """Make reshapes and resizes follow the number of pictures where it was written into them as 1."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    nodes: list[NodeProto] = []
    for index, node in enumerate(graph.node):
        position = {"Reshape": 1, "Resize": 3}.get(node.op_type, len(node.input))
        tensor = constants.get(node.input[position]) if position < len(node.input) else None
        values = [] if tensor is None else [int(value) for value in numpy_helper.to_array(tensor)]
        name = f"{_PREFIX}open_{index}"
        if len(values) < 3 or values[0] != 1 or any(attribute.name == "axes" for attribute in node.attribute):
            nodes.append(node)
            continue
        if node.op_type == "Reshape":
            values[0] = 0 if -1 in values else -1
            graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        else:
            sides = numpy_helper.from_array(np.array(values[2:], np.int64), f"{name}_sides")
            graph.initializer.append(sides)
            nodes += _sizes_of(node.input[0], sides.name, name)
        node.input[position] = name
        nodes.append(node)
    replace_nodes(graph, nodes)


def _sizes_of(value: str, sides: str, name: str) -> list[NodeProto]:
    """Nodes that make `name`: the pictures and channels of `value`, and other sides.

    A Resize of two axes alone would say the same, but TensorRT does not take it for any number of pictures.
    """
    return [
        helper.make_node("Shape", [value], [f"{name}_kept"], start=0, end=2),
        helper.make_node("Concat", [f"{name}_kept", sides], [name], axis=0),
    ]


class _Builder:
    """Nodes in a row, each fed by the one before; constants become initializers."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, kind: str, *others: NDArray[np.generic], **attributes: Any) -> None:
        """Append an operator that takes the last result and `others`."""
        result = f"{self.name}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.value, *map(self._constant, others)], [result], **attributes))
        self.value = result

    def reverse_channels(self) -> None:
        self.add("Gather", np.array([2, 1, 0], np.int64), axis=1)

    def resize(self, side: int) -> None:
        result = f"{self.name}_{len(self.nodes)}"
        self.nodes += _sizes_of(self.value, self._constant(np.array([side, side], np.int64)), f"{result}_sizes")
        self.nodes.append(
            helper.make_node(
                "Resize",
                [self.value, "", "", f"{result}_sizes"],
                [result],
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        )
        self.value = result

    def _constant(self, values: NDArray[np.generic]) -> str:
        name = f"{self.name}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def _compose(ready: ReadyNetwork, model: ModelProto, convention: Convention) -> ModelProto:
    """Front, network and back as one graph."""
    painted = start(ready.path, model).run(None, {model.graph.input[0].name: _gray(ready)})[0]
    painted_sides = painted.shape[1:3] if ready.layout == "nhwc" else painted.shape[2:]
    network = onnx.compose.add_prefix(model, _PREFIX).graph
    front = _front(ready, convention)
    front.nodes[-1].output[0] = network.input[0].name
    back = _back(ready, convention, network.output[0].name, resized=tuple(painted_sides) != (INTERFACE_SIDE_PX,) * 2)
    back.nodes[-1].output[0] = OUTPUT_NAME
    shape: list[str | int | None] = ["batch", INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3]
    graph = helper.make_graph(
        [*front.nodes, *network.node, *back.nodes],
        "generator",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, shape)],
        [*front.constants, *network.initializer, *back.constants],
    )
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=max(model.ir_version, 8))


def _gray(ready: ReadyNetwork) -> NDArray[np.float32]:
    side, channels = ready.native_size, ready.input_channels
    return np.zeros((1, side, side, channels) if ready.layout == "nhwc" else (1, channels, side, side), np.float32)


def _front(ready: ReadyNetwork, convention: Convention) -> _Builder:
    """uint8 `sketch` to what the network takes."""
    front = _Builder("front", INPUT_NAME)
    front.add("Cast", to=TensorProto.FLOAT)
    front.add("Transpose", perm=[0, 3, 1, 2])
    if ready.input_channels == 1:
        # Sums below 2 ** 24 are exact. It is no convolution: those are computed in fewer bits if that is asked for.
        front.add("Mul", np.array(_LUMA, np.float32).reshape(1, 3, 1, 1))
        front.add("ReduceSum", np.array([1], np.int64), keepdims=1)
        front.add("Add", np.array(32768.0, np.float32))
        front.add("Div", np.array(65536.0, np.float32))
        front.add("Floor")
    elif convention.channel_order == "bgr":
        front.reverse_channels()
    low, high = _bounds(convention.input_range, ready.input_channels)
    if convention.line_polarity == "light-on-dark":
        low, high = high, low  # white gets black's value
    front.add("Mul", ((high - low) / 255).astype(np.float32))
    front.add("Add", low.astype(np.float32))
    if ready.native_size != INTERFACE_SIDE_PX:
        front.resize(ready.native_size)
    if ready.layout == "nhwc":
        front.add("Transpose", perm=[0, 2, 3, 1])
    return front


def _back(ready: ReadyNetwork, convention: Convention, value: str, *, resized: bool) -> _Builder:
    """What the network gives to uint8 `photo`."""
    back = _Builder("back", value)
    if ready.layout == "nhwc":
        back.add("Transpose", perm=[0, 3, 1, 2])
    if resized:
        back.resize(INTERFACE_SIDE_PX)
    low, high = _bounds(convention.output_range, ready.output_channels)
    back.add("Sub", low.astype(np.float32))
    back.add("Mul", (255 / (high - low)).astype(np.float32))
    back.add("Round")
    back.add("Clip", np.array(0.0, np.float32), np.array(255.0, np.float32))
    if ready.output_channels == 1:
        back.add("Tile", np.array([1, 3, 1, 1], np.int64))
    elif convention.channel_order == "bgr":
        back.reverse_channels()
    back.add("Cast", to=TensorProto.UINT8)
    back.add("Transpose", perm=[0, 2, 3, 1])
    return back


def _bounds(values: ValueRange, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Black's and white's values: scalars, or (1, 3, 1, 1) where channels differ."""
    low, high = np.asarray(values.low, np.float64), np.asarray(values.high, np.float64)
    if low.ndim == high.ndim == 0:
        return low, high
    if channels == 1:
        raise FamilyUnknown("The value range differs from channel to channel, but the network has only one channel.")
    return np.broadcast_to(low, 3).reshape(1, 3, 1, 1), np.broadcast_to(high, 3).reshape(1, 3, 1, 1)


def _save(path: Path, model: ModelProto, target: Path) -> None:
    _prune(model.graph)
    model.doc_string = ""
    del model.metadata_props[:]
    names: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.doc_string = ""
        del node.metadata_props[:]
        if not node.name or node.name in names:  # quantisation and messages go by names
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:
        raise CheckpointInvalid(
            f"The network in `{path}` can't take several pictures at once: {first_line(exc)}. Export it with a dynamic "
            "batch."
        ) from exc
    try:
        onnx.save_model(model, target)
    except OSError as exc:
        raise RepositoryError(f"`{target}` can't be written: {exc.strerror}.") from exc


def _prune(graph: GraphProto) -> None:
    """Remove constants that nothing takes any more."""
    taken = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    weights = [tensor for tensor in graph.initializer if tensor.name in taken]
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in taken]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(weights)
    graph.node.extend(nodes)


def _check_company(path: Path, target: Path) -> None:
    """Raise CheckpointInvalid unless pictures come out of a batch as they come out alone, but for rounding."""
    session = start(path, onnx.load_model(target))
    side = INTERFACE_SIDE_PX
    pictures = np.random.default_rng(0).integers(0, 256, (max(_BATCHES), side, side, 3), np.uint8)
    pictures[0] //= 8  # a dark one among them, so that shared statistics show
    try:
        alone = np.concatenate([session.run(None, {INPUT_NAME: picture[None]})[0] for picture in pictures])
        together = [session.run(None, {INPUT_NAME: pictures[:batch]})[0] for batch in _BATCHES]
    except Exception as exc:
        raise CheckpointInvalid(
            f"The network in `{path}` can't take several pictures at once: {first_line(exc)}. Export it with a dynamic "
            "batch."
        ) from exc
    for batch, painted in zip(_BATCHES, together, strict=True):
        if painted.shape != alone[:batch].shape or np.abs(painted.astype(int) - alone[:batch].astype(int)).max() > 1:
            raise CheckpointInvalid(
                f"The network in `{path}` lets the pictures of a batch influence each other, so callers would get each "
                "other's colours. Export it with fixed statistics, or pass the checkpoint that it was made from."
            )
