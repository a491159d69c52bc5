"""The asyncio way to a server over gRPC."""

from __future__ import annotations

import asyncio
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


class GrpcAsyncTransport:
    """A channel to one server; see transports.AsyncTransport. It is made at the first request, in the running loop."""

    def __init__(self, target: Target, tls: Tls | None) -> None:
        self._target = target
        self._credentials = channel_credentials(target, tls)
        self._options = channel_options(tls)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._stub: Any = None

    async def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """See transports.AsyncTransport."""
        if self._closed:
            raise Failed("CANCELLED", "the client was closed")
        if self._stub is None:
            self._connect()
        elif self._loop is not asyncio.get_running_loop():
            raise Failed(None, "This client is at work in another event loop. Make one for each.")
        stub = self._stub
        method, message = method_and_message(request, timeout_s)
        try:
            reply = await getattr(stub, method)(message, timeout=timeout_s, metadata=headers or None)
        except grpc.aio.AioRpcError as exc:
            raise self._failed(exc, stub) from exc
        except grpc.aio.UsageError as exc:  # the channel was closed between these lines
            raise self._given_up() from exc
        except asyncio.CancelledError:
            # gRPC cancels the awaiting task's call, and ends the calls of a closing channel in the same way.
            if stub is self._stub and not self._closed:
                raise
            task = asyncio.current_task()
            if task is not None and _being_cancelled(task):
                raise
            raise self._given_up() from None
        return read_reply(request, reply)

    async def renew(self) -> None:
        """See transports.AsyncTransport."""
        given_up, self._channel, self._stub = self._channel, None, None
        if given_up is not None:
            await given_up.close()

    async def close(self) -> None:
        """See transports.AsyncTransport."""
        self._closed = True
        await self.renew()

    def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target.address, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(self._target.address, self._credentials, options=self._options)
        self._stub = stub_of(self._channel)

    def _failed(self, error: Any, stub: Any) -> Failed:
        return failed_of(error) if stub is self._stub and not self._closed else self._given_up()

    def _given_up(self) -> Failed:
        if self._closed:
            return Failed("CANCELLED", "the client was closed")
        return Failed("UNAVAILABLE", "the connection was given up, as nothing came over it")


def _being_cancelled(task: asyncio.Task[Any]) -> bool:
    """Whether somebody cancels this task. Python 3.10 cannot tell; there it is taken for the closing channel."""
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and cancelling() > 0
