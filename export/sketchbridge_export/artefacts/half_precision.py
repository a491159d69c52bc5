"""A generator's ONNX graph with its network in float16, for runtimes that compute what the graph says.

TensorRT 11 builds strongly typed networks only: it has no FP16 switch, so the types are put into the graph. What lies
between the first and the last convolution is the network. Its convolutions and the operators that only move or bend
values run in float16; statistics of normalisations and everything not known here stay in float32, and so does the
interface before and after the network, whose sums reach 2**24 where float16 ends at 65504. Casts are put where the two
meet, one a tensor and direction.

There is no bfloat16: ONNX has such convolutions from opset 22 on, and no runtime here could compare them on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sketchbridge_export.errors import OptionInvalid

CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))
# They surround quantised convolutions, and are part of them.
_QUANTISERS = frozenset(("QuantizeLinear", "DequantizeLinear"))
# Each either multiplies and adds up in the accelerator's float32, or changes one value at a time, or only moves values.
_HALVED = (CONVOLUTIONS | _QUANTISERS).union(
    ("Add", "Clip", "Concat", "DepthToSpace", "Elu", "Gemm", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "PRelu"),
    ("Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Tanh", "Transpose", "Unsqueeze"),
)
_LARGEST_FP16 = 65504.0


def half_precision_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` (as `write_onnx` or `quantised_graph` makes it) that computes its network in float16.

    Names, types and shapes of its input and output stay. ONNX Runtime runs it on the CPU too, but computes in float32
    there and rounds to float16 only where it stores a tensor, so a GPU may differ a little more.
    Raises OptionInvalid if a weight is too large for float16, if there is no convolution, or for control flow.
    """
    refuse_control_flow(model)
    model = plain_weights(model)
    types = _element_types(model)
    inside = network_nodes(model.graph.node)
    graph = _Halver(model.graph.initializer, types)
    for index, node in enumerate(model.graph.node):
        graph.add(node, halve=index in inside and node.op_type in _HALVED)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.used_initializers())
    onnx.checker.check_model(model, full_check=True)
    return model


def plain_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which weights that are stored as float16 with a Cast behind each are float32 again."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    nodes = []
    for node in copy.graph.node:
        to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
        if node.op_type == "Cast" and node.input[0] in stored and to == TensorProto.FLOAT:
            tensor = stored[node.input[0]]
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    replace_nodes(copy.graph, nodes)
    return copy


def refuse_control_flow(model: onnx.ModelProto) -> None:
    """Raise OptionInvalid if a node has graphs inside, whose own view of the tensors would be left behind."""
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise OptionInvalid(
                f"`{node.name}` ({node.op_type}) has a graph inside; only plain graphs can be computed in another "
                "precision. Export fp32."
            )


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give `graph` these nodes, which may be its own in another order."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # deleting would empty its own
    del graph.node[:]
    graph.node.extend(kept)


def network_nodes(nodes: Sequence[onnx.NodeProto]) -> frozenset[int]:
    """Positions of the convolutions (with their quantisers) and of all nodes on a way from one to another.

    Raises OptionInvalid if there is no convolution.
    """
    convolutions = {index for index, node in enumerate(nodes) if node.op_type in CONVOLUTIONS | _QUANTISERS}
    if not convolutions:
        raise OptionInvalid("The graph has no convolution, so there is nothing to compute in another precision.")
    after = _reached(nodes, convolutions, forwards=True)
    before = _reached(nodes, convolutions, forwards=False)
    return frozenset(after & before)


def _reached(nodes: Sequence[onnx.NodeProto], seeds: set[int], *, forwards: bool) -> set[int]:
    """The seeds and all nodes behind (or before) them; `nodes` are in topological order."""
    reached, tensors = set(seeds), set[str]()
    for index in range(len(nodes)) if forwards else reversed(range(len(nodes))):
        comes, goes = nodes[index].input, nodes[index].output
        if not forwards:
            comes, goes = goes, comes
        if index in seeds or not tensors.isdisjoint(comes):
            reached.add(index)
            tensors.update(name for name in goes if name)
    return reached


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


class _Halver:
    """Collects the nodes of the new graph. A tensor `x` made in float16 is called `x_fp16`; `x` is float32."""

    def __init__(self, initializers: Iterable[TensorProto], types: dict[str, int]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants = {tensor.name: tensor for tensor in initializers}
        self._types = types
        self._made: set[str] = set()  # the names that exist besides those of the old graph

    def add(self, node: onnx.NodeProto, *, halve: bool) -> None:
        """Append a copy of `node`, and before it the casts that its inputs need."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for position, name in enumerate(node.input):
            if self._types.get(name) != TensorProto.FLOAT:
                continue
            # A Resize takes its scales and region in float32 whatever it resizes.
            if halve and not (node.op_type == "Resize" and position > 0):
                new.input[position] = self._as_half(name)
            else:
                self._require_full(name)
        for position, name in enumerate(node.output):
            if halve and self._types.get(name) == TensorProto.FLOAT:
                new.output[position] = _half_name(name)
                self._made.add(new.output[position])
            else:
                self._made.add(name)
        self.nodes.append(new)

    def used_initializers(self) -> list[TensorProto]:
        used = {name for node in self.nodes for name in node.input}
        return [tensor for name, tensor in self._constants.items() if name in used]

    def _as_half(self, name: str) -> str:
        half = _half_name(name)
        if name in self._constants:
            if half not in self._constants:
                self._constants[half] = _halve(self._constants[name], half)
        elif half not in self._made:
            self._cast(name, half, TensorProto.FLOAT16)
        return half

    def _require_full(self, name: str) -> None:
        if name not in self._made and _half_name(name) in self._made:
            self._cast(_half_name(name), name, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=to))
        self._made.add(target)


def _halve(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _LARGEST_FP16:
        raise OptionInvalid(
            f"`{tensor.name}` holds {largest:.3g}; float16 ends at {_LARGEST_FP16:.0f}. Export another precision."
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _half_name(name: str) -> str:
    return f"{name}_fp16"
