"""How long a caller waits. A timeout has three states: not given (the client's own), None (no limit), or seconds."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable
from enum import Enum
from typing import Literal

from sketchbridge_client.errors import InvalidArgument


class Unset(Enum):
    """The type of UNSET, which is neither None nor a number."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET
Timeout = float | None | Literal[Unset.UNSET]

LONGEST_S = 31_536_000.0
"""A year, in seconds: nobody waits longer, and the clocks of some systems take no more than a few."""


def check_timeout_s(timeout_s: object) -> float | None:
    """The timeout in seconds, or None for no limit. More than a year (31,536,000 s) counts as a year.

    Raises InvalidArgument for anything else, zero and infinity included.
    """
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, numbers.Real):
        raise InvalidArgument(f"`timeout_s` is {timeout_s!r}; expected seconds, or None to wait without limit.")
    try:
        seconds = float(timeout_s)
    except OverflowError:  # a whole number or a fraction beyond what a float holds
        seconds = -math.inf if timeout_s < 0 else LONGEST_S
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidArgument(
            f"`timeout_s` is {seconds:g}; expected more than 0 seconds, or None to wait without limit."
        )
    return min(seconds, LONGEST_S)


class Deadline:
    """A moment by which several requests together must be answered. clock: what it tells the time by, in seconds."""

    def __init__(self, timeout_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self._clock = clock
        self._ends_at = None if timeout_s is None else clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds left, 0 once it has passed; None if there is no limit."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._clock())
