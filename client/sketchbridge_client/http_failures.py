"""What the two ways over HTTP say of requests that got no answer, or one that is not taken."""

from __future__ import annotations

import re

from sketchbridge_client.http_messages import HttpRequest, http_request
from sketchbridge_client.messages import Failed, Request

# What TLS says when the server does not like this side's certificate, or wants one.
_CERTIFICATE_REFUSED = re.compile(r"ALERT_\w*(CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE)")
_LONGEST_ENCODING = 20  # characters of it that are shown


def message_of(request: Request, timeout_s: float | None) -> HttpRequest:
    """What to send for a request. Raises Failed for one that JSON cannot hold."""
    try:
        return http_request(request, timeout_s)
    except ValueError as exc:
        raise Failed(None, f"JSON cannot hold the request: {exc}.") from exc


def broken(words: str) -> Failed:
    """The connection failed, or could not be made. words: what was said of it."""
    return Failed("UNAUTHENTICATED" if _CERTIFICATE_REFUSED.search(words) else "UNAVAILABLE", words)


def not_sent(exc: ValueError) -> Failed:
    """The request has what no request over HTTP can have."""
    return Failed(None, f"HTTP cannot carry the request: {exc}.")


def too_late(timeout_s: float | None) -> Failed:
    """The time is over."""
    if timeout_s is not None and timeout_s <= 0:
        return Failed("DEADLINE_EXCEEDED", "no time was left to send it")
    return Failed("DEADLINE_EXCEEDED", f"no answer within {timeout_s} s")


def compressed(encoding: str) -> Failed:
    """The answer came in an encoding that was not asked for."""
    return Failed("OK", f"The answer came in the encoding `{encoding[:_LONGEST_ENCODING]}`, which was not asked for.")


def too_large(limit_bytes: int) -> Failed:
    """The answer is larger than what is read of one."""
    return Failed("OK", f"The answer is larger than the {limit_bytes:,} bytes that are taken.")


def renewed() -> Failed:
    """The connection was given up while the request was on its way."""
    return Failed("UNAVAILABLE", "the connection was given up to be made anew")


def hung_up() -> Failed:
    """The client was closed."""
    return Failed("CANCELLED", "this client has hung up")


def given_up() -> Failed:
    """The request was cancelled."""
    return Failed("CANCELLED", "it was given up on this side")
