"""What a server has: the names of the tensors, and what kind of model has which.

Nothing here knows a model by its name: a model is told by the tensors that its metadata lists, so that a model which
somebody exported this morning is listed as the painter it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

SKETCH = "sketch"
PHOTO = "photo"
REPAINTED = "repainted"


class ModelKind(str, Enum):
    """What a model is for. UNKNOWN: not ready, so its tensors cannot be asked for, or tensors of another contract."""

    PAINTER = "painter"
    SKETCHER = "sketcher"
    ROUNDTRIP = "roundtrip"
    GENERATOR = "generator"
    BUILDING_BLOCK = "building block"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ModelInfo:
    """One model of a server.

    versions: those that are ready, lowest first. ready: at least one is. reason: why it is not, in the server's words.
    """

    name: str
    versions: tuple[str, ...]
    kind: ModelKind
    ready: bool
    reason: str = ""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. datatype: KServe's name for it. shape: -1 for a side of any length, the batch included."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelDetails:
    """What one model says of itself.

    version: the one that was asked for, or "" for the server's choice. versions: those that are loaded.
    platform: what runs it, such as "ensemble". max_batch_size: how many pictures it takes in one request; 1 if it does
    not batch.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    kind: ModelKind
    ready: bool
    platform: str
    max_batch_size: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class ModelStats:
    """What the server has counted of one version of a model since it was loaded. Times are means, in seconds.

    requests: answered well. failures: refused or failed. inferences: rows of all batches. executions: batches, so
    inferences / executions is the mean batch. queue_s: waiting for its turn. compute_s: reading the input, running and
    writing the output. An ensemble has no queue of its own: look at the models inside it.
    """

    name: str
    version: str
    requests: int
    failures: int
    inferences: int
    executions: int
    total_s: float
    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class IndexEntry:
    """One line of the server's repository index: a version of a model and its state, such as "READY"."""

    name: str
    version: str
    state: str
    reason: str


# Kind, its inputs, and the outputs that it has at least; a tensor name with its datatype on the wire. First match wins.
_BYTES, _UINT8 = "BYTES", "UINT8"
_KINDS: tuple[tuple[ModelKind, dict[str, str], dict[str, str]], ...] = (
    (ModelKind.PAINTER, {SKETCH: _BYTES}, {PHOTO: _BYTES}),
    (ModelKind.ROUNDTRIP, {PHOTO: _BYTES}, {SKETCH: _BYTES, REPAINTED: _BYTES}),
    (ModelKind.SKETCHER, {PHOTO: _BYTES}, {SKETCH: _BYTES}),
    (ModelKind.GENERATOR, {SKETCH: _UINT8}, {PHOTO: _UINT8}),
    (ModelKind.BUILDING_BLOCK, {"image_bytes": _BYTES}, {}),
    (ModelKind.BUILDING_BLOCK, {"image": _UINT8}, {"image_bytes": _BYTES}),
)


def kind_of(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> ModelKind:
    """The kind of a model with these tensors, each given as name and datatype."""
    for kind, its_inputs, its_outputs in _KINDS:
        if dict(inputs) == its_inputs and its_outputs.items() <= outputs.items():
            return kind
    return ModelKind.UNKNOWN


def summarise(name: str, entries: Iterable[IndexEntry], kind: ModelKind) -> ModelInfo:
    """One ModelInfo of all the index entries of the model `name`."""
    its_own = [entry for entry in entries if entry.name == name]
    ready = sorted((entry.version for entry in its_own if entry.state == "READY"), key=_by_number)
    # A server that never loaded the model gives it no state at all.
    reasons = "; ".join(dict.fromkeys(entry.reason.strip() for entry in its_own if entry.reason.strip()))
    return ModelInfo(name, tuple(ready), kind, ready=bool(ready), reason="" if ready else reasons or "not loaded")


def _by_number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else 0, version)


def read_index(answer: Mapping[str, Any]) -> list[IndexEntry]:
    """The entries of a repository index."""
    return [
        IndexEntry(*(str(entry.get(key, "")) for key in ("name", "version", "state", "reason")))
        for entry in answer.get("models", ())
    ]


def read_kind(metadata: Mapping[str, Any]) -> ModelKind:
    """The kind of the model that this metadata is of."""
    inputs, outputs = (_tensors(metadata, key) for key in ("inputs", "outputs"))
    return kind_of({one.name: one.datatype for one in inputs}, {one.name: one.datatype for one in outputs})


def read_details(version: str, metadata: Mapping[str, Any], config: Mapping[str, Any], *, ready: bool) -> ModelDetails:
    """The details of a model of its metadata and its configuration."""
    return ModelDetails(
        name=str(metadata.get("name", "")),
        version=version,
        versions=tuple(str(one) for one in metadata.get("versions", ())),
        kind=read_kind(metadata),
        ready=ready,
        platform=str(metadata.get("platform", "")),
        max_batch_size=read_max_batch_size(config),
        inputs=_tensors(metadata, "inputs"),
        outputs=_tensors(metadata, "outputs"),
    )


def read_max_batch_size(config: Mapping[str, Any]) -> int:
    """How many pictures go into one request of the model with this configuration."""
    return max(1, int(config.get("max_batch_size", 0)))


def read_stats(answer: Mapping[str, Any]) -> list[ModelStats]:
    """The statistics of each model and version that the server told of."""
    return [_stats(one) for one in answer.get("model_stats", ())]


def _stats(one: Mapping[str, Any]) -> ModelStats:
    durations = one.get("inference_stats", {})
    requests, total_ns = _count_and_ns(durations, "success")
    compute_ns = sum(_count_and_ns(durations, f"compute_{part}")[1] for part in ("input", "infer", "output"))
    per_request = 1e9 * max(requests, 1)
    return ModelStats(
        name=str(one.get("name", "")),
        version=str(one.get("version", "")),
        requests=requests,
        failures=_count_and_ns(durations, "fail")[0],
        inferences=int(one.get("inference_count", 0)),
        executions=int(one.get("execution_count", 0)),
        total_s=total_ns / per_request,
        queue_s=_count_and_ns(durations, "queue")[1] / per_request,
        compute_s=compute_ns / per_request,
    )


def _count_and_ns(durations: Mapping[str, Any], name: str) -> tuple[int, int]:
    duration = durations.get(name, {})
    return int(duration.get("count", 0)), int(duration.get("ns", 0))


def _tensors(metadata: Mapping[str, Any], key: str) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            str(one.get("name", "")), str(one.get("datatype", "")), tuple(int(side) for side in one.get("shape", ()))
        )
        for one in metadata.get(key, ())
    )
