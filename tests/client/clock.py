"""A clock that is moved by hand."""

from __future__ import annotations


class Clock:
    """Tells the seconds that `now` is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
