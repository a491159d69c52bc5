"""A server of HTTP that gives the answers Triton cannot be made to give."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from tests.client.waiting import wait_for

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedHttpServer:
    """`answer` is called for each request. `came`: what came, and from which port."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Handler = self.wait
        self.came: list[web.Request] = []
        self.ports: list[int] = []
        self.arrived = threading.Event()
        self.left = threading.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.came.append(request)
        self.ports.append(request.transport.get_extra_info("peername")[1])  # type: ignore[union-attr]
        self.arrived.set()
        return await self.answer(request)

    async def wait(self, request: web.Request) -> web.StreamResponse:
        """Never answer; `left` is set when the client has hung up."""
        try:
            await asyncio.sleep(60)
        finally:
            self.left.set()
        raise AssertionError

    def reply(self, status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Give every request this answer."""

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers=headers)

        self.answer = answer

    def stream(self, status: int, first: bytes, then: bytes) -> None:
        """Answer without an end; `left` is set when the client has hung up."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=status)
            try:
                await response.prepare(request)
                await response.write(first)
                while True:
                    await response.write(then)
                    await asyncio.sleep(0.001)
            finally:
                self.left.set()

        self.answer = answer


@contextmanager
def scripted_http_server() -> Iterator[ScriptedHttpServer]:
    server = ScriptedHttpServer()
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://localhost:{runner.addresses[0][1]}"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(started)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
