"""What the drop-in backends have in common: Triton's batches in, one run of a graph, answers or clear errors out.

A backend says how its runtime loads and runs a graph; this class holds the graph against the model's configuration,
joins and splits requests, and keeps one request's trouble with that request.

Requests that Triton batched are joined along axis 0, run once, and split again. If that run fails each request runs
alone, so that only the guilty one gets an error.

A request whose caller has left, or whose time is over, before its turn comes is not run (`turns`). Within an ensemble
Triton doesn't tell of a caller that left early.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils

from sketchbridge_server.turns import Turns

Arrays = dict[str, np.ndarray[Any, Any]]


class ConfigurationError(Exception):
    """The model's configuration does not fit its graph, or asks for something that does not exist."""


class GraphTensor(NamedTuple):
    """An input or output of a graph.

    triton_type: as a configuration writes it; None if Triton has no such type. graph_type: as the runtime writes it.
    shape: -1 is any size.
    """

    name: str
    triton_type: str | None
    graph_type: str
    shape: tuple[int, ...]


class Signature(NamedTuple):
    """What a graph takes and gives."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]


class Prepared(NamedTuple):
    """One request, read. feeds: input name -> array, axis 0 the batch if the model has one."""

    feeds: Arrays
    requested: tuple[str, ...]
    batch_size: int


class DropInModel(ABC):
    """A model as Triton's Python backend calls it; each backend's `TritonPythonModel` is one.

    default_filename: the graph's file if the configuration names none. callers_faults: exceptions of `to_graph` and
    `run` that the caller can mend; every other becomes INTERNAL.
    """

    default_filename: ClassVar[str]
    callers_faults: ClassVar[tuple[type[Exception], ...]] = ()

    @staticmethod
    @abstractmethod
    def describe(path: Path) -> Signature:
        """Read what a graph takes and gives, without getting it ready to run. Raises ConfigurationError."""

    @abstractmethod
    def load(self, path: Path, config: Mapping[str, Any]) -> Signature:
        """Get the graph in `path` ready to run as `config` says. Raises ConfigurationError."""

    @abstractmethod
    def run(self, feeds: Arrays, requested: Sequence[str]) -> Arrays:
        """Run the graph once and give the requested outputs, which must not alias what the next run gives."""

    @abstractmethod
    def unload(self) -> None:
        """Let go of the graph and its memory."""

    def to_graph(self, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:  # noqa: ARG002 - for overriding
        """An input as the runtime takes it. array: a view of shared memory, valid until the request is answered."""
        return array

    def from_graph(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An output as Triton takes it."""
        return array

    @classmethod
    def auto_complete_config(cls, auto_complete_model_config: Any) -> Any:
        """Fill in inputs and outputs from the graph where the configuration has none.

        The graph's dimensions are taken as they are, batch axis included, if `max_batch_size` is 0; otherwise axis 0
        is the batch and is left out. `max_batch_size` itself is never guessed.
        """
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        signature = cls.describe(cls._model_path(Path(pb_utils.get_model_dir()), config))
        first_axis = 1 if config["max_batch_size"] > 0 else 0
        if not config["input"]:
            for tensor in signature.inputs:
                auto_complete_model_config.add_input(_described(tensor, first_axis))
        if not config["output"]:
            for tensor in signature.outputs:
                auto_complete_model_config.add_output(_described(tensor, first_axis))
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graph and hold it against the configuration.

        Raises ConfigurationError, which Triton turns into the reason why the model is not available.
        """
        config = json.loads(args["model_config"])
        path = self._model_path(Path(args["model_repository"], args["model_version"]), config)
        signature = self.load(path, config)
        self._is_batched = config["max_batch_size"] > 0
        problems = mismatches(config, signature)
        if problems:
            raise ConfigurationError(f"config.pbtxt and {path.name} do not fit: {'; '.join(problems)}")
        self._outputs = tuple(item["name"] for item in config["output"])
        self._turns = Turns(model=args["model_name"], is_first=False)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; one that fails does not harm the others."""
        began_ns = self._turns.begin(requests)
        responses = self._respond(requests)
        self._turns.end(requests, began_ns)
        return responses

    def finalize(self) -> None:
        """Called by Triton when the model is unloaded."""
        self.unload()

    @classmethod
    def _model_path(cls, version_folder: Path, config: Mapping[str, Any]) -> Path:
        path = version_folder / (config.get("default_model_filename") or cls.default_filename)
        if not path.exists():
            raise ConfigurationError(f"{path} does not exist; put the graph there, or set default_model_filename")
        return path

    def _respond(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        prepared: dict[int, Prepared] = {}
        for position, request in enumerate(requests):
            responses[position] = self._turns.refusal(request)
            if responses[position] is not None:
                continue
            try:
                prepared[position] = self._prepare(request)
            except Exception as exc:  # noqa: BLE001 - one request's trouble must stay with that request
                responses[position] = self._error_response(exc)
        if self._is_batched and len(prepared) > 1:
            try:
                answers = self._run_together(list(prepared.values()))
            except Exception as exc:  # noqa: BLE001 - whichever request it was: each gets another chance, alone
                pb_utils.Logger.log_info(f"a batch of {len(prepared)} requests failed, running each alone: {exc}")
            else:
                for (position, one), outputs in zip(prepared.items(), answers, strict=True):
                    responses[position] = self._response(one, outputs)
                return responses
        for number, (position, one) in enumerate(prepared.items()):
            if number > 0:  # it has waited for the others
                responses[position] = self._turns.refusal(requests[position])
                if responses[position] is not None:
                    continue
            try:
                responses[position] = self._response(one, self._run(one.feeds, one.requested, one.batch_size))
            except Exception as exc:  # noqa: BLE001 - as above
                responses[position] = self._error_response(exc)
        return responses

    def _prepare(self, request: Any) -> Prepared:
        feeds = {tensor.name(): self.to_graph(tensor.name(), tensor.as_numpy()) for tensor in request.inputs()}
        asked = request.requested_output_names()
        requested = tuple(name for name in self._outputs if name in asked)
        batch_size = next(iter(feeds.values())).shape[0] if self._is_batched else 1
        return Prepared(feeds, requested, batch_size)

    def _run_together(self, group: list[Prepared]) -> list[Arrays]:
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

    def _run(self, feeds: Arrays, requested: tuple[str, ...], batch_size: int) -> Arrays:
        outputs = self.run(feeds, requested)
        for name, array in outputs.items():
            if self._is_batched and (array.ndim == 0 or array.shape[0] != batch_size):
                raise RuntimeError(
                    f"the graph gave output `{name}` the shape {array.shape} for a batch of {batch_size}; "
                    "axis 0 must be the batch. Export the graph with that axis dynamic, or set max_batch_size: 0."
                )
        return outputs

    def _response(self, one: Prepared, outputs: Arrays) -> Any:
        tensors = [pb_utils.Tensor(name, self.from_graph(outputs[name])) for name in one.requested]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _error_response(self, exc: Exception) -> Any:
        is_callers = isinstance(exc, self.callers_faults)
        code = pb_utils.TritonError.INVALID_ARG if is_callers else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc), code))


