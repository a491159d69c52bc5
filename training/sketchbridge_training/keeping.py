"""Keeps decoded pictures in memory, as many as fit."""

from __future__ import annotations

from collections.abc import Callable

from sketchbridge_preprocess import Image

_MOST_BYTES = 512 * 2**20  # in each process that draws; 2,700 pictures of 256 x 256


class Keeper:
    """Pictures by number, the first ones that came, until the memory for them is full.

    None is ever put out for another: an epoch visits every picture once, so whichever was used longest ago is needed
    as soon as any other, and what is kept is what is saved. A copy sent to another process is empty.
    """

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pictures: dict[int, Image] = {}

    def get(self, number: int, load: Callable[[], Image]) -> Image:
        """The picture of that number, loaded if it isn't kept; read-only. Raises what `load` raises."""
        kept = self._pictures.get(number)
        if kept is None:
            kept = load()
            kept.flags.writeable = False
            if self._bytes + kept.nbytes <= self._most_bytes:
                self._pictures[number] = kept
                self._bytes += kept.nbytes
        return kept

    def __getstate__(self) -> tuple[int]:
        return (self._most_bytes,)

    def __setstate__(self, state: tuple[int]) -> None:
        (self._most_bytes,), self._bytes, self._pictures = state, 0, {}
