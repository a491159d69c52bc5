"""The HTTP transport of asyncio alone: its task and its loop, and what it needs installed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.messages import Failed
from tests.client.http_transports import LIVE, infer, target_of
from tests.client.scripted_http import ScriptedHttpServer
from tests.client.waiting import wait_for


def test_cancelling_the_task_hangs_up(scripted_http: ScriptedHttpServer) -> None:
    async def cancel() -> None:
        transport = HttpAsyncTransport(target_of(scripted_http.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted_http.arrived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_for, scripted_http.left)
        await transport.close()

    asyncio.run(cancel())


def test_renewing_in_a_loop_ends_what_is_on_its_way_and_no_more(scripted_http: ScriptedHttpServer) -> None:
    async def renew() -> str:
        transport = HttpAsyncTransport(target_of(scripted_http.url), None)

        async def send() -> str:
            try:
                await transport.send(infer(b""), None, ())
            except Failed as failed:
                await asyncio.sleep(0)  # a task that is still cancelled would end here
                return failed.code or ""
            raise AssertionError

        task = asyncio.ensure_future(send())
        await asyncio.to_thread(wait_for, scripted_http.arrived)
        await transport.renew()
        code = await task
        scripted_http.reply()
        assert await transport.send(LIVE, 20.0, ()) is True
        await transport.close()
        return code

    assert asyncio.run(renew()) == "UNAVAILABLE"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 a task cannot tell who cancelled it")
def test_a_task_that_is_cancelled_while_the_connection_is_renewed_stays_cancelled(
    scripted_http: ScriptedHttpServer,
) -> None:
    async def both() -> None:
        transport = HttpAsyncTransport(target_of(scripted_http.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted_http.arrived)
        task.cancel()
        await transport.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())


def test_closing_in_a_loop_ends_what_is_on_its_way_and_what_comes_after(scripted_http: ScriptedHttpServer) -> None:
    async def close() -> list[Any]:
        transport = HttpAsyncTransport(target_of(scripted_http.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted_http.arrived)
        await transport.close()
        await transport.close()
        return [*await asyncio.gather(task, transport.send(LIVE, 20.0, ()), return_exceptions=True)]

    assert [outcome.code for outcome in asyncio.run(close())] == ["CANCELLED", "CANCELLED"]


def test_a_transport_of_one_loop_is_refused_in_another(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply()
    transport = HttpAsyncTransport(target_of(scripted_http.url), None)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert first.run_until_complete(transport.send(LIVE, 20.0, ())) is True
    with pytest.raises(Failed, match="another event loop"):
        second.run_until_complete(transport.send(LIVE, 20.0, ()))
    first.run_until_complete(transport.close())
    first.close()
    second.close()


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'sketchbridge\[http\]'"):
        HttpAsyncTransport(target_of("http://localhost"), None)
