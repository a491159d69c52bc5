"""Looks after the connections while calls are on their way.

A peer that vanishes without a word leaves its callers waiting for their deadlines: TCP notices after many minutes, and
Triton hangs up on clients that ping it oftener than every five minutes. So a connection on which nothing has come for
a while, though something is due, is asked whether the server is live. If that is not answered either, the connection is
given up, and what waited on it is sent anew. Servers that were lost are asked when their rest is over.
"""

from __future__ import annotations

from typing import Any

from sketchbridge_client.conversation import Servers
from sketchbridge_client.errors import AccessDenied
from sketchbridge_client.messages import Ask, Failed, Question
from sketchbridge_client.programs import Pause, Program, Renew, Send
from sketchbridge_client.status import Again, Meaning, meaning_of

ROUND_S = 0.5
SILENCE_S = 3.0
PROBE_TIMEOUT_S = 4.0
"""A live server answers in milliseconds; one that is starved of processor time may take seconds."""
IDLE_S = 10.0


def patrol(servers: Servers) -> Program[None]:
    """Go round until nothing has been on its way for ten seconds, or the client is closed."""
    busy_at = servers.clock()
    while servers.clock() - max(busy_at, servers.called_at) < IDLE_S and not servers.closed:
        yield Pause(ROUND_S)
        for target in range(len(servers.targets)):
            sent = list(servers.on_its_way[target].values())
            if not sent:
                continue
            busy_at = servers.clock()
            if busy_at - max(min(sent), servers.heard_at[target]) > SILENCE_S:
                yield from _question_the_silent(servers, target)
        for target in servers.balancer.to_be_asked():
            ready = yield Send(target, Ask(Question.SERVER_READY), PROBE_TIMEOUT_S, ())
            if ready is True or _refuses_to_tell(ready):
                servers.balancer.well(target)
            else:
                servers.balancer.lost(target)


def _question_the_silent(servers: Servers, target: int) -> Program[None]:
    asked_at = servers.clock()
    live = yield Send(target, Ask(Question.SERVER_LIVE), PROBE_TIMEOUT_S, ())
    lost = isinstance(live, Failed) and (
        live.code == "DEADLINE_EXCEEDED" or meaning_of(live).again is Again.LOST  # not all of UNAVAILABLE
    )
    if lost and servers.heard_at[target] < asked_at:
        servers.balancer.lost(target)
        yield Renew(target)
    servers.heard_at[target] = servers.clock()


def _refuses_to_tell(outcome: Any) -> bool:
    """Whether a server is there, and does not let this client ask after its health."""
    return isinstance(outcome, Failed) and meaning_of(outcome) == Meaning(AccessDenied)
