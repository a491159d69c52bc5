"""A generator's ONNX graph with 8-bit convolutions, written with QuantizeLinear and DequantizeLinear nodes.

TensorRT takes INT8 only so: every number in 8 bits is symmetric (zero point 0), weights have a scale a channel, and
biases stay float32. Only what goes into a convolution is quantised: the drawing before the network and the colours
after it keep their full range, and normalisations get their statistics from float32 sums. Every scale is a float16
number, so that the rest of the network can be put into float16 afterwards without changing any integer.

onnxruntime.quantization writes such graphs too. It quantises what comes out of a convolution as well, the last one's
colours included, which cost more than half of the similarity lost, and it configures the caller's root logger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sketchbridge_export.artefacts.half_precision import (
    CONVOLUTIONS,
    plain_weights,
    refuse_control_flow,
    replace_nodes,
)
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.interface import INPUT_NAME
from sketchbridge_export.parity import Pictures
from sketchbridge_preprocess import INTERFACE_SIDE_PX

OPSET = 19  # the first whose quantisers take float16 scales
_STEPS = 127  # -128 stays unused: symmetric

Floats = NDArray[np.float32]


def quantised_graph(onnx_path: Path, *, calibration: Pictures, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of the graph in `onnx_path` (as `write_onnx` writes it) with its convolutions in INT8.

    calibration: (P, 256, 256, 3) uint8 drawings like those to come; 8 are enough for a try, 100 for good ranges.
    keep: names of convolutions that stay as they are, for networks that lose too much otherwise. The first ones of
    `convolution_names` lose most and cost least.
    Raises OptionInvalid if there are no pictures, if a name in `keep` is no convolution's, if none is left,
    or for control flow.
    """
    expected = (INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3)
    if calibration.shape[1:] != expected or calibration.dtype != np.uint8 or not len(calibration):
        raise OptionInvalid(
            f"The calibration pictures are {calibration.shape} {calibration.dtype}; expected (P, 256, 256, 3) uint8."
        )
    model = onnx.load(onnx_path)
    refuse_control_flow(model)
    model = onnx.version_converter.convert_version(plain_weights(model), OPSET)
    names = convolution_names(model)
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise OptionInvalid(f"There is no convolution {unknown[0]!r} to keep; there are: {', '.join(names)}.")
    chosen = {name for name in names if name not in keep}
    if not chosen:
        raise OptionInvalid("No convolution is left to quantise. Export another precision.")
    inputs = [node.input[0] for node in model.graph.node if node.name in chosen]
    scales = _activation_scales(model, list(dict.fromkeys(inputs)), calibration)
    _quantise(model, chosen, scales)
    onnx.checker.check_model(model, full_check=True)
    return model


def convolution_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """The convolutions that can be quantised, those whose weights are in the graph, in the order they run.

    Raises OptionInvalid if they can't be told apart.
    """
    constants = {tensor.name for tensor in plain_weights(model).graph.initializer}
    names = tuple(node.name for node in model.graph.node if node.op_type in CONVOLUTIONS and node.input[1] in constants)
    if len({*names, ""}) <= len(names):
        raise OptionInvalid("Some convolutions have no name, or another's. Give each its own.")
    return names


def _activation_scales(model: onnx.ModelProto, tensors: Sequence[str], pictures: Pictures) -> dict[str, Floats]:
    """What one step of 8 bits is worth in each tensor: its largest value in 127 steps.

    Ranges that clip the largest values for a smaller squared error were tried. They are better on average, but what is
    rare in a drawing is its lines: of nine drawings one fell from SSIM 0.997 to 0.965.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(observed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest = np.zeros(len(tensors))
    for picture in pictures:
        values = session.run(list(tensors), {INPUT_NAME: picture[None]})
        largest = np.maximum(largest, [np.abs(value).max() for value in values])
    return dict(zip(tensors, _steps(largest), strict=True))


def _quantise(model: onnx.ModelProto, chosen: Collection[str], scales: dict[str, Floats]) -> None:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        source, weights = node.input[0], node.input[1]
        if source not in done:
            graph.initializer.extend(_scale_and_zero(source, scales[source]))
            nodes += [_linear("Quantize", source, source), _linear("Dequantize", source, f"{source}_int8")]
            done.add(source)
        if weights not in done:
            axis = _channel_axis(node)
            integers, scale_each = _quantise_weights(numpy_helper.to_array(constants[weights]), axis)
            graph.initializer.append(numpy_helper.from_array(integers, f"{weights}_int8"))
            graph.initializer.extend(_scale_and_zero(weights, scale_each))
            nodes.append(_linear("Dequantize", weights, f"{weights}_int8", axis))
            done.add(weights)
        node.input[0], node.input[1] = f"{source}_dequantised", f"{weights}_dequantised"
        nodes.append(node)
    replace_nodes(graph, nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)


def _linear(direction: str, name: str, source: str, axis: int | None = None) -> onnx.NodeProto:
    result = f"{name}_int8" if direction == "Quantize" else f"{name}_dequantised"
    inputs = [source, f"{name}_scale", f"{name}_zero"]
    return helper.make_node(f"{direction}Linear", inputs, [result], f"{name}_{direction.lower()}", axis=axis)


def _scale_and_zero(name: str, scale: Floats) -> list[onnx.TensorProto]:
    zero = np.zeros(scale.shape, np.int8)
    return [numpy_helper.from_array(scale, f"{name}_scale"), numpy_helper.from_array(zero, f"{name}_zero")]


def _channel_axis(node: onnx.NodeProto) -> int | None:
    """The axis of the weights that is the convolution's output channels; None where groups share it."""
    if node.op_type == "Conv":
        return 0
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return 1 if groups == 1 else None


def _quantise_weights(weights: Floats, axis: int | None) -> tuple[NDArray[np.int8], Floats]:
    """Integers of the same shape and their scale, one a channel along `axis` or () for all."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = _steps(largest)
    integers = np.clip(np.round(weights / scale), -_STEPS, _STEPS).astype(np.int8)
    return integers, scale.reshape(() if axis is None else -1)


def _steps(largest: NDArray[np.floating[Any]]) -> Floats:
    """One of 127 steps to each value: the next float16 number that isn't smaller, so that nothing is clipped for it."""
    exact = np.where(largest > 0, largest / _STEPS, 1.0)
    rounded = exact.astype(np.float16)
    return np.where(rounded < exact, np.nextafter(rounded, np.float16(np.inf)), rounded).astype(np.float32)
