"""How long work reports that it goes on, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Bar(Protocol):
    """A piece of work in progress."""

    def update(self, steps: int = 1) -> object:
        """Note that so many more steps are done."""


BarMaker = Callable[[str, int], AbstractContextManager[Bar]]
"""From a title and a number of steps, a bar that is shown while it is entered."""
