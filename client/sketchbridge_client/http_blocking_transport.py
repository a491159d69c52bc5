"""The blocking way to a server over HTTP, in the thread of the caller.

A connection carries one request at a time. Those that are idle are kept, and the last one used is the first to be used
again.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from urllib.parse import quote, urlsplit

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.http_answers import Answer
from sketchbridge_client.http_calls import HttpCall, HttpFlight, addresses_of
from sketchbridge_client.http_failures import (
    hung_up,
    message_of,
    not_sent,
    renewed,
)
from sketchbridge_client.http_messages import HttpRequest, read_reply
from sketchbridge_client.lost_peers import notice_when_gone
from sketchbridge_client.messages import Failed, Headers, Reply, Request
from sketchbridge_client.sockets import is_quiet
from sketchbridge_client.targets import Target, Tls

_KEPT_S = 15.0  # an idle connection: what stands between forgets those that are idle for long, and does not say so
_PATH = "/%:@!$&'()*+,;=~"  # what stays as it is in the path of an address

_Idle = deque[tuple[socket.socket, float]]  # and since when, by time.monotonic; the last one used is the last


class HttpTransport:
    """A Transport over HTTP. A forked child leaves the connections of its parent alone and makes its own.

    Raises InvalidArgument if the address is none, or `tls` cannot be used.
    """

    def __init__(self, target: Target, tls: Tls | None) -> None:
        self._host, self._port, self._headers, self._prefix = _place(target)
        self._server_name = (tls.server_name if tls else None) or self._host.partition("%")[0].rstrip(".")
        self._ssl = _ssl_context(tls, self._server_name) if target.secure else None
        # Of what follows; nothing is waited for while it is held. `close` may come by way of the garbage collector.
        self._lock = threading.RLock()
        self._idle: _Idle = deque()
        self._calls: set[HttpCall] = set()
        self._closed = False
        weakref.finalize(self, _close_idle, self._idle)  # also before the interpreter ends
        _LIVING.add(self)

    def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """As of Transport."""
        return self._send(HttpCall(timeout_s), request, headers)

    def begin(self, request: Request, timeout_s: float | None, headers: Headers) -> HttpFlight:
        """As of Transport. It has a thread of its own."""
        call = HttpCall(timeout_s)
        return HttpFlight(call, lambda: self._send(call, request, headers))

    def renew(self) -> None:
        """As of Transport."""
        self._hang_up(renewed)

    def close(self) -> None:
        """As of Transport."""
        self._closed = True
        self._hang_up(hung_up)

    def forget(self) -> None:
        """In a child process: close what it has of its parent's connections, which stay open in the parent.

        The locks may be held by threads that are not there.
        """
        self._lock = threading.RLock()
        _close_idle(self._idle)
        for call in self._calls:
            call.forget()
        self._calls = set()

    def _hang_up(self, reason: Callable[[], Failed]) -> None:
        with self._lock:
            for call in self._calls:
                call.give_up(reason)
            _close_idle(self._idle)

    def _send(self, call: HttpCall, request: Request, headers: Headers) -> Reply:
        message = message_of(request, call.timeout_s)
        try:
            head = self._head(message, headers)
        except ValueError as exc:
            raise not_sent(exc) from exc
        answer: Answer | None = None
        try:
            with self._lock:
                if self._closed:
                    raise hung_up()
                self._calls.add(call)
            answer = self._exchange(call, message, head)
        except (OSError, HTTPException) as exc:
            raise call.failed(exc) from exc
        finally:
            self._land(call, keep=answer is not None and answer.can_go_on)
        try:
            return read_reply(request, answer.status, answer.headers, answer.body, now_s=time.time())
        except ValueError as exc:
            raise Failed("OK", str(exc)) from exc

    def _head(self, message: HttpRequest, headers: Headers) -> bytes:
        """What goes before the body. Raises ValueError for headers that cannot be sent."""
        named = {**self._headers, **dict(headers), **dict(message.headers)}
        named["accept-encoding"] = "identity"  # pictures are compressed already
        if message.method == "POST":
            named["content-length"] = str(sum(map(len, message.body)))
        lines = [f"{message.method} {self._prefix}{message.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("there is a line break in a header")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _exchange(self, call: HttpCall, message: HttpRequest, head: bytes) -> Answer:
        while True:
            kept = self._take(call)
            if not kept:
                self._connect(call)
            try:
                return call.exchange(message, head)
            except ConnectionError:
                # The server may have given up a connection that it kept, just when the request was on its way.
                if not kept or message.method != "GET" or call.has_heard:
                    raise

    def _take(self, call: HttpCall) -> bool:
        """Give the call a connection that was kept, if there is one that still lives."""
        oldest = time.monotonic() - _KEPT_S
        while True:
            with self._lock:
                if not self._idle:
                    return False
                kept, since = self._idle.pop()
            if since >= oldest and is_quiet(kept):
                call.hold(kept)
                return True
            kept.close()

    def _land(self, call: HttpCall, *, keep: bool) -> None:
        """The call is over: keep its connection, or close it."""
        now = time.monotonic()
        over: list[socket.socket] = []
        with self._lock:
            self._calls.discard(call)
            connection = call.let_go()
            if connection is not None:
                if keep and not self._closed:
                    self._idle.append((connection, now))
                else:
                    over.append(connection)
            while self._idle and self._idle[0][1] < now - _KEPT_S:
                over.append(self._idle.popleft()[0])
        for connection in over:
            connection.close()

    def _connect(self, call: HttpCall) -> None:
        """Give the call a new connection: to the first address of the host that takes one."""
        addresses = addresses_of(self._host, self._port, call)
        failure: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            left_s = call.left_s()
            try:
                connection = call.hold(socket.socket(family, kind, protocol))  # fails where IPv6 is off
                connection.settimeout(None if left_s is None else left_s / (len(addresses) - number))
                connection.connect(address)
            except OSError as exc:
                failure = exc
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_when_gone(connection)
            if self._ssl is not None:
                call.secure(self._ssl, self._server_name)
            call.set_off()
            return
        raise failure or OSError(f"`{self._host}` has no address")


def _close_idle(idle: _Idle) -> None:
    while idle:
        idle.pop()[0].close()


def _place(target: Target) -> tuple[str, int, dict[str, str], str]:
    """The host in ASCII, the port, the headers that go with every request, and the path before Triton's own."""
    parts = urlsplit(target.address)
    try:
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as exc:
        raise InvalidArgument(f"`url` is {target.url!r}, which is no address: {exc}.") from exc
    shown = host.partition("%")[0]  # what follows is of this machine only
    shown = f"[{shown}]" if ":" in shown else shown
    headers = {
        "host": shown if parts.port is None else f"{shown}:{parts.port}",
        "accept": "*/*",
        "user-agent": "sketchbridge",
    }
    path = re.sub("%(?![0-9A-Fa-f]{2})", "%25", quote(parts.path, safe=_PATH)).rstrip("/")
    return host, parts.port or (443 if target.secure else 80), headers, path


def _ssl_context(tls: Tls | None, server_name: str) -> ssl.SSLContext:
    context = (tls or Tls()).context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name)
    except ValueError as exc:
        raise InvalidArgument(f"TLS cannot ask for `{server_name}`; expected the name of a host: {exc}.") from exc
    return context


# After a fork a child leaves what it has of its parent's connections

_LIVING: weakref.WeakSet[HttpTransport] = weakref.WeakSet()


def _forget_all() -> None:
    for transport in _LIVING:
        transport.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
