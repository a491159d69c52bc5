"""The blocking way to a server over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from sketchbridge_client.grpc_messages import (
    channel_credentials,
    channel_options,
    failed_of,
    method_and_message,
    read_reply,
    stub_of,
)
from sketchbridge_client.messages import Ask, Failed, Headers, Reply, Request
from sketchbridge_client.targets import Target, Tls

_GRPC_TELLS_S = 0.01  # for gRPC to say itself that the deadline has passed
_KERNEL_TAKES_BYTES = 16 * 1024  # what Linux buffers for a connection at the least, tcp_wmem
_HEADERS_BYTES = 512  # of a request, about


class GrpcTransport:
    """A channel to one server; see transports.Transport. It is made at the first request."""

    def __init__(self, target: Target, tls: Tls | None) -> None:
        self._target = target
        self._credentials = channel_credentials(target, tls)
        self._options = channel_options(tls)
        self._lock = threading.RLock()  # `close` may come while the lock is held here, by way of the garbage collector
        self._closed = False
        self._channel: Any = None
        self._stub: Any = None
        self._counting = threading.Lock()
        self._unanswered = 0
        self._unread_bytes = 0  # of requests that are not answered, at the most; some may have been given up

    def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """See transports.Transport."""
        size = _size(request)
        with self._counting:
            self._unread_bytes += size
            self._unanswered += 1
            at_once = self._unread_bytes <= _KERNEL_TAKES_BYTES
        outcome: Reply | Failed = Failed("CANCELLED", "it was given up on this side")
        try:
            if at_once:
                outcome = self._wait_here(request, timeout_s, headers)
            else:
                outcome = self.begin(request, timeout_s, headers).outcome_within(timeout_s)
        finally:
            with self._counting:
                self._unanswered -= 1
                if self._unanswered == 0:
                    self._unread_bytes = 0
                elif not isinstance(outcome, Failed):  # who answers has read it
                    self._unread_bytes -= size
        if isinstance(outcome, Failed):
            raise outcome
        return outcome

    def _wait_here(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply | Failed:
        """The quicker way: the calling thread waits within gRPC, with no other to wake it.

        Past its deadline it would stay there until what is being written to the connection is written, or the kernel
        gives the connection up after some 20 s, and nothing can call it back. So this is only for requests that the
        kernel has room for, whether the other side reads or not.
        """
        method, message = method_and_message(request, timeout_s)
        while True:
            stub = self._present_stub()
            try:
                return read_reply(request, getattr(stub, method)(message, timeout=timeout_s, metadata=headers or None))
            except grpc.RpcError as exc:
                return self._failed(exc, stub)
            except Failed as failed:
                return failed
            except ValueError:  # the channel was closed between these lines
                if stub is self._stub and not self._closed:
                    raise

    def begin(self, request: Request, timeout_s: float | None, headers: Headers) -> _GrpcFlight:
        """See transports.Transport."""
        method, message = method_and_message(request, timeout_s)
        while True:
            stub = self._present_stub()
            try:
                future = getattr(stub, method).future(message, timeout=timeout_s, metadata=headers or None)
            except ValueError:
                if stub is self._stub and not self._closed:
                    raise
            else:
                return _GrpcFlight(request, future, partial(self._failed, stub=stub))

    def renew(self) -> None:
        """See transports.Transport."""
        with self._lock:
            given_up, self._channel, self._stub = self._channel, None, None
        if given_up is not None:
            given_up.close()

    def close(self) -> None:
        """See transports.Transport."""
        self._closed = True
        self.renew()

    def forget(self) -> None:
        """See transports.Transport."""
        self._lock, self._counting = threading.RLock(), threading.Lock()
        self._channel, self._stub, self._unanswered, self._unread_bytes = None, None, 0, 0

    def _connect(self) -> None:
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self._target.address, options=self._options)
        else:
            self._channel = grpc.secure_channel(self._target.address, self._credentials, options=self._options)
        self._stub = stub_of(self._channel)

    def _present_stub(self) -> Any:
        stub = self._stub
        if stub is not None:
            return stub
        with self._lock:
            if self._closed:
                raise Failed("CANCELLED", "the client was closed")
            if self._stub is None:
                self._connect()
            return self._stub

    def _failed(self, error: Any, stub: Any) -> Failed:
        if stub is not self._stub and not self._closed:
            return Failed("UNAVAILABLE", "the connection was given up, as nothing came over it")
        return failed_of(error)


def _size(request: Request) -> int:
    if isinstance(request, Ask):
        return _HEADERS_BYTES
    return _HEADERS_BYTES + sum(tensor.size_bytes for tensor in request.inputs)


class _GrpcFlight:
    """See transports.Flight."""

    def __init__(self, request: Request, future: Any, failed: Callable[[Any], Failed]) -> None:
        self._request = request
        self._future = future
        self._failed = failed

    def cancel(self) -> None:
        self._future.cancel()

    def outcome(self) -> Reply | Failed:
        return self.outcome_within(None)

    def outcome_within(self, timeout_s: float | None) -> Reply | Failed:
        """What came of it, as soon as something has or the time is over.

        gRPC keeps the deadline too, but tells of it only once what it was writing to the connection is written, which
        takes long where the other side does not read.
        """
        try:
            message = self._future.result(None if timeout_s is None else timeout_s + _GRPC_TELLS_S)
            return read_reply(self._request, message)
        except grpc.FutureTimeoutError:
            self._future.cancel()
            return Failed("DEADLINE_EXCEEDED", "no answer in time")
        except grpc.RpcError as exc:
            return self._failed(exc)
        except grpc.FutureCancelledError:
            return Failed("CANCELLED", "it was given up on this side")
        except Failed as failed:
            return failed

    def when_done(self, callback: Callable[[], None]) -> None:
        self._future.add_done_callback(lambda _: callback())
