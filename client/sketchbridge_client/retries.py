"""When a request that failed is sent again. Deciding only: nothing here sends or sleeps.

Sources: exponential back-off with full jitter, M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
2015; retry budgets as in Finagle's RetryBudget and gRPC's proposal A6.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, fields

from sketchbridge_client.errors import InvalidArgument

_MOST = 31_536_000  # of seconds, a year; of retries, more than anyone could wait for


@dataclass(frozen=True)
class Retry:
    """How a client tries again. The defaults bridge the restart of a server within a call's deadline.

    first_contact_s: how long to look for a server that this client has never reached; a wrong address should fail
    soon. give_up_s: how long to try if the call has no deadline. first_pause_s, longest_pause_s: bounds of the pause
    before a try; it is drawn evenly between 0 and the bound, which doubles from the first to the longest.
    deaths: how many processes of Python models may die before no other try is made, as each may die of the request.
    budget: how many retries may be made at once. budget_per_s: how many a second after those. Each success gives back
    what it took. A retry that finds the budget spent waits for it; it is not given up. Each is a number from 0 to
    31,536,000, in seconds a year. Raises InvalidArgument for anything else.
    """

    first_contact_s: float = 2.0
    give_up_s: float = 120.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    deaths: int = 1
    budget: int = 32
    budget_per_s: float = 10.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
                raise InvalidArgument(f"Retry: `{one.name}` is {value!r}; expected a number from 0 to {_MOST:,}.")
        if self.give_up_s and not self.budget + self.budget_per_s:
            raise InvalidArgument("Retry: `budget` and `budget_per_s` are both 0. Use NEVER to try once only.")

    @property
    def never(self) -> bool:
        """Whether each request is sent once only."""
        return self.give_up_s == 0


DEFAULT_RETRY = Retry()
NEVER = Retry(first_contact_s=0, give_up_s=0, deaths=0, budget=0, budget_per_s=0)
"""Each request is sent once."""

_LARGEST_EXPONENT = 32


def pause_s(retry: Retry, failures: int, *, at_least_s: float = 0.0) -> float:
    """How long to wait before the next try: full jitter. failures: tries that failed so far, from 1.

    at_least_s: what the server asks for.
    """
    bound = min(retry.longest_pause_s, retry.first_pause_s * 2 ** min(failures - 1, _LARGEST_EXPONENT))
    return at_least_s + random.uniform(0, bound)  # noqa: S311  jitter, no secret


class RetryBudget:
    """A token bucket that all calls of a client share, so that a sick server is not stormed. Threads may share it."""

    def __init__(self, retry: Retry) -> None:
        self._most = float(max(retry.budget, 1))
        self._per_s = retry.budget_per_s
        self._tokens = float(retry.budget)
        self._filled_at: float | None = None
        self._lock = threading.Lock()

    def take(self, now_s: float) -> bool:
        """Take the token for one retry. now_s: of a clock that never goes back. False if there is none."""
        with self._lock:
            if self._filled_at is not None:
                now_s = max(now_s, self._filled_at)  # threads come here in another order than they read the clock
                grown = self._tokens + (now_s - self._filled_at) * self._per_s
                self._tokens = max(self._tokens, min(self._most, grown))
            self._filled_at = now_s
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def give_back(self) -> None:
        """A retry was answered: the server is well enough for another one."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + 1)

    def forget_lock(self) -> None:
        """In a child process: the thread that holds it may not be there."""
        self._lock = threading.Lock()
