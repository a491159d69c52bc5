"""One request until it is answered or cannot be: which server gets it, how often, and after what pause."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sketchbridge_client.balancing import Balancer
from sketchbridge_client.errors import ConnectionFailed, InvalidArgument, SketchbridgeError
from sketchbridge_client.messages import Ask, Failed, Infer, Question, Reply, Request
from sketchbridge_client.models import read_index
from sketchbridge_client.programs import Pause, Program, Race, Send
from sketchbridge_client.retries import Retry, RetryBudget, pause_s
from sketchbridge_client.status import Again, Attempt, error_of, meaning_of
from sketchbridge_client.targets import Target
from sketchbridge_client.telemetry import Observation
from sketchbridge_client.timeouts import LONGEST_S, Deadline

_ASIDE_TIMEOUT_S = 2.0  # for asking why a request failed
_BROKE_PAUSE_S = (0.05, 0.25)  # before the budget is asked again
_TOO_LATE_S = 0.002  # a try with less time left cannot be answered
_UNREACHED = frozenset({Again.LOST, Again.ELSEWHERE})
_LOADING = frozenset({"LOADING", "UNLOADING", "READY"})


@dataclass(frozen=True)
class Hedge:
    """Send a second copy of a request that takes unusually long, to another server if there is one.

    after_s: how long that is; None for the 95th percentile of the model's last answers, once there are `at_least`.

    The copy takes from the retry budget, so that a server that is slow for all is not asked for twice the work.
    Source: J. Dean and L. A. Barroso, "The Tail at Scale", Communications of the ACM 56 (2), 2013.
    """

    after_s: float | None = None
    at_least: int = 20

    def __post_init__(self) -> None:
        after_s: object = self.after_s
        is_number = isinstance(after_s, (int, float)) and not isinstance(after_s, bool)
        if self.after_s is not None and not (is_number and 0 < self.after_s <= LONGEST_S):
            raise InvalidArgument(
                f"Hedge: `after_s` is {after_s!r}; expected more than 0 seconds and up to {LONGEST_S:,.0f}, or None."
            )
        at_least: object = self.at_least
        if isinstance(at_least, bool) or not isinstance(at_least, int) or at_least < 2:
            raise InvalidArgument(
                f"Hedge: `at_least` is {at_least!r}; expected a whole number, and a percentile takes 2 or more."
            )


@dataclass(slots=True)
class Settled:
    """A request that was answered. target: by which server. tries: the one that was answered included."""

    reply: Reply
    target: int
    tries: int


class Servers:
    """What a client knows of its servers, and how it talks with them. Threads may share it.

    Attributes: clock, what they tell the time by, in seconds; closed; called_at, when the last call began; on_its_way,
    for each target the times at which its unanswered requests were sent; heard_at, when each target answered last.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        retry: Retry,
        hedge: Hedge | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.targets = tuple(targets)
        self.clock = clock
        self.balancer = Balancer(len(targets), clock=clock)
        self.closed = False
        self.called_at = 0.0
        self.on_its_way: tuple[dict[int, float], ...] = tuple({} for _ in targets)
        self.heard_at = [0.0] * len(targets)
        self._retry = retry
        self._budget = RetryBudget(retry)
        self._hedge = hedge
        self._took_s: dict[str, deque[float]] = {}
        self._reached = False
        self._numbers = itertools.count()

    @property
    def urls(self) -> str:
        """The addresses, as they were given."""
        return ", ".join(target.url for target in self.targets)

    def converse(
        self, request: Request, deadline: Deadline, observation: Observation, *, request_id: str | None = None
    ) -> Program[Settled]:
        """Send until it is answered. Raises a SketchbridgeError if it is not, or the answer is no."""
        story = _Story(self.clock(), deadline)
        while True:
            target = self.balancer.pick(story.last_target if story.tries else None)
            remaining_s = deadline.remaining_s()
            after_s = self._hedge_after_s(request)
            started = time.perf_counter()
            if after_s is None:
                outcome = yield from self._send(target, request, remaining_s, observation)
            else:
                target, outcome = yield from self._race(target, request, remaining_s, after_s, observation)
            observation.sent_s += time.perf_counter() - started
            story.tries += 1
            if not isinstance(outcome, Failed):
                observation.tried(None, self.targets[target].url)
                self.balancer.well(target)
                if story.tries > 1:
                    self._budget.give_back()
                return Settled(outcome, target, story.tries)
            observation.tried(outcome, self.targets[target].url)
            story.note(target, outcome, self.clock())
            wait_s = yield from self._wait_s(request, story)
            if wait_s is None:
                raise self._error(request, story, request_id) from outcome
            if wait_s:
                yield Pause(wait_s)
                if self.closed:
                    raise self._error(request, story, request_id) from outcome
            story.tried_at = self.clock()

    def any_says_yes(self, ask: Ask, deadline: Deadline, observation: Observation) -> Program[bool]:
        """Ask each server in turn, once, until one says yes. Raises AccessDenied; who does not answer says no.

        The time is shared out, so that one that is silent leaves some for the others.
        """
        failed: Failed | None = None
        for target in range(len(self.targets)):
            left_s = deadline.remaining_s()
            share_s = None if left_s is None else left_s / (len(self.targets) - target)
            outcome = yield from self._send(target, ask, share_s, observation)
            observation.tried(outcome if isinstance(outcome, Failed) else None, self.targets[target].url)
            if outcome is True:
                return True
            if isinstance(outcome, Failed):
                if failed is None or issubclass(meaning_of(failed).error, ConnectionFailed):  # a no says more
                    failed = outcome
                if meaning_of(outcome).again in _UNREACHED:
                    self.balancer.lost(target)
        if failed is not None:
            error = error_of(failed, Attempt(self.urls, ask.model or None, timeout_s=deadline.timeout_s))
            if not isinstance(error, ConnectionFailed) or self.closed:
                raise error from failed
        return False

    def forget_callers(self) -> None:
        """In a child process: the threads of its parent that called or held a lock are not there."""
        self.on_its_way = tuple({} for _ in self.targets)
        self.balancer.forget_lock()
        self._budget.forget_lock()

    def _race(
        self, target: int, request: Request, remaining_s: float | None, after_s: float, observation: Observation
    ) -> Program[tuple[int, Reply | Failed]]:
        def second() -> Send | None:
            other = self.balancer.pick(target)
            if not self._budget.take(self.clock()):
                return None
            observation.hedged()
            self.on_its_way[other].setdefault(number, self.clock())
            left_s = None if remaining_s is None else remaining_s - after_s
            return Send(other, request, left_s, observation.headers)

        first = Send(target, request, remaining_s, observation.headers)
        number = next(self._numbers)
        started = self.clock()
        try:
            self.on_its_way[target][number] = started
            winner, outcome = yield Race(first, second, after_s)
        finally:
            for on_its_way in self.on_its_way:
                on_its_way.pop(number, None)
        self._hear(winner, outcome)
        if isinstance(request, Infer) and not isinstance(outcome, Failed):
            self._took_s.setdefault(request.model, deque(maxlen=128)).append(self.clock() - started)
        return winner, outcome

    def _send(
        self, target: int, request: Request, timeout_s: float | None, observation: Observation
    ) -> Program[Reply | Failed]:
        number = next(self._numbers)
        try:
            self.on_its_way[target][number] = self.clock()
            outcome: Reply | Failed = yield Send(target, request, timeout_s, observation.headers)
        finally:
            self.on_its_way[target].pop(number, None)
        self._hear(target, outcome)
        return outcome

    def _hear(self, target: int, outcome: Reply | Failed) -> None:
        if isinstance(outcome, Failed) and (
            outcome.code == "DEADLINE_EXCEEDED" or meaning_of(outcome).again in _UNREACHED
        ):
            return
        self._reached = True
        self.heard_at[target] = self.clock()

    def _hedge_after_s(self, request: Request) -> float | None:
        if self._hedge is None or not isinstance(request, Infer):
            return None
        if self._hedge.after_s is not None:
            return self._hedge.after_s
        took_s = list(self._took_s.setdefault(request.model, deque(maxlen=128)))
        if len(took_s) < self._hedge.at_least:
            return math.inf
        return statistics.quantiles(took_s, n=20)[-1]

    def _wait_s(self, request: Request, story: _Story) -> Program[float | None]:
        """How long to wait before the next try, or None for no next one."""
        if not (yield from self._may_help(request, story)):
            return None
        waited_s = 0.0
        asked_s = story.failed.retry_after_s or 0.0
        if asked_s > self._left_s(story):  # one more try, in case; not one after the other until the deadline
            if story.begged:
                return None
            story.begged = True
        while (left_s := self._left_s(story)) > _TOO_LATE_S and not self.closed:
            # The last try comes while there is still time for an answer.
            if self._budget.take(self.clock()):
                return min(max(0.0, self._pause_s(story) - waited_s), left_s / 2)
            broke_s = min(random.uniform(*_BROKE_PAUSE_S), left_s / 2)  # noqa: S311  jitter, no secret
            waited_s += broke_s
            yield Pause(broke_s)
        return None

    def _may_help(self, request: Request, story: _Story) -> Program[bool]:
        """Whether the same request may be answered if it is sent again."""
        again = meaning_of(story.failed).again
        if again in _UNREACHED and not (story.over or self.closed):
            self.balancer.lost(story.last_target)
        if story.over or again is Again.NO or self._retry.never or self.closed:
            return False
        if again is Again.LOST:
            story.dead.discard(story.last_target)
            return self._reached or self.clock() - story.began_at < self._retry.first_contact_s
        if again is Again.ELSEWHERE:
            story.unfit.add(story.last_target)
            return len(story.unfit) < len(self.targets)
        if again is Again.FEW_TIMES:
            if story.last_target not in story.dead:  # else it is still the same death
                story.dead.add(story.last_target)
                story.deaths += 1
            return story.deaths <= self._retry.deaths
        if again is Again.IF_LEAVING:
            return (yield from self._leaving(request, story))
        return True

    def _pause_s(self, story: _Story) -> float:
        others_are_up = len(self.balancer.resting) < len(self.targets)
        if others_are_up and story.tries < len(self.targets) and meaning_of(story.failed).again is not Again.LATER:
            return 0.0
        return pause_s(self._retry, story.tries, at_least_s=story.failed.retry_after_s or 0.0)

    def _left_s(self, story: _Story) -> float:
        remaining_s = story.deadline.remaining_s()
        if remaining_s is not None:
            return remaining_s
        return self._retry.give_up_s - (self.clock() - story.began_at)

    def _leaving(self, request: Request, story: _Story) -> Program[bool]:
        """Whether the model that is gone may be back: elsewhere, after a restart, or once it is loaded."""
        if story.tries < len(self.targets):
            return True
        timeout_s = min(_ASIDE_TIMEOUT_S, max(self._left_s(story), _TOO_LATE_S))
        answer: Any = yield Send(story.last_target, Ask(Question.REPOSITORY_INDEX), timeout_s, ())
        if isinstance(answer, Failed):
            return meaning_of(answer).again is not Again.NO
        states = {entry.state for entry in read_index(answer) if entry.name == request.model}
        return bool(states & _LOADING)

    def _error(self, request: Request, story: _Story, request_id: str | None) -> SketchbridgeError:
        model = request.model or None
        if self.closed and meaning_of(story.failed).again is not Again.NO:
            return ConnectionFailed(
                f"This client of {self.urls} was closed during the call.",
                status=story.failed.code,
                model=model,
                request_id=request_id,
            )
        attempt = Attempt(self.targets[story.last_target].url, model, request_id, story.deadline.timeout_s, story.tries)
        return error_of(story.failed, attempt)


_NOTHING = Failed("OK", "")


class _Story:
    """What has happened to one request so far."""

    __slots__ = (
        "began_at",
        "begged",
        "dead",
        "deadline",
        "deaths",
        "failed",
        "last_target",
        "over",
        "tried_at",
        "tries",
        "unfit",
    )

    def __init__(self, began_at: float, deadline: Deadline) -> None:
        self.began_at = began_at
        self.tried_at = began_at  # when the last try began
        self.deadline = deadline
        self.tries = 0
        self.deaths = 0
        self.dead: set[int] = set()  # targets whose process died, and that have not been restarted since
        self.unfit: set[int] = set()  # targets that will not do, whatever is sent to them
        self.last_target = 0
        self.failed = _NOTHING
        self.over = False  # the deadline has passed
        self.begged = False  # the server was tried again though it had asked for more time than there is

    def note(self, target: int, failed: Failed, now: float) -> None:
        """A try failed, now."""
        self.last_target = target
        self.over = failed.code == "DEADLINE_EXCEEDED"
        # A last try that had little time left says less than what went before it.
        if not (self.over and self.tries > 1 and now - self.tried_at < (now - self.began_at) / 2):
            self.failed = failed
