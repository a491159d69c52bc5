"""The way to a server over HTTP for asyncio. It stands on aiohttp, which the SDK can do without, so that is imported
when a transport is made.

One connection carries one request at a time; those that are idle are kept and used again.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import sys
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.http_failures import (
    broken,
    compressed,
    hung_up,
    message_of,
    not_sent,
    renewed,
    too_large,
    too_late,
)
from sketchbridge_client.http_messages import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, HttpRequest, read_reply
from sketchbridge_client.lost_peers import notice_when_gone
from sketchbridge_client.messages import Failed, Headers, Reply, Request
from sketchbridge_client.targets import Target, Tls

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

_WHOLE_BYTES = 512 * 1024  # a body up to this is sent as one; aiohttp warns of more than 1 MiB
_PIECE_BYTES = 256 * 1024  # of a larger one, so that a loop with many requests is not held up
_BUFFER_BYTES = 1024 * 1024  # of an answer, before the server is held up
_UNCOMPRESSED = {"accept-encoding": "identity"}  # pictures are compressed already

Ways = dict["asyncio.Task[Any]", "asyncio.Transport | None"]
"""The tasks that send, each with the connection it has come to, if it has one yet."""


class HttpAsyncTransport:
    """An AsyncTransport over HTTP. It belongs to the event loop in which it first sends.

    Raises InvalidArgument if aiohttp is not installed, the address is none, or the files of `tls` cannot be used.
    """

    def __init__(self, target: Target, tls: Tls | None) -> None:
        self._aiohttp = _aiohttp()
        self._address = _address(target)
        self._ssl = (tls or Tls()).context() if target.secure else None
        self._server_name = tls.server_name if tls else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._ways: Ways = {}
        self._given_up: dict[asyncio.Task[Any], Failed] = {}
        self._closed = False
        _LIVING.add(self)

    async def send(self, request: Request, timeout_s: float | None, headers: Headers) -> Reply:
        """As of AsyncTransport."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine of asyncio runs in one
        self._ways[task] = None
        try:
            status, answer_headers, body = await self._exchange(message_of(request, timeout_s), timeout_s, headers)
        except asyncio.CancelledError:
            failed = self._given_up.get(task)
            if failed is None or _is_cancelled_by_others_too(task):
                raise
            raise failed from None
        finally:
            self._given_up.pop(task, None)
            way = self._ways.pop(task)
            if way is not None and way.is_closing():
                way.abort()  # else it stays until the server has read the rest, or has taken its leave of TLS
        try:
            return read_reply(request, status, answer_headers, body, now_s=time.time())
        except ValueError as exc:
            raise Failed("OK", str(exc)) from exc

    async def renew(self) -> None:
        """As of Transport."""
        await self._hang_up(renewed())

    async def close(self) -> None:
        """As of Transport."""
        self._closed = True
        await self._hang_up(hung_up())

    def forget(self) -> None:
        """In a child process: leave what it has of its parent's connections as it is, and connect anew."""
        if self._session is not None:
            self._session.detach()
        self._session = self._loop = None
        self._ways, self._given_up = {}, {}

    async def _hang_up(self, failed: Failed) -> None:
        session, self._session = self._session, None
        for task in self._ways.keys() - self._given_up.keys():
            self._given_up[task] = failed
            task.cancel()
        if session is not None:
            await session.close()

    async def _exchange(
        self, message: HttpRequest, timeout_s: float | None, headers: Headers
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The status, the headers and the body of the answer. Raises Failed."""
        if self._closed:
            raise hung_up()
        if timeout_s is not None and timeout_s <= 0:
            raise too_late(timeout_s)
        aiohttp = self._aiohttp
        try:
            async with self._session_here().request(
                message.method,
                _whole_url(self._address + message.path),
                headers={**dict(headers), **dict(message.headers), **_UNCOMPRESSED},
                data=_data(message),
                timeout=aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=math.inf),
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                return response.status, response.headers, await _body(response)
        except asyncio.TimeoutError as exc:
            raise too_late(timeout_s) from _without_frames(exc)
        except (aiohttp.ClientError, OSError) as exc:
            raise broken(str(exc) or type(exc).__name__) from _without_frames(exc)
        except ValueError as exc:
            raise not_sent(exc) from exc

    def _session_here(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None:
            aiohttp = self._aiohttp
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=_connector_class()(self._ways, limit=0, ssl=self._ssl or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_BUFFER_BYTES,
            )
        elif self._loop is not loop:
            raise Failed(None, "This client is at work in another event loop. Make one for each.")
        return self._session


# What is left in a child process after a fork: the connections are not its own

_LIVING: weakref.WeakSet[HttpAsyncTransport] = weakref.WeakSet()


def _forget_all() -> None:
    for transport in _LIVING:
        transport.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


@functools.cache
def _connector_class() -> Any:
    import aiohttp  # noqa: PLC0415  see _aiohttp

    class Connector(aiohttp.TCPConnector):
        """Notes in `ways` which task sends over which connection, and does not hang up in a child process.

        That would take the parent's sockets out of the parent's event loop.
        """

        def __init__(self, ways: Ways, **options: Any) -> None:
            super().__init__(**options)
            self._ways = ways
            self._process_id = os.getpid()

        async def connect(self, *arguments: Any, **options: Any) -> aiohttp.connector.Connection:
            connection = await super().connect(*arguments, **options)
            task = asyncio.current_task()
            if task in self._ways:
                self._ways[task] = connection.transport
            if connection.transport is not None:
                notice_when_gone(connection.transport.get_extra_info("socket"))
            return connection

        def __del__(self, *_: Any) -> None:
            if os.getpid() == self._process_id:
                super().__del__()

    return Connector


# aiohttp


def _aiohttp() -> Any:
    """The module. Raises InvalidArgument where it is not installed."""
    try:
        import aiohttp  # noqa: PLC0415  those who speak gRPC do without
    except ImportError as exc:
        raise InvalidArgument(
            "HTTP in asyncio needs aiohttp, which is not installed: `pip install 'sketchbridge[http]'`. Or speak gRPC, "
            "or use the Client that blocks."
        ) from exc
    return aiohttp


def _url(text: str, *, encoded: bool) -> URL:
    from yarl import URL  # noqa: PLC0415  comes with aiohttp

    return URL(text, encoded=encoded)


@functools.lru_cache(maxsize=256)  # callers go to the same again and again
def _whole_url(text: str) -> URL:
    return _url(text, encoded=True)


def _address(target: Target) -> str:
    """As it is sent: the host in ASCII, the path quoted."""
    try:
        return str(_url(target.address, encoded=False)).rstrip("/")
    except ValueError as exc:
        raise InvalidArgument(f"`url` is {target.url!r}, which is no address: {exc}.") from exc


def _data(message: HttpRequest) -> bytes | AsyncIterator[memoryview] | None:
    """The body as aiohttp takes it."""
    if sum(map(len, message.body)) > _WHOLE_BYTES:
        return _pieces(message.body)
    return b"".join(message.body) or None


async def _pieces(parts: tuple[bytes, ...]) -> AsyncIterator[memoryview]:
    for part in parts:
        for at in range(0, len(part), _PIECE_BYTES):
            yield memoryview(part)[at : at + _PIECE_BYTES]


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer; of an error what is of use. Raises Failed for one that is too large or compressed."""
    well = response.status == HTTPStatus.OK
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        response.close()
        if well:
            raise compressed(encoding)
        return b""
    limit = MAX_ANSWER_BYTES if well else MAX_ERROR_BYTES
    chunks, size = [], 0
    while size <= limit and (chunk := await response.content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    if well and size > limit:
        raise too_large(limit)
    return b"".join(chunks)


def _without_frames(exc: BaseException) -> BaseException:
    """The same, and those it came of, without aiohttp's frames.

    They refer to each other in circles. With thousands of requests that fail, the collector that undoes them holds the
    whole process up for a tenth of a second.
    """
    one: BaseException | None = exc
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return exc


def _is_cancelled_by_others_too(task: asyncio.Task[Any]) -> bool:
    """Of a task that was cancelled here. Takes that back, as asyncio asks for; before 3.11 it cannot be told."""
    return sys.version_info >= (3, 11) and task.uncancel() > 0
