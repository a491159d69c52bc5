# ruff: noqa: INP001 - not a package: Triton loads this file by its path
"""ONNX Runtime for a Triton that has only the Python backend: runs any model with `backend: "onnxruntime"`.

It reads the names that Triton's own ONNX Runtime backend reads, so one configuration serves both: the file
(`default_model_filename`), the parameters `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode`,
`enable_mem_arena` and `enable_mem_pattern`, and `optimization.graph.level`. It computes on the CPU.

Requests that Triton batched are joined along axis 0, run once, and split again. If that run fails each request runs
alone, so that only the guilty one gets an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

DEFAULT_FILENAME = "model.onnx"
CPU = ["CPUExecutionProvider"]

# Triton's type and the one in an ONNX graph; bfloat16 is missing because NumPy has none.
_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}
_TRITON_TYPES = {graph_type: triton_type for triton_type, graph_type in _TYPES.items()}

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
_CALLERS_FAULTS = (
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    UnicodeDecodeError,  # a BYTES element that is no UTF-8, which is all that ONNX strings can be
)


class ConfigurationError(Exception):
    """The model's configuration does not fit its graph, or asks for something that does not exist."""


class Prepared(NamedTuple):
    """One request, read. feeds: input name -> array, axis 0 the batch if the model has one."""

    feeds: dict[str, np.ndarray[Any, Any]]
    requested: tuple[str, ...]
    batch_size: int


class TritonPythonModel:
    """What Triton's Python backend calls."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in inputs and outputs from the graph where the configuration has none.

        The graph's dimensions are taken as they are, batch axis included, if `max_batch_size` is 0; otherwise axis 0
        is the batch and is left out. `max_batch_size` itself is never guessed.
        """
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = open_session(model_path(Path(pb_utils.get_model_dir()), config), options)
        first_axis = 1 if config["max_batch_size"] > 0 else 0
        if not config["input"]:
            for node in session.get_inputs():
                auto_complete_model_config.add_input(_described(node, first_axis))
        if not config["output"]:
            for node in session.get_outputs():
                auto_complete_model_config.add_output(_described(node, first_axis))
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph and hold it against the configuration.

        Raises ConfigurationError, which Triton turns into the reason why the model is not available.
        """
        config = json.loads(args["model_config"])
        path = model_path(Path(args["model_repository"], args["model_version"]), config)
        self._session = open_session(path, session_options(config))
        self._is_batched = config["max_batch_size"] > 0
        problems = mismatches(config, self._session)
        if problems:
            raise ConfigurationError(f"config.pbtxt and {path.name} do not fit: {'; '.join(problems)}")
        self._strings = {item["name"] for item in config["input"] if item["data_type"] == "TYPE_STRING"}
        self._outputs = tuple(item["name"] for item in config["output"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; one that fails does not harm the others."""
        responses: list[Any] = [None] * len(requests)
        prepared: dict[int, Prepared] = {}
        for position, request in enumerate(requests):
            try:
                prepared[position] = self._prepare(request)
            except Exception as exc:  # noqa: BLE001, PERF203 - one request's trouble must stay with that request
                responses[position] = _error_response(exc)
        if self._is_batched and len(prepared) > 1:
            try:
                answers = self._run_together(list(prepared.values()))
            except Exception as exc:  # noqa: BLE001 - whichever request it was: each gets another chance, alone
                pb_utils.Logger.log_info(f"a batch of {len(prepared)} requests failed, running each alone: {exc}")
            else:
                for (position, one), outputs in zip(prepared.items(), answers, strict=True):
                    responses[position] = self._response(one, outputs)
                return responses
        for position, one in prepared.items():
            try:
                responses[position] = self._response(one, self._run(one.feeds, one.requested, one.batch_size))
            except Exception as exc:  # noqa: BLE001, PERF203 - as above
                responses[position] = _error_response(exc)
        return responses

    def finalize(self) -> None:
        """Let go of the session and its memory."""
        del self._session

    def _prepare(self, request: Any) -> Prepared:
        feeds = {}
        for tensor in request.inputs():
            array = tensor.as_numpy()  # a view of shared memory, not a copy
            feeds[tensor.name()] = _decoded(array) if tensor.name() in self._strings else array
        asked = request.requested_output_names()
        requested = tuple(name for name in self._outputs if name in asked)
        batch_size = next(iter(feeds.values())).shape[0] if self._is_batched else 1
        return Prepared(feeds, requested, batch_size)

    def _run_together(self, group: list[Prepared]) -> list[dict[str, np.ndarray[Any, Any]]]:
        """Run a group as one batch. Raises whatever joining or running raises; nothing is answered then."""
        names = tuple(group[0].feeds)
        feeds = {name: np.concatenate([one.feeds[name] for one in group]) for name in names}
        requested = tuple(name for name in self._outputs if any(name in one.requested for one in group))
        joined = self._run(feeds, requested, sum(one.batch_size for one in group))
        ends = np.cumsum([one.batch_size for one in group])
        return [
            {name: joined[name][end - one.batch_size : end] for name in one.requested}
            for one, end in zip(group, ends, strict=True)
        ]

    def _run(
        self, feeds: dict[str, np.ndarray[Any, Any]], requested: tuple[str, ...], batch_size: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        outputs = dict(zip(requested, self._session.run(requested, feeds), strict=True))
        for name, array in outputs.items():
            if self._is_batched and (array.ndim == 0 or array.shape[0] != batch_size):
                raise RuntimeError(
                    f"the graph gave output `{name}` the shape {array.shape} for a batch of {batch_size}; "
                    "axis 0 must be the batch. Export the graph with that axis dynamic, or set max_batch_size: 0."
                )
        return outputs

    @staticmethod
    def _response(one: Prepared, outputs: dict[str, np.ndarray[Any, Any]]) -> Any:
        tensors = [pb_utils.Tensor(name, _encoded(outputs[name])) for name in one.requested]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def model_path(version_folder: Path, config: dict[str, Any]) -> Path:
    """The graph's file. Raises ConfigurationError if it is not there."""
    path = version_folder / (config.get("default_model_filename") or DEFAULT_FILENAME)
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist; put the ONNX graph there, or set default_model_filename")
    return path


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU. Raises ConfigurationError if ONNX Runtime cannot."""
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=CPU)
    except Exception as exc:  # its exceptions share no root of their own
        raise ConfigurationError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {exc}") from exc


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Session options from a model configuration. Raises ConfigurationError for values that do not exist."""
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _thread_count(parameters, "intra_op_thread_count")
    options.inter_op_num_threads = _thread_count(parameters, "inter_op_thread_count")
    options.execution_mode = _chosen(_EXECUTION_MODES, parameters.get("execution_mode", "0"), "execution_mode")
    options.enable_cpu_mem_arena = _chosen(_SWITCHES, parameters.get("enable_mem_arena", "1"), "enable_mem_arena")
    options.enable_mem_pattern = _chosen(_SWITCHES, parameters.get("enable_mem_pattern", "1"), "enable_mem_pattern")
    # Threads that spin while they wait for work take the cores from decode and encode, which live in other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _chosen(_GRAPH_LEVELS, level, "optimization.graph.level")
    return options


def mismatches(config: dict[str, Any], session: onnxruntime.InferenceSession) -> list[str]:
    """Every way in which a configuration does not fit a graph, each as a sentence: names, then types, then dims."""
    problems = []
    for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        graph = {node.name: node for node in nodes}
        configured = {item["name"]: item for item in config[kind]}
        unknown = sorted(configured.keys() - graph.keys())
        if unknown:
            problems.append(f"{kind} {', '.join(unknown)} is not in the graph, which has {', '.join(graph)}")
        unfed = sorted(graph.keys() - configured.keys()) if kind == "input" else []
        if unfed:
            problems.append(f"the graph needs input {', '.join(unfed)}, which the configuration lacks")
        for name in sorted(configured.keys() & graph.keys()):
            problems += _tensor_mismatches(
                f"{kind} `{name}`", configured[name], graph[name], is_batched=config["max_batch_size"] > 0
            )
    return problems


def _tensor_mismatches(what: str, item: dict[str, Any], node: Any, *, is_batched: bool) -> list[str]:
    problems = []
    expected_type = _TYPES.get(item["data_type"])
    if expected_type != node.type:
        problems.append(f"{what} is {item['data_type']} in the configuration and {node.type} in the graph")
    if item.get("reshape"):
        problems.append(f"{what} has a `reshape`, which is not supported; give the graph's own dims")
    dims = ([-1] if is_batched else []) + [int(size) for size in item["dims"]]
    shape = [_size(size) for size in node.shape]
    if is_batched and shape and shape[0] != -1:
        problems.append(f"{what} has a fixed batch of {shape[0]} in the graph; export it with axis 0 dynamic")
    elif not _dims_agree(dims, shape):
        problems.append(f"{what} has the dims {dims} in the configuration (-1: any) and {shape} in the graph")
    return problems


def _dims_agree(dims: list[int], shape: list[int]) -> bool:
    """Whether the number of axes is equal, and each pair of sizes where neither is -1 (any)."""
    return len(dims) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, shape, strict=True))


