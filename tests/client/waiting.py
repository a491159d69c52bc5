"""Waiting for what should come at once, on however slow a machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sketchbridge_client import Retry

LONG_S = 30.0
SOON = Retry(first_contact_s=0.2)
"""For a server that is never reached: a client gives it up after that, and not after two seconds."""


def wait_until(condition: Callable[[], bool], *, within_s: float = LONG_S) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"it did not come true within {within_s:g} s"
        time.sleep(0.005)


def wait_for(event: threading.Event) -> None:
    assert event.wait(LONG_S), f"it did not happen within {LONG_S:g} s"