def mismatches(config: Mapping[str, Any], signature: Signature) -> list[str]:
    """Every way in which a configuration does not fit a graph, each as a sentence: names, then types, then dims."""
    problems = []
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        graph = {tensor.name: tensor for tensor in tensors}
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


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The `parameters` of a configuration as plain text."""
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def chosen(choices: Mapping[Any, Any], value: Any, key: str) -> Any:
    """`choices[value]`. Raises ConfigurationError, which names `key` and what there is."""
    if value not in choices:
        raise ConfigurationError(f"{key} is {value!r}; expected one of {', '.join(map(str, choices))}")
    return choices[value]


def thread_count(given: Mapping[str, str], key: str) -> int:
    """How many threads a parameter asks for; 0, one a core, if it is not given. Raises ConfigurationError."""
    text = given.get(key, "0")
    if not text.isdecimal():
        raise ConfigurationError(f"parameter {key} is {text!r}; expected a whole number, 0 for one thread a core")
    return int(text)


def _tensor_mismatches(what: str, item: Mapping[str, Any], tensor: GraphTensor, *, is_batched: bool) -> list[str]:
    problems = []
    if item["data_type"] != tensor.triton_type:
        problems.append(f"{what} is {item['data_type']} in the configuration and {tensor.graph_type} in the graph")
    if item.get("reshape"):
        problems.append(f"{what} has a `reshape`, which is not supported; give the graph's own dims")
    dims = ([-1] if is_batched else []) + [int(size) for size in item["dims"]]
    shape = list(tensor.shape)
    if is_batched and shape and shape[0] != -1:
        problems.append(f"{what} has a fixed batch of {shape[0]} in the graph; export it with axis 0 dynamic")
    elif not _dims_agree(dims, shape):
        problems.append(f"{what} has the dims {dims} in the configuration (-1: any) and {shape} in the graph")
    return problems


def _dims_agree(dims: list[int], shape: list[int]) -> bool:
    """Whether the number of axes is equal, and each pair of sizes where neither is -1 (any)."""
    return len(dims) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, shape, strict=True))


def _described(tensor: GraphTensor, first_axis: int) -> dict[str, Any]:
    """A graph's input or output as the configuration writes it."""
    if tensor.triton_type is None:
        raise ConfigurationError(f"`{tensor.name}` is a {tensor.graph_type}, which cannot be served")
    return {"name": tensor.name, "data_type": tensor.triton_type, "dims": list(tensor.shape[first_axis:])}