def _described(node: Any, first_axis: int) -> dict[str, Any]:
    """A graph's input or output as the configuration writes it."""
    if node.type not in _TRITON_TYPES:
        raise ConfigurationError(f"`{node.name}` is a {node.type}, which cannot be served")
    dims = [_size(size) for size in node.shape[first_axis:]]
    return {"name": node.name, "data_type": _TRITON_TYPES[node.type], "dims": dims}


def _size(size: int | str | None) -> int:
    """A graph's dimension as the configuration writes it: named and unknown ones are -1."""
    return size if isinstance(size, int) else -1


def _decoded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """BYTES elements as the str that ONNX strings are. Raises UnicodeDecodeError."""
    return np.array([element.decode() for element in array.ravel()], dtype=np.object_).reshape(array.shape)


def _encoded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An output as Triton takes it: str elements as bytes, the rest as it is."""
    if array.dtype != np.object_:
        return array
    return np.array([element.encode() for element in array.ravel()], dtype=np.object_).reshape(array.shape)


def _thread_count(parameters: dict[str, str], key: str) -> int:
    text = parameters.get(key, "0")
    if not text.isdecimal():
        raise ConfigurationError(f"parameter {key} is {text!r}; expected a whole number, 0 for one thread a core")
    return int(text)


def _chosen(choices: dict[Any, Any], value: Any, key: str) -> Any:
    if value not in choices:
        raise ConfigurationError(f"{key} is {value!r}; expected one of {', '.join(map(str, choices))}")
    return choices[value]


def _error_response(exc: Exception) -> Any:
    code = pb_utils.TritonError.INVALID_ARG if isinstance(exc, _CALLERS_FAULTS) else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc), code))
