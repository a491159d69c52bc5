# ruff: noqa: INP001 - not a package: Triton loads this file by its path
"""OpenVINO for a Triton that has only the Python backend: runs any model with `backend: "openvino"`.

It reads the names that Triton's own OpenVINO backend reads, so that one configuration loads in both: the file
(`default_model_filename`, an OpenVINO IR or an ONNX graph), and the parameters `PERFORMANCE_HINT`, `NUM_STREAMS`,
`INFERENCE_NUM_THREADS`, `COMPILATION_NUM_THREADS` and `HINT_BF16`. It computes on the CPU, in float32 unless it is told
otherwise: OpenVINO's own default is bfloat16 on processors that have it, and paints other pictures than were certified.
`INFERENCE_PRECISION_HINT` (f32, bf16 or f16) is read here only; Triton's own backend does not know it, and so can't be
told to compute in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sketchbridge_server.drop_in import (
    Arrays,
    ConfigurationError,
    DropInModel,
    GraphTensor,
    Signature,
    chosen,
    parameters,
    thread_count,
)
from sketchbridge_server.quiet_openvino import openvino

DEVICE = "CPU"
VERSION = openvino.__version__.partition("-")[0]  # the rest names a commit and a branch

# OpenVINO's type and Triton's; bfloat16 is missing because NumPy has none.
_TYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
}
_HINTS = {hint: hint for hint in ("LATENCY", "THROUGHPUT")}
_SWITCHES = {"YES": True, "NO": False}
# What each precision is called in OPTIMIZATION_CAPABILITIES of the device.
_PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
# Of the native backend's parameters, those that would change what is computed or load code, and are not done here.
_UNSUPPORTED_SWITCHES = ("SKIP_OV_DYNAMIC_BATCHSIZE", "ENABLE_BATCH_PADDING", "RESHAPE_IO_LAYERS")


class InputRefused(Exception):
    """An input whose shape the graph does not take."""


class TritonPythonModel(DropInModel):
    """What Triton's Python backend calls."""

    default_filename = "model.xml"
    callers_faults = (InputRefused,)

    @staticmethod
    def describe(path: Path) -> Signature:
        """See DropInModel."""
        return signature(read_graph(path))

    def load(self, path: Path, config: Mapping[str, Any]) -> Signature:
        """See DropInModel."""
        graph = read_graph(path)
        found = signature(graph)
        properties = compile_properties(config)
        bound_batch(graph, config["max_batch_size"])
        try:
            compiled = openvino.Core().compile_model(graph, DEVICE, properties)
        except RuntimeError as exc:
            raise ConfigurationError(f"OpenVINO {VERSION} cannot compile {path}: {exc}") from exc
        self._shapes = {port.any_name: port.partial_shape for port in compiled.inputs}
        self._request = compiled.create_infer_request()
        return found

    def run(self, feeds: Arrays, requested: Sequence[str]) -> Arrays:
        """See DropInModel. Raises InputRefused."""
        for name, array in feeds.items():
            if not self._shapes[name].compatible(openvino.PartialShape(list(array.shape))):
                raise InputRefused(f"input `{name}` has the shape {array.shape}; the graph takes {self._shapes[name]}")
        outputs = self._request.infer(feeds, share_inputs=True)  # outputs are copied out of the request
        return {name: outputs[name] for name in requested}

    def unload(self) -> None:
        """See DropInModel."""
        del self._request


def read_graph(path: Path) -> openvino.Model:
    """Read an IR (with the .bin beside it) or an ONNX graph. Raises ConfigurationError if OpenVINO cannot."""
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as exc:
        raise ConfigurationError(f"OpenVINO {VERSION} cannot read {path}: {exc}") from exc


def signature(graph: openvino.Model) -> Signature:
    """What a graph takes and gives; dynamic dimensions are -1."""
    inputs, outputs = (
        tuple(
            GraphTensor(port.any_name, _TYPES.get(kind), kind, tuple(_size(size) for size in port.partial_shape))
            for port in ports
            for kind in (port.element_type.get_type_name(),)
        )
        for ports in (graph.inputs, graph.outputs)
    )
    return Signature(inputs, outputs)


def bound_batch(graph: openvino.Model, max_batch_size: int) -> None:
    """Tell the graph how large a batch can get, in place, if there are batches.

    A U-Net-256 of ngf 32 took 31 ms a picture with the batch open and 17 ms with 1 to 8 (2 cores, OpenVINO 2026.4):
    transposed convolutions are only planned ahead where every dimension has a bound.
    """
    if max_batch_size < 1:
        return
    shapes = {}
    for port in graph.inputs:
        shape = port.partial_shape
        if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
            shape[0] = openvino.Dimension(1, max_batch_size)
            shapes[port] = shape
    if shapes:
        graph.reshape(shapes)


def compile_properties(config: Mapping[str, Any]) -> dict[str, Any]:
    """OpenVINO's properties from a model configuration. Raises ConfigurationError for what does not exist here."""
    given = parameters(config)
    for key in _UNSUPPORTED_SWITCHES:
        if chosen(_SWITCHES, given.get(key, "NO").upper(), key):
            raise ConfigurationError(f"{key} is not supported here; export the graph with axis 0 dynamic instead")
    if given.get("CPU_EXTENSION_PATH"):
        raise ConfigurationError("CPU_EXTENSION_PATH is not supported here; graphs of standard operators need none")
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": chosen(_HINTS, given.get("PERFORMANCE_HINT", "LATENCY").upper(), "PERFORMANCE_HINT"),
        "INFERENCE_PRECISION_HINT": _precision(given),
    }
    for key in ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS"):
        threads = thread_count(given, key)
        if threads:
            properties[key] = threads
    if "NUM_STREAMS" in given:
        properties["NUM_STREAMS"] = _streams(given["NUM_STREAMS"])
    return properties


def _precision(given: Mapping[str, str]) -> str:
    is_bf16_hinted = chosen(_SWITCHES, given.get("HINT_BF16", "NO").upper(), "HINT_BF16")
    precision = given.get("INFERENCE_PRECISION_HINT", "bf16" if is_bf16_hinted else "f32")
    capability = chosen(_PRECISIONS, precision, "INFERENCE_PRECISION_HINT")
    if is_bf16_hinted and precision != "bf16":
        raise ConfigurationError(f"HINT_BF16 is YES and INFERENCE_PRECISION_HINT is {precision}; keep one of them")
    if capability not in openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise ConfigurationError(f"this processor does not compute in {precision}; leave that parameter out")
    return precision


def _streams(text: str) -> str:
    if text.upper() in {"AUTO", "NUMA"}:
        return text.upper()
    if not text.isdecimal():
        raise ConfigurationError(f"NUM_STREAMS is {text!r}; expected a whole number, AUTO or NUMA")
    return text


def _size(dimension: openvino.Dimension) -> int:
    return dimension.get_length() if dimension.is_static else -1
