"""What goes to a server and what comes back, in no protocol's own words. The transports turn these into gRPC or HTTP.

A request is an `Infer` or an `Ask`. What comes back is an `Inferred`, an answer to a question, or a `Failed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

_MAX_INT64 = 2**63 - 1

Parameter = str | bool | int | float
Headers = tuple[tuple[str, str], ...]
"""Names (lower case) and values that go with one request: gRPC metadata, HTTP headers."""


@dataclass(slots=True)
class Tensor:
    """One tensor as it crosses the wire.

    datatype: KServe's name, such as "UINT8" or "BYTES". parts: the elements, little-endian, row by row, in one piece or
    several, so that a picture of many megabytes is copied no oftener than it must be; each element of BYTES is preceded
    by its length in four bytes. Source: the binary tensor data extension of KServe v2.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    parts: tuple[bytes, ...] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """How many bytes the elements have."""
        return sum(map(len, self.parts))

    @property
    def data(self) -> bytes:
        """The elements in one piece."""
        return b"".join(self.parts)


@dataclass(slots=True)
class Infer:
    """Run a model. version: "" for the one that the server chooses. outputs: () for all that the model has."""

    model: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    request_id: str


class Question(Enum):
    """What can be asked of a server beside running a model."""

    SERVER_LIVE = "server live"  # answered with a bool
    SERVER_READY = "server ready"  # a bool
    MODEL_READY = "model ready"  # a bool
    MODEL_METADATA = "model metadata"  # a mapping, as are the rest
    MODEL_CONFIG = "model config"
    REPOSITORY_INDEX = "repository index"
    STATISTICS = "statistics"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, about one model if it has a name. version: "" for whichever the server chooses."""

    question: Question
    model: str = ""
    version: str = ""


Request = Infer | Ask


@dataclass(slots=True)
class Inferred:
    """What a model answered."""

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


Reply = Inferred | bool | Mapping[str, Any]
"""A mapping is shaped as the JSON of Triton's HTTP protocol; whole numbers may be text, and zeros may be left out."""


class Failed(Exception):
    """A request that got no answer, or got no for an answer. Internal: callers see a SketchbridgeError made of it.

    code: the name of a gRPC status code, which HTTP's are mapped to; None if it was refused on this side.
    words: what was said about it. retry_after_s: how long the server asks to be left alone, if it does.
    """

    def __init__(self, code: str | None, words: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{code}: {words}")
        self.code = code
        self.words = words
        self.retry_after_s = retry_after_s


def queue_timeout_us(timeout_s: float) -> int:
    """What Triton's request parameter `timeout` says of a call's time: how long it may wait in the server's queues.

    Whole microseconds, at least 1, as 0 would mean no limit, and no more than 64 bits hold.
    """
    return min(max(1, round(timeout_s * 1e6)), _MAX_INT64)


def bytes_tensor(name: str, elements: list[bytes]) -> Tensor:
    """A BYTES tensor of shape (N, 1), such as picture files for a model that batches."""
    parts = tuple(part for element in elements for part in (len(element).to_bytes(4, "little"), element))
    return Tensor(name, "BYTES", (len(elements), 1), parts)


def elements_of(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor, row by row. Raises ValueError if its lengths and its bytes do not agree."""
    data = tensor.data
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 4
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise ValueError(f"`{tensor.name}` ends in the middle of its element {len(elements)}.")
        elements.append(data[start:end])
        at = end
    return elements
