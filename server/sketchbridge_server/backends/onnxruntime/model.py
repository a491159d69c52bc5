# ruff: noqa: INP001 - not a package: Triton loads this file by its path
"""ONNX Runtime for a Triton that has only the Python backend: runs any model with `backend: "onnxruntime"`.

It reads the names that Triton's own ONNX Runtime backend reads, so one configuration serves both: the file
(`default_model_filename`), the parameters `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode`,
`enable_mem_arena` and `enable_mem_pattern`, and `optimization.graph.level`. It computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

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

CPU = ["CPUExecutionProvider"]

# The type in an ONNX graph and Triton's; bfloat16 is missing because NumPy has none.
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}

# The numbers of `optimization.graph.level`, as Triton's own backend reads them; 0 is what an unset level reads as.
_GRAPH_LEVELS = {
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_EXECUTION_MODES = {
    "0": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    "1": onnxruntime.ExecutionMode.ORT_PARALLEL,
}
_SWITCHES = {"0": False, "1": True}


class TritonPythonModel(DropInModel):
    """What Triton's Python backend calls."""

    default_filename = "model.onnx"
    callers_faults = (
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        UnicodeDecodeError,  # a BYTES element that is no UTF-8, which is all that ONNX strings can be
    )

    @staticmethod
    def describe(path: Path) -> Signature:
        """See DropInModel."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return signature(open_session(path, options))

    def load(self, path: Path, config: Mapping[str, Any]) -> Signature:
        """See DropInModel."""
        self._session = open_session(path, session_options(config))
        found = signature(self._session)
        self._strings = {tensor.name for tensor in found.inputs if tensor.triton_type == "TYPE_STRING"}
        return found

    def run(self, feeds: Arrays, requested: Sequence[str]) -> Arrays:
        """See DropInModel."""
        return dict(zip(requested, self._session.run(requested, feeds), strict=True))

    def unload(self) -> None:
        """See DropInModel."""
        del self._session

    def to_graph(self, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """BYTES elements as the str that ONNX strings are. Raises UnicodeDecodeError."""
        if name not in self._strings:
            return array
        return np.array([element.decode() for element in array.ravel()], dtype=np.object_).reshape(array.shape)

    def from_graph(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Str elements as bytes, the rest as it is."""
        if array.dtype != np.object_:
            return array
        return np.array([element.encode() for element in array.ravel()], dtype=np.object_).reshape(array.shape)


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU. Raises ConfigurationError if ONNX Runtime cannot."""
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=CPU)
    except Exception as exc:  # its exceptions share no root of their own
        raise ConfigurationError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {exc}") from exc


def session_options(config: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    """Session options from a model configuration. Raises ConfigurationError for values that do not exist."""
    given = parameters(config)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count(given, "intra_op_thread_count")
    options.inter_op_num_threads = thread_count(given, "inter_op_thread_count")
    options.execution_mode = chosen(_EXECUTION_MODES, given.get("execution_mode", "0"), "execution_mode")
    options.enable_cpu_mem_arena = chosen(_SWITCHES, given.get("enable_mem_arena", "1"), "enable_mem_arena")
    options.enable_mem_pattern = chosen(_SWITCHES, given.get("enable_mem_pattern", "1"), "enable_mem_pattern")
    # Threads that spin while they wait for work take the cores from decode and encode, which live in other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = chosen(_GRAPH_LEVELS, level, "optimization.graph.level")
    return options


def signature(session: onnxruntime.InferenceSession) -> Signature:
    """What a session's graph takes and gives; named and unknown dimensions are -1."""
    inputs, outputs = (
        tuple(
            GraphTensor(
                node.name,
                _TYPES.get(node.type),
                node.type,
                tuple(size if isinstance(size, int) else -1 for size in node.shape),
            )
            for node in nodes
        )
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return Signature(inputs, outputs)
