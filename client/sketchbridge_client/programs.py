"""What a call does, step by step, without doing it: generators that yield steps and are sent their outcomes.

The blocking client and the asyncio one run the same programs, each in its own way of waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from sketchbridge_client.messages import Failed, Headers, Reply, Request


@dataclass(frozen=True, slots=True)
class Prepare:
    """Run this on the caller's side; its outcome is what it returns. It may read files and take long."""

    work: Callable[[], Any]


@dataclass(slots=True)
class Send:
    """Send a request to a target, by its index. The outcome is the Reply or a Failed, which is not raised."""

    target: int
    request: Request
    timeout_s: float | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Race:
    """Send `first`; after `after_s` without an answer send what `second` returns too, unless that is None.

    The outcome is (index of the target, Reply or Failed) of the first that is answered, or that no try can better. The
    other is cancelled.
    """

    first: Send
    second: Callable[[], Send | None]
    after_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. The outcome is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Give the connection to a target up. The outcome is None."""

    target: int


Step = Prepare | Send | Race | Pause | Renew
Outcome = Reply | Failed
T = TypeVar("T")
Program = Generator[Step, Any, T]
