"""What a server has: the names of the tensors, and what kind of model has which.

Nothing here knows a model by its name: a model is told by the tensors that its metadata lists, so that a model which
somebody exported this morning is listed as the painter it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

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
