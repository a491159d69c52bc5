"""How both HTTP transports send a request, understand its answer and keep to its time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from sketchbridge_client import http_aio_transport, http_answers
from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.status import Attempt, error_of
from tests.client.http_transports import LIVE, Send, failure, infer, target_of
from tests.client.scripted_http import ScriptedHttpServer
from tests.client.waiting import wait_for


def test_a_request_is_sent_as_it_is_meant(send: Send, scripted_http: ScriptedHttpServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.json_response({"model_name": "shoes"}, headers={"Set-Cookie": "a=b"})

    scripted_http.answer = answer
    headers = (("authorization", "Bearer geheim"), ("content-length", "7"), ("accept-encoding", "gzip"))
    send(f"{scripted_http.url}/behind%20a/proxy/", infer(b"123", model="a/b"), headers=headers)
    came = scripted_http.came[0]
    assert came.raw_path == "/behind%20a/proxy/v2/models/a%2Fb/infer"
    assert came.headers["Authorization"] == "Bearer geheim"
    assert came.headers.getall("Content-Length") == [str(len(bodies[0]))]
    assert came.headers.getall("Accept-Encoding") == ["identity"]
    assert bodies[0].endswith(b"\3\0\0\x00123")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(send: Send, scripted_http: ScriptedHttpServer, status: int) -> None:
    scripted_http.reply(status, headers={"Location": f"{scripted_http.url}/elsewhere"})
    failed = failure(send, scripted_http.url, LIVE, headers=(("authorization", "Bearer geheim"),))
    assert failed.code == "UNIMPLEMENTED"
    assert "/elsewhere; redirects are not followed" in failed.words
    assert len(scripted_http.came) == 1


def test_a_proxys_page_and_its_retry_after_are_understood(send: Send, scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply(503, b"<html>busy</html>", {"Content-Type": "text/html", "Retry-After": "3"})
    failed = failure(send, scripted_http.url, infer(b""))
    assert (failed.code, failed.words, failed.retry_after_s) == ("UNAVAILABLE", "HTTP 503 Service Unavailable", 3.0)


def test_an_answer_that_makes_no_sense_is_an_invalid_response(send: Send, scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply(200, b"<html>welcome</html>")
    failed = failure(send, scripted_http.url, infer(b""))
    assert (failed.code, failed.words[:21]) == ("OK", "The answer is no JSON")


def test_a_compressed_answer_is_refused_unread(send: Send, scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert "`gzip`" in failure(send, scripted_http.url, infer(b"")).words
    scripted_http.reply(500, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert failure(send, scripted_http.url, infer(b"")).words == "HTTP 500 Internal Server Error"


def test_an_answer_without_an_end_is_refused_while_it_is_read(
    send: Send, scripted_http: ScriptedHttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (http_aio_transport, http_answers):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 200_000)
    scripted_http.stream(200, b"{", b" " * 50_000)
    failed = failure(send, scripted_http.url, infer(b""), timeout_s=60.0)
    assert (failed.code, "larger than the 200,000 bytes" in failed.words) == ("OK", True)
    wait_for(scripted_http.left)


def test_an_error_without_an_end_is_read_no_further_than_it_is_of_use(
    send: Send, scripted_http: ScriptedHttpServer
) -> None:
    scripted_http.stream(500, b"oh no ", b"a" * 50_000)
    failed = failure(send, scripted_http.url, infer(b""), timeout_s=60.0)
    assert (failed.code, "oh no" in failed.words) == ("INTERNAL", True)
    wait_for(scripted_http.left)


def test_the_time_is_over_while_the_server_thinks(send: Send, scripted_http: ScriptedHttpServer) -> None:
    assert failure(send, scripted_http.url, infer(b""), timeout_s=0.2).code == "DEADLINE_EXCEEDED"
    wait_for(scripted_http.left)


def test_the_time_is_over_however_often_a_byte_comes(send: Send, scripted_http: ScriptedHttpServer) -> None:
    scripted_http.stream(200, b"{", b" ")
    assert failure(send, scripted_http.url, infer(b""), timeout_s=0.3).code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_nothing_is_sent_without_time(send: Send, scripted_http: ScriptedHttpServer, timeout_s: float) -> None:
    assert failure(send, scripted_http.url, LIVE, timeout_s=timeout_s).code == "DEADLINE_EXCEEDED"
    assert scripted_http.came == []


def test_without_a_limit_an_answer_may_take_its_time(send: Send, scripted_http: ScriptedHttpServer) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    scripted_http.answer = answer
    assert send(scripted_http.url, LIVE, timeout_s=None) is True


def test_a_large_request_that_the_server_does_not_take_ends_in_time(
    send: Send, scripted_http: ScriptedHttpServer
) -> None:
    failed = failure(send, scripted_http.url, infer(bytes(40_000_000)), timeout_s=1.0)
    assert failed.code == "DEADLINE_EXCEEDED"


def test_a_request_that_json_cannot_hold_is_not_sent(send: Send, scripted_http: ScriptedHttpServer) -> None:
    failed = failure(send, scripted_http.url, infer(b"", sigma=float("nan")))
    assert (failed.code, type(error_of(failed, Attempt("http://h")))) == (None, InvalidArgument)
    assert scripted_http.came == []


@pytest.mark.parametrize("header", ["a\r\nb: c", "a\nb: c"])
def test_a_header_with_a_line_break_is_refused(send: Send, scripted_http: ScriptedHttpServer, header: str) -> None:
    assert failure(send, scripted_http.url, LIVE, headers=(("x-note", header),)).code is None
    assert scripted_http.came == []


def test_a_closed_port_is_a_refused_connection(send: Send, closed_port: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        failed = failure(send, f"http://{host}:{closed_port}", LIVE)
        assert failed.code == "UNAVAILABLE"
        assert "Nothing answers at" in str(error_of(failed, Attempt("http://h")))


def test_a_host_without_an_address_is_not_known(send: Send) -> None:
    failed = failure(send, "http://no-such-host.invalid:8000", LIVE, timeout_s=60.0)
    assert failed.code == "UNAVAILABLE"
    assert "is not known" in str(error_of(failed, Attempt("http://h")))


def test_a_transport_that_was_never_used_can_be_closed() -> None:
    HttpTransport(target_of("http://localhost"), None).close()
    asyncio.run(HttpAsyncTransport(target_of("http://localhost"), None).close())
