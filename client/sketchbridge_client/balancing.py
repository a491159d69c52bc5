"""Which of several servers the next request goes to: each in turn, leaving out those that were lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FIRST_REST_S = 0.25
LONGEST_REST_S = 8.0


class Balancer:
    """Round robin over `count` targets, named by their index. Threads may share it.

    A target that was lost rests, longer each time. While it rests it gets a request only if all others rest too;
    when its rest is over it has to be asked whether it is well before it gets one again, see `to_be_asked`. clock: what
    it tells the time by, in seconds.
    """

    def __init__(self, count: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = count
        self._clock = clock
        self._turn = 0
        self._rests_until: dict[int, float] = {}
        self._rest_s: dict[int, float] = {}
        self._lock = threading.Lock()

    def pick(self, avoid: int | None = None) -> int:
        """The next target. avoid: one that just failed; it is taken if there is no other, or all others rest."""
        if self.count == 1:
            return 0
        with self._lock:
            turns = [*range(self._turn, self.count), *range(self._turn)]
            awake = [index for index in turns if index not in self._rests_until]
            if awake:
                picked: int = next((index for index in awake if index != avoid), awake[0])
            else:
                picked = min((index for index in turns if index != avoid), key=self._rests_until.__getitem__)
            self._turn = (picked + 1) % self.count
            return picked

    def lost(self, index: int) -> None:
        """Nothing came from this target. It may be said by many calls at once, and counts once for each rest."""
        if self.count == 1:
            return
        now = self._clock()
        with self._lock:
            if self._rests_until.get(index, now) > now:
                return
            rest_s = min(LONGEST_REST_S, 2 * self._rest_s.get(index, FIRST_REST_S / 2))
            self._rest_s[index] = rest_s
            self._rests_until[index] = now + rest_s

    def well(self, index: int) -> None:
        """This target answered."""
        if self._rests_until:
            with self._lock:
                self._rests_until.pop(index, None)
                self._rest_s.pop(index, None)

    @property
    def resting(self) -> tuple[int, ...]:
        """The targets that rest."""
        return tuple(self._rests_until)

    def forget_lock(self) -> None:
        """In a child process: the thread that holds it may not be there."""
        self._lock = threading.Lock()

    def to_be_asked(self) -> tuple[int, ...]:
        """The targets whose rest is over."""
        now = self._clock()
        with self._lock:
            return tuple(index for index, until in self._rests_until.items() if until <= now)
