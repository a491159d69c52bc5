"""Sending over one HTTP transport, blocking or of asyncio, as the tests of both do it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Ask, Failed, Headers, Infer, Question, Reply, Request, bytes_tensor
from sketchbridge_client.targets import Target, Tls, parse_targets
from sketchbridge_client.transports import AsyncTransport, Transport

LIVE = Ask(Question.SERVER_LIVE)
Send = Callable[..., Reply]


def target_of(url: str, tls: Tls | None = None) -> Target:
    return parse_targets(url, tls)[0]


def send_blocking(
    url: str, request: Request, *, timeout_s: float | None = 20.0, headers: Headers = (), tls: Tls | None = None
) -> Reply:
    transport: Transport = HttpTransport(target_of(url, tls), tls)
    try:
        return transport.send(request, timeout_s, headers)
    finally:
        transport.close()


def send_async(
    url: str, request: Request, *, timeout_s: float | None = 20.0, headers: Headers = (), tls: Tls | None = None
) -> Reply:
    async def send() -> Reply:
        transport: AsyncTransport = HttpAsyncTransport(target_of(url, tls), tls)
        try:
            return await transport.send(request, timeout_s, headers)
        finally:
            await transport.close()

    return asyncio.run(send())


def failure(send: Send, *arguments: Any, **options: Any) -> Failed:
    with pytest.raises(Failed) as caught:
        send(*arguments, **options)
    return caught.value


def infer(data: bytes, *, model: str = "shoes", **parameters: Any) -> Infer:
    return Infer(model, "", (bytes_tensor("sketch", [data]),), ("photo",), parameters, "abc")
