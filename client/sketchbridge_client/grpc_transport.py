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
from sketchbridge_client.messages import Failed, Headers, Reply, Request
from sketchbridge_client.targets import Target, Tls


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

    def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """See transports.Transport."""
        method, message = method_and_message(request)
        while True:
            stub = self._present_stub()
            try:
                reply = getattr(stub, method)(message, timeout=timeout_s, metadata=headers or None)
            except grpc.RpcError as exc:
                raise self._failed(exc, stub) from exc
            except ValueError:  # the channel was closed between these lines
                if stub is self._stub and not self._closed:
                    raise
            else:
                return read_reply(request, reply)

    def begin(self, request: Request, timeout_s: float | None, headers: Headers) -> _GrpcFlight:
        """See transports.Transport."""
        method, message = method_and_message(request)
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
        self._lock, self._channel, self._stub = threading.RLock(), None, None

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


class _GrpcFlight:
    """See transports.Flight."""

    def __init__(self, request: Request, future: Any, failed: Callable[[Any], Failed]) -> None:
        self._request = request
        self._future = future
        self._failed = failed

    def cancel(self) -> None:
        self._future.cancel()

    def outcome(self) -> Reply | Failed:
        try:
            return read_reply(self._request, self._future.result())
        except grpc.RpcError as exc:
            return self._failed(exc)
        except grpc.FutureCancelledError:
            return Failed("CANCELLED", "it was given up on this side")
        except Failed as failed:
            return failed

    def when_done(self, callback: Callable[[], None]) -> None:
        self._future.add_done_callback(lambda _: callback())
