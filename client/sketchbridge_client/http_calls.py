"""One request over blocking HTTP: its connection, the time it has left, and what ends it from another thread."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from http.client import HTTPException
from typing import Any, cast

from sketchbridge_client.http_answers import Answer, Incoming, read_answer
from sketchbridge_client.http_failures import broken, given_up, too_late
from sketchbridge_client.http_messages import HttpRequest
from sketchbridge_client.messages import Failed, Reply
from sketchbridge_client.sockets import send_some

_WHOLE_BYTES = 64 * 1024  # a request up to this is copied, to be sent as one
_PIECE_BYTES = 1024 * 1024  # of a larger one
_LONGEST_WAIT_S = 1_000_000.0  # that a socket takes
_LONGEST_WORDS = 300  # of an answer that is no HTTP


class HttpCall:
    """One request on its way: the connection it holds, the time it has left, and what stops it from another thread."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._lock = threading.Lock()  # so that no connection is shut down whose number the next one has already
        self._connection: socket.socket | None = None
        self._reason: Callable[[], Failed] | None = None
        self.news: queue.SimpleQueue[object] = queue.SimpleQueue()  # ends a wait for something else than a socket
        self.has_heard = False

    def left_s(self) -> float | None:
        """The time that is left, as a socket takes it. Raises TimeoutError if there is none."""
        if self._ends_at is None:
            return None
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(left_s, _LONGEST_WAIT_S)

    def failed(self, exc: OSError | HTTPException) -> Failed:
        """What a failure means for this call."""
        if self._reason is not None:
            return self._reason()
        if isinstance(exc, TimeoutError) and exc.errno is None:  # else it is the system that has waited long enough
            return too_late(self.timeout_s)
        if isinstance(exc, OSError):
            return broken(str(exc) or type(exc).__name__)
        return broken(f"the answer is no HTTP, or not all of it: {exc!r}"[:_LONGEST_WORDS])

    def hold(self, connection: socket.socket) -> socket.socket:
        """Have this connection, and close the one before. Raises Failed if the call was given up."""
        with self._lock:
            before, self._connection = self._connection, connection
            if before is not None:
                before.close()
        self._check()
        return connection

    def secure(self, context: ssl.SSLContext, server_name: str) -> None:
        """Speak TLS over the connection."""
        with self._lock:
            self._connection = secured = context.wrap_socket(
                cast("socket.socket", self._connection), server_hostname=server_name, do_handshake_on_connect=False
            )
        self._check()
        secured.settimeout(self.left_s())
        secured.do_handshake()

    def set_off(self) -> None:
        """Have the connection ready to be written to and read from; from here on `sockets` waits for it."""
        with self._lock:
            cast("socket.socket", self._connection).settimeout(0)
        self._check()

    def exchange(self, message: HttpRequest, head: bytes) -> Answer:
        """Send the request over the connection and read the answer. Raises Failed, OSError, HTTPException."""
        connection = cast("socket.socket", self._connection)
        self.has_heard = False
        try:
            self._write(connection, head, message.body)
            sent = True
        except (ConnectionError, ssl.SSLError):  # the server may have said why it takes no more
            sent = False
        incoming = Incoming(connection, self.left_s)
        try:
            answer = read_answer(incoming, message.method)
        finally:
            self.has_heard = incoming.has_come
        self._check()
        return answer if sent else replace(answer, can_go_on=False)

    def _write(self, connection: socket.socket, head: bytes, body: tuple[bytes, ...]) -> None:
        parts = (head, *body)
        if sum(map(len, parts)) <= _WHOLE_BYTES:
            parts = (b"".join(parts),)
        for part in parts:
            left = memoryview(part)
            while left:
                left = left[send_some(connection, left[:_PIECE_BYTES], self.left_s) :]

    def let_go(self) -> socket.socket | None:
        """The connection, which is no longer this call's."""
        with self._lock:
            connection, self._connection = self._connection, None
        return connection

    def give_up(self, reason: Callable[[], Failed]) -> None:
        """From any thread: end it at once, as this failure."""
        with self._lock:
            self._reason = self._reason or reason
            if self._connection is not None:
                with contextlib.suppress(OSError):  # it may not be connected yet
                    # Not TLS's own, after which what is sent meanwhile would go out in the clear.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
        self.news.put(None)

    def forget(self) -> None:
        """In a child process: close what it has of its parent's connection."""
        if self._connection is not None:
            self._connection.close()

    def _check(self) -> None:
        if self._reason is not None:
            raise self._reason()


class HttpFlight:
    """A Flight over HTTP. The callback of `when_done` runs in its thread, or in the one that cancels it."""

    def __init__(self, call: HttpCall, work: Callable[[], Reply]) -> None:
        self._call = call
        self._future: Future[Reply] = Future()
        _start("sketchbridge-http", lambda: self._fly(work))

    def cancel(self) -> None:
        """As of Flight. HTTP has no word for it: the connection is closed."""
        if self._future.cancel():
            self._call.give_up(given_up)

    def outcome(self) -> Reply | Failed:
        """As of Flight."""
        try:
            return self._future.result()
        except Failed as exc:
            return exc
        except CancelledError:
            return given_up()

    def when_done(self, callback: Callable[[], None]) -> None:
        """As of Flight."""
        self._future.add_done_callback(lambda _: callback())

    def _fly(self, work: Callable[[], Reply]) -> None:
        reply, failure = None, None
        try:
            reply = work()
        except BaseException as exc:  # noqa: BLE001  raised again where the outcome is asked for
            failure = exc
        if not self._future.set_running_or_notify_cancel():
            return
        if failure is not None:
            self._future.set_exception(failure)
        else:
            self._future.set_result(cast("Reply", reply))


def addresses_of(host: str, port: int, call: HttpCall) -> list[Any]:
    """What socket.getaddrinfo finds. That knows no limit of time, so a thread waits for it, and may be left behind."""
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    def ask() -> None:
        try:
            call.news.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as exc:
            call.news.put(exc)

    _start("sketchbridge-resolve", ask)
    try:
        found = call.news.get(timeout=call.left_s())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, OSError):
        raise found
    if not isinstance(found, list):  # the call was given up
        raise ConnectionAbortedError
    return found


def _start(name: str, work: Callable[[], None]) -> None:
    """Do it in a thread; or here, where none can be had: at the limit of the system, or as the interpreter ends."""
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError:
        work()
