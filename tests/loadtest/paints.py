"""Ways to paint that a benchmark can compare: they give back what they get."""

from __future__ import annotations

import time

from sketchbridge_loadtest.overhead import Paint


def noting(name: str, order: list[str]) -> Paint:
    """Writes its name down at each call."""

    def paint(data: bytes) -> bytes:
        order.append(name)
        return data

    return paint


def taking(seconds: float) -> Paint:
    def paint(data: bytes) -> bytes:
        time.sleep(seconds)
        return data

    return paint
