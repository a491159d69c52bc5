from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from sketchbridge_client import http_aio_transport, http_answers
from sketchbridge_client.errors import AccessDenied, ConnectionFailed, InvalidArgument
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import (
    Ask,
    Failed,
    Headers,
    Infer,
    Inferred,
    Question,
    Reply,
    Request,
    bytes_tensor,
    elements_of,
)
from sketchbridge_client.status import Attempt, error_of
from sketchbridge_client.targets import Target, Tls, parse_targets
from sketchbridge_client.transports import AsyncTransport, Transport
from sketchbridge_server import ServerConfig, TritonServer

STAND_IN = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))
LIVE = Ask(Question.SERVER_LIVE)
OPENSSL = shutil.which("openssl")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
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


@pytest.fixture(params=[send_blocking, send_async], ids=["blocking", "asyncio"])
def send(request: pytest.FixtureRequest) -> Any:
    return request.param


def failure(send: Send, *arguments: Any, **options: Any) -> Failed:
    with pytest.raises(Failed) as caught:
        send(*arguments, **options)
    return caught.value


def infer(data: bytes, *, model: str = "shoes", **parameters: Any) -> Infer:
    return Infer(model, "", (bytes_tensor("sketch", [data]),), ("photo",), parameters, "abc")


def wait_for(event: threading.Event) -> None:
    assert event.wait(20), "it did not happen within 20 s"


# A real Triton


PATIENT = """backend: "python"
max_batch_size: 1
input [{ name: "sketch" data_type: TYPE_STRING dims: [1] }]
output [{ name: "photo" data_type: TYPE_STRING dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
dynamic_batching { default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 60000000 } }
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP address of a Triton with two of the stand-in models, and one that heeds the time in the queue."""
    folder = tmp_path_factory.mktemp("repository")
    configs = {"patient": PATIENT, "shoes": PATIENT.replace("max_batch_size: 1", "max_batch_size: 8")}
    for name, config in configs.items():
        (folder / name / "1").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("stand_in_model.py"), folder / name / "1" / "model.py")
        (folder / name / "config.pbtxt").write_text(config)
    server = TritonServer(ServerConfig(repositories=(folder,), http_port=0, grpc_port=0, metrics_port=0))
    server.start()
    try:
        server.wait_until_ready()
        yield server.endpoints.http_url
    finally:
        server.stop(grace_period_s=0)


def notes_of(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, Inferred)
    picture = Image.open(io.BytesIO(elements_of(reply.outputs[0])[0]))
    return {**picture.text, "parameters": json.loads(picture.text["parameters"])}  # type: ignore[attr-defined]


def test_a_real_triton_runs_a_model(send: Send, triton: str, png: bytes) -> None:
    parameters: dict[str, Any] = {"fit": "crop", "quality": 90, "sigma": 0.8, "fast": True, "note": "é"}
    reply = send(triton, infer(png, **parameters))
    assert isinstance(reply, Inferred)
    assert (reply.model, reply.version, [output.name for output in reply.outputs]) == ("shoes", "1", ["photo"])
    notes = notes_of(reply)
    assert notes["parameters"] == parameters
    assert notes["request_id"] == "abc"
    assert notes["sha256"] == hashlib.sha256(png).hexdigest()


def test_all_outputs_come_in_binary_if_none_is_named(send: Send, triton: str, png: bytes) -> None:
    reply = send(triton, replace(infer(png), outputs=(), version="1"))
    assert notes_of(reply)["sha256"] == hashlib.sha256(png).hexdigest()


def test_a_large_picture_goes_there_and_back(send: Send, triton: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "png", compress_level=0)
    reply = send(triton, infer(buffer.getvalue()))
    assert isinstance(reply, Inferred)
    assert notes_of(reply)["sha256"] == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert len(reply.outputs[0].data) > 4_000_000


def test_a_real_triton_answers_every_question(send: Send, triton: str) -> None:
    answers: dict[Question, Any] = {question: send(triton, Ask(question, "shoes")) for question in Question}
    assert answers[Question.SERVER_LIVE] is True
    assert answers[Question.SERVER_READY] is True
    assert answers[Question.MODEL_READY] is True
    assert answers[Question.MODEL_METADATA]["inputs"] == [{"name": "sketch", "datatype": "BYTES", "shape": [-1, 1]}]
    assert answers[Question.MODEL_CONFIG]["max_batch_size"] == 8
    assert answers[Question.STATISTICS]["model_stats"][0]["name"] == "shoes"
    assert [model["name"] for model in answers[Question.REPOSITORY_INDEX]["models"]] == ["patient", "shoes"]
    assert send(triton, Ask(Question.MODEL_READY, "nope")) is False
    assert send(triton, Ask(Question.MODEL_READY, "shoes", "9")) is False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("INVALID_ARG", "INVALID_ARGUMENT"),
        ("INTERNAL", "INTERNAL"),
        ("NOT_FOUND", "NOT_FOUND"),
        ("UNAVAILABLE", "UNAVAILABLE"),
        ("UNSUPPORTED", "UNIMPLEMENTED"),
    ],
)
def test_the_errors_of_a_real_triton_have_grpcs_codes(
    send: Send, triton: str, png: bytes, code: str, expected: str
) -> None:
    failed = failure(send, triton, infer(png, raise_error=code))
    assert (failed.code, failed.words) == (expected, "as asked")


def test_a_real_triton_tells_what_it_has_not(send: Send, triton: str, png: bytes) -> None:
    for request in (infer(png, model="nope"), replace(infer(png), version="9"), infer(png, model="../health/live")):
        failed = failure(send, triton, request)
        assert (failed.code, "unknown model" in failed.words) == ("NOT_FOUND", True)


def test_a_real_triton_gives_a_request_up_that_waited_too_long_in_the_queue(triton: str, png: bytes) -> None:
    transport = HttpTransport(target_of(triton), None)
    try:
        # One is in the model and one waits at its door; only the third is in the queue.
        before = [transport.begin(infer(png, model="patient", sleep_s=0.5), 20.0, ()) for _ in range(2)]
        time.sleep(0.2)  # so that the third comes last
        third = transport.begin(infer(png, model="patient").within(0.01), 20.0, ()).outcome()
        assert all(isinstance(flight.outcome(), Inferred) for flight in before)
    finally:
        transport.close()
    assert isinstance(third, Failed)
    assert "Request timeout expired" in third.words


def test_many_tasks_share_one_transport(triton: str, png: bytes) -> None:
    async def send_all() -> list[Reply]:
        transport = HttpAsyncTransport(target_of(triton), None)
        try:
            return await asyncio.gather(*(transport.send(infer(png, number=number), 60.0, ()) for number in range(300)))
        finally:
            await transport.close()

    assert [notes_of(reply)["parameters"]["number"] for reply in asyncio.run(send_all())] == list(range(300))


def test_threads_share_one_transport(triton: str, png: bytes) -> None:
    transport = HttpTransport(target_of(triton), None)
    numbers: dict[int, int] = {}

    def work(first: int) -> None:
        for number in range(first, first + 20):
            numbers[number] = notes_of(transport.send(infer(png, number=number), 60.0, ()))["parameters"]["number"]

    threads = [threading.Thread(target=work, args=(20 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()
    assert numbers == {number: number for number in range(160)}


# A server of HTTP that gives the answers Triton cannot be made to give


class ScriptedServer:
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


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
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


def test_a_request_is_sent_as_it_is_meant(send: Send, scripted: ScriptedServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.json_response({"model_name": "shoes"}, headers={"Set-Cookie": "a=b"})

    scripted.answer = answer
    headers = (("authorization", "Bearer geheim"), ("content-length", "7"), ("accept-encoding", "gzip"))
    send(f"{scripted.url}/behind%20a/proxy/", infer(b"123", model="a/b"), headers=headers)
    came = scripted.came[0]
    assert came.raw_path == "/behind%20a/proxy/v2/models/a%2Fb/infer"
    assert came.headers["Authorization"] == "Bearer geheim"
    assert came.headers.getall("Content-Length") == [str(len(bodies[0]))]
    assert came.headers.getall("Accept-Encoding") == ["identity"]
    assert bodies[0].endswith(b"\3\0\0\x00123")


def test_cookies_are_not_kept(scripted: ScriptedServer) -> None:
    scripted.reply(headers={"Set-Cookie": "a=b"})
    transport = HttpTransport(target_of(scripted.url), None)
    assert [transport.send(LIVE, 20.0, ()) for _ in range(2)] == [True, True]
    transport.close()
    assert [request.headers.get("Cookie") for request in scripted.came] == [None, None]
    assert len(set(scripted.ports)) == 1  # the connection is kept


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(send: Send, scripted: ScriptedServer, status: int) -> None:
    scripted.reply(status, headers={"Location": f"{scripted.url}/elsewhere"})
    failed = failure(send, scripted.url, LIVE, headers=(("authorization", "Bearer geheim"),))
    assert failed.code == "UNIMPLEMENTED"
    assert "/elsewhere; redirects are not followed" in failed.words
    assert len(scripted.came) == 1


def test_a_proxys_page_and_its_retry_after_are_understood(send: Send, scripted: ScriptedServer) -> None:
    scripted.reply(503, b"<html>busy</html>", {"Content-Type": "text/html", "Retry-After": "3"})
    failed = failure(send, scripted.url, infer(b""))
    assert (failed.code, failed.words, failed.retry_after_s) == ("UNAVAILABLE", "HTTP 503 Service Unavailable", 3.0)


def test_an_answer_that_makes_no_sense_is_an_invalid_response(send: Send, scripted: ScriptedServer) -> None:
    scripted.reply(200, b"<html>welcome</html>")
    failed = failure(send, scripted.url, infer(b""))
    assert (failed.code, failed.words[:21]) == ("OK", "The answer is no JSON")


def test_a_compressed_answer_is_refused_unread(send: Send, scripted: ScriptedServer) -> None:
    scripted.reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert "`gzip`" in failure(send, scripted.url, infer(b"")).words
    scripted.reply(500, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert failure(send, scripted.url, infer(b"")).words == "HTTP 500 Internal Server Error"


def test_an_answer_without_an_end_is_refused_while_it_is_read(
    send: Send, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (http_aio_transport, http_answers):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 200_000)
    scripted.stream(200, b"{", b" " * 50_000)
    failed = failure(send, scripted.url, infer(b""), timeout_s=60.0)
    assert (failed.code, "larger than the 200,000 bytes" in failed.words) == ("OK", True)
    wait_for(scripted.left)


def test_an_error_without_an_end_is_read_no_further_than_it_is_of_use(send: Send, scripted: ScriptedServer) -> None:
    scripted.stream(500, b"oh no ", b"a" * 50_000)
    failed = failure(send, scripted.url, infer(b""), timeout_s=60.0)
    assert (failed.code, "oh no" in failed.words) == ("INTERNAL", True)
    wait_for(scripted.left)


def test_the_time_is_over_while_the_server_thinks(send: Send, scripted: ScriptedServer) -> None:
    assert failure(send, scripted.url, infer(b""), timeout_s=0.2).code == "DEADLINE_EXCEEDED"
    wait_for(scripted.left)


def test_the_time_is_over_however_often_a_byte_comes(send: Send, scripted: ScriptedServer) -> None:
    scripted.stream(200, b"{", b" ")
    assert failure(send, scripted.url, infer(b""), timeout_s=0.3).code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_nothing_is_sent_without_time(send: Send, scripted: ScriptedServer, timeout_s: float) -> None:
    assert failure(send, scripted.url, LIVE, timeout_s=timeout_s).code == "DEADLINE_EXCEEDED"
    assert scripted.came == []


def test_without_a_limit_an_answer_may_take_its_time(send: Send, scripted: ScriptedServer) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response()

    scripted.answer = answer
    assert send(scripted.url, LIVE, timeout_s=None) is True


def test_a_large_request_that_the_server_does_not_take_ends_in_time(send: Send, scripted: ScriptedServer) -> None:
    failed = failure(send, scripted.url, infer(bytes(40_000_000)), timeout_s=1.0)
    assert failed.code == "DEADLINE_EXCEEDED"


def test_a_request_that_json_cannot_hold_is_not_sent(send: Send, scripted: ScriptedServer) -> None:
    failed = failure(send, scripted.url, infer(b"", sigma=float("nan")))
    assert (failed.code, type(error_of(failed, Attempt("http://h")))) == (None, InvalidArgument)
    assert scripted.came == []


# Servers that are not there, or speak no HTTP


@contextmanager
def raw_server(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that does this with every connection, and then hangs up."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client may be quicker to hang up
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_closed_port_is_a_refused_connection(send: Send, closed_port: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        failed = failure(send, f"http://{host}:{closed_port}", LIVE)
        assert failed.code == "UNAVAILABLE"
        assert "Nothing answers at" in str(error_of(failed, Attempt("http://h")))


def test_a_host_without_an_address_is_not_known(send: Send) -> None:
    failed = failure(send, "http://no-such-host.invalid:8000", LIVE, timeout_s=60.0)
    assert failed.code == "UNAVAILABLE"
    assert "is not known" in str(error_of(failed, Attempt("http://h")))


HANG_UP = lambda connection: connection.recv(9999)  # noqa: E731


def half(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


def half_a_chunk(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf")


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.recv(1)


def nonsense(connection: socket.socket) -> None:
    connection.sendall(b"\0\0\x06\4\0\0\0\0\0 as a gRPC server speaks")
    connection.recv(9999)


def too_long_a_header(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000)


def bad_length(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")


@pytest.mark.parametrize("talk", [HANG_UP, half, half_a_chunk, reset, nonsense, too_long_a_header, bad_length])
def test_a_connection_that_breaks_is_unavailable(send: Send, talk: Callable[[socket.socket], object]) -> None:
    with raw_server(talk) as url:
        failed = failure(send, url, infer(b""))
    assert failed.code == "UNAVAILABLE"
    assert type(error_of(failed, Attempt("http://h"))) is ConnectionFailed


def answer_once(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_a_question_survives_that_the_server_gave_up_the_connection_it_kept() -> None:
    with raw_server(answer_once) as url:
        transport = HttpTransport(target_of(url), None)
        assert [transport.send(LIVE, 20.0, ()) for _ in range(20)] == [True] * 20
        transport.close()


ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"model_name":"shoes"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + ANSWER,
        CHUNKED + b'a;of=it\r\n{"model_na\r\nc\r\nme":"shoes"}\r\n0\r\nTrailer: 1\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"model_name":"shoes"}',
        b'HTTP/1.1 200 \r\nConnection: close\r\n\r\n{"model_name":"shoes"}',
    ],
    ids=["after interim ones", "chunked", "1.0", "to the end of the connection"],
)
def test_answers_of_every_kind_are_read(send: Send, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(answer)

    with raw_server(talk) as url:
        reply = send(url, infer(b""))
    assert isinstance(reply, Inferred)
    assert reply.model == "shoes"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello",
        b"HTTP/0.9 200 OK\r\n\r\n{}",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"many\r\n{}",
        CHUNKED + b"-5\r\n{}",
        CHUNKED + b"\r\n{}",
        CHUNKED + b"2\r\n{}",
    ],
)
def test_what_is_no_http_is_unavailable(answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(answer)

    with raw_server(talk) as url:
        assert failure(send_blocking, url, infer(b"")).code == "UNAVAILABLE"


def test_any_answer_that_is_spoilt_ends_as_a_reply_or_as_failed() -> None:
    chance = random.Random(7)  # noqa: S311  no secret
    whole = [ANSWER, CHUNKED + b'a\r\n{"model_na\r\nc\r\nme":"shoes"}\r\n0\r\n\r\n']

    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        answer = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(answer))
            answer[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"\n", b"\r\n", b"-", b"9", b":", b"\xff", b" "]
            )
        connection.sendall(answer)

    with raw_server(talk) as url:
        transport = HttpTransport(target_of(url), None)
        for _ in range(300):
            with contextlib.suppress(Failed):
                transport.send(infer(b""), 20.0, ())
        transport.close()


def test_what_comes_behind_an_answer_is_not_taken_for_the_next() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(ANSWER + ANSWER.replace(b"shoes", b"other"))
        while connection.recv(9999):
            connection.sendall(ANSWER)

    with raw_server(talk) as url:
        transport = HttpTransport(target_of(url), None)
        replies = [transport.send(infer(b""), 20.0, ()) for _ in range(2)]
        transport.close()
    assert [reply.model for reply in replies if isinstance(reply, Inferred)] == ["shoes", "shoes"]


def test_an_answer_before_the_request_was_read_is_heard() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(2**20):
            pass

    with raw_server(talk) as url:
        assert failure(send_blocking, url, infer(bytes(20_000_000))).code == "OUT_OF_RANGE"


def test_a_picture_is_not_sent_a_second_time_by_the_transport_itself() -> None:
    came: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        answer_once(connection)
        came.append(connection.recv(9999))  # and hang up

    with raw_server(talk) as url:
        transport = HttpTransport(target_of(url), None)
        assert transport.send(LIVE, 20.0, ()) is True
        with pytest.raises(Failed, match="UNAVAILABLE"):
            transport.send(infer(b""), 20.0, ())
        transport.close()
    assert [data[:5] for data in came] == [b"POST "]


def test_the_address_that_answers_is_found_behind_one_that_does_not(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.reply()
    found = socket.getaddrinfo
    with socket.socket() as deaf, socket.socket() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(deaf.getsockname())  # fills its queue, so that the next is left without an answer

        def both(host: str, port: int, **options: Any) -> list[Any]:
            if host != "two.example":
                return found(host, port, **options)
            if options.get("flags"):
                raise socket.gaierror
            return found(*deaf.getsockname(), **options) + found("127.0.0.1", port, **options)

        monkeypatch.setattr(socket, "getaddrinfo", both)
        assert send_blocking(scripted.url.replace("localhost", "two.example"), LIVE, timeout_s=4.0) is True


def test_the_time_is_over_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def look_up(*_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if not flags:
            over.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    transport = HttpTransport(target_of("http://slow.example"), None)
    with pytest.raises(Failed, match="DEADLINE_EXCEEDED"):
        transport.send(LIVE, 0.2, ())
    flight = transport.begin(LIVE, None, ())
    transport.renew()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"
    over.set()
    transport.close()


@pytest.mark.parametrize("header", ["a\r\nb: c", "a\nb: c"])
def test_a_header_with_a_line_break_is_refused(send: Send, scripted: ScriptedServer, header: str) -> None:
    assert failure(send, scripted.url, LIVE, headers=(("x-note", header),)).code is None
    assert scripted.came == []


# Giving up


def test_cancelling_the_task_hangs_up(scripted: ScriptedServer) -> None:
    async def cancel() -> None:
        transport = HttpAsyncTransport(target_of(scripted.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted.arrived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_for, scripted.left)
        await transport.close()

    asyncio.run(cancel())


def test_a_flight_can_be_given_up(scripted: ScriptedServer) -> None:
    transport = HttpTransport(target_of(scripted.url), None)
    flight = transport.begin(infer(b""), None, ())
    done = threading.Event()
    flight.when_done(done.set)
    wait_for(scripted.arrived)
    assert not done.is_set()
    flight.cancel()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "CANCELLED"
    wait_for(done)
    wait_for(scripted.left)
    transport.close()


def test_who_waits_for_a_flight_is_told_though_it_landed_long_ago(scripted: ScriptedServer) -> None:
    scripted.reply()
    transport = HttpTransport(target_of(scripted.url), None)
    flight = transport.begin(LIVE, 20.0, ())
    assert flight.outcome() is True
    told: list[bool] = []
    flight.when_done(lambda: told.append(True))
    assert told == [True]
    flight.cancel()
    assert flight.outcome() is True  # too late
    transport.close()


def test_a_callback_can_begin_the_next_flight(scripted: ScriptedServer) -> None:
    scripted.reply()
    transport = HttpTransport(target_of(scripted.url), None)
    flights = [transport.begin(LIVE, 20.0, ())]
    begun = threading.Event()

    def begin() -> None:
        flights.append(transport.begin(LIVE, 20.0, ()))
        begun.set()

    flights[0].when_done(begin)
    wait_for(begun)
    assert flights[1].outcome() is True
    transport.close()


def test_control_c_gives_the_request_up(scripted: ScriptedServer) -> None:
    transport = HttpTransport(target_of(scripted.url), None)

    def interrupt() -> None:
        wait_for(scripted.arrived)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        transport.send(infer(b""), None, ())
    thread.join()
    wait_for(scripted.left)
    transport.close()


def test_renewing_ends_what_is_on_its_way_and_connects_anew(scripted: ScriptedServer) -> None:
    transport = HttpTransport(target_of(scripted.url), None)
    transport.renew()  # nothing to renew yet
    flight = transport.begin(infer(b""), None, ())
    wait_for(scripted.arrived)
    transport.renew()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"
    wait_for(scripted.left)
    scripted.reply()
    assert transport.send(LIVE, 20.0, ()) is True
    transport.renew()
    assert transport.send(LIVE, 20.0, ()) is True
    transport.close()
    transport.renew()
    assert len(set(scripted.ports)) == 3


def test_renewing_in_a_loop_ends_what_is_on_its_way_and_no_more(scripted: ScriptedServer) -> None:
    async def renew() -> str:
        transport = HttpAsyncTransport(target_of(scripted.url), None)

        async def send() -> str:
            try:
                await transport.send(infer(b""), None, ())
            except Failed as failed:
                await asyncio.sleep(0)  # a task that is still cancelled would end here
                return failed.code or ""
            raise AssertionError

        task = asyncio.ensure_future(send())
        await asyncio.to_thread(wait_for, scripted.arrived)
        await transport.renew()
        code = await task
        scripted.reply()
        assert await transport.send(LIVE, 20.0, ()) is True
        await transport.close()
        return code

    assert asyncio.run(renew()) == "UNAVAILABLE"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 a task cannot tell who cancelled it")
def test_a_task_that_is_cancelled_while_the_connection_is_renewed_stays_cancelled(scripted: ScriptedServer) -> None:
    async def both() -> None:
        transport = HttpAsyncTransport(target_of(scripted.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted.arrived)
        task.cancel()
        await transport.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())


def test_renewing_ends_what_is_still_connecting() -> None:
    greeted, over = threading.Event(), threading.Event()

    def be_silent(connection: socket.socket) -> None:
        connection.recv(9999)
        greeted.set()
        over.wait(60)

    with raw_server(be_silent) as url:
        transport = HttpTransport(target_of(url.replace("http", "https")), None)
        flight = transport.begin(LIVE, None, ())
        wait_for(greeted)
        transport.renew()
        outcome = flight.outcome()
        over.set()
        transport.close()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"


def test_closing_ends_what_is_on_its_way_and_what_comes_after(scripted: ScriptedServer) -> None:
    transport = HttpTransport(target_of(scripted.url), None)
    flight = transport.begin(infer(b""), None, ())
    wait_for(scripted.arrived)
    transport.close()
    transport.close()
    for outcome in (flight.outcome(), transport.begin(LIVE, 20.0, ()).outcome()):
        assert isinstance(outcome, Failed)
        assert outcome.code == "CANCELLED"
    wait_for(scripted.left)
    for thread in threading.enumerate():
        if thread.name == "sketchbridge-http":
            thread.join(20)
            assert not thread.is_alive()


def test_closing_in_a_loop_ends_what_is_on_its_way_and_what_comes_after(scripted: ScriptedServer) -> None:
    async def close() -> list[Any]:
        transport = HttpAsyncTransport(target_of(scripted.url), None)
        task = asyncio.ensure_future(transport.send(infer(b""), None, ()))
        await asyncio.to_thread(wait_for, scripted.arrived)
        await transport.close()
        await transport.close()
        return [*await asyncio.gather(task, transport.send(LIVE, 20.0, ()), return_exceptions=True)]

    assert [outcome.code for outcome in asyncio.run(close())] == ["CANCELLED", "CANCELLED"]


def test_a_transport_that_was_never_used_can_be_closed() -> None:
    HttpTransport(target_of("http://localhost"), None).close()
    asyncio.run(HttpAsyncTransport(target_of("http://localhost"), None).close())


def test_a_transport_that_nobody_holds_hangs_up() -> None:
    gone = threading.Event()

    def talk(connection: socket.socket) -> None:
        answer_once(connection)
        connection.recv(1)
        gone.set()

    with raw_server(talk) as url:
        transport = HttpTransport(target_of(url), None)
        assert transport.send(LIVE, 20.0, ()) is True
        del transport
        gc.collect()
        wait_for(gone)


def test_a_transport_of_one_loop_is_refused_in_another(scripted: ScriptedServer) -> None:
    scripted.reply()
    transport = HttpAsyncTransport(target_of(scripted.url), None)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert first.run_until_complete(transport.send(LIVE, 20.0, ())) is True
    with pytest.raises(Failed, match="another event loop"):
        second.run_until_complete(transport.send(LIVE, 20.0, ()))
    first.run_until_complete(transport.close())
    first.close()
    second.close()


# Processes


PREPARED = """
import asyncio, gc, os, sys
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Ask, Question
from sketchbridge_client.targets import parse_targets
live, target = Ask(Question.SERVER_LIVE), parse_targets(sys.argv[1], None)[0]
"""


def run_script(script: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", PREPARED + textwrap.dedent(script), url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_forked_child_connects_on_its_own_and_leaves_the_parents_connection_alone(scripted: ScriptedServer) -> None:
    scripted.reply()
    said = run_script(
        """
        import warnings
        warnings.simplefilter("ignore")  # of forking with threads, and of what is left behind
        transport = HttpTransport(target, None)
        print("parent", transport.send(live, 20.0, ()), flush=True)
        if not (child := os.fork()):
            print("child", transport.send(live, 20.0, ()), flush=True)
            transport.close()
            del transport
            gc.collect()
            sys.exit()
        os.waitpid(child, 0)
        if not (child := os.fork()):
            sys.exit()  # without having used it
        os.waitpid(child, 0)
        print("parent", transport.send(live, 5.0, ()))
        transport.close()
        """,
        scripted.url,
    )
    assert said.split("\n")[:-1] == ["parent True", "child True", "parent True"]
    assert scripted.ports[0] == scripted.ports[2] != scripted.ports[1]


def test_a_program_may_end_without_closing(scripted: ScriptedServer) -> None:
    scripted.reply()
    script = """
    transport = HttpTransport(target, None)
    print(transport.send(live, 20.0, ()))
    """
    assert run_script(script, scripted.url) == "True\n"


def test_a_program_may_end_while_it_waits(scripted: ScriptedServer) -> None:
    script = """
    transport = HttpTransport(target, None)
    transport.begin(live, None, ())
    """
    assert run_script(script, scripted.url) == ""


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'sketchbridge\[http\]'"):
        HttpAsyncTransport(target_of("http://localhost"), None)


def test_aiohttp_is_not_imported_by_code_that_blocks(scripted: ScriptedServer) -> None:
    scripted.reply()
    script = """
    transport = HttpTransport(target, None)
    print(transport.send(live, 20.0, ()), 'aiohttp' in sys.modules)
    """
    assert run_script(script, scripted.url) == "True False\n"


def test_an_address_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no address"):
        HttpTransport(target_of(f"http://{'a' * 70}é.example"), None)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and certificates of it for a server (localhost, inside.example) and for a client."""
    if OPENSSL is None:
        pytest.skip("needs the command `openssl` to make certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run([str(OPENSSL), *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for authority in ("ca", "other"):
        subject = ("-subj", f"/CN={authority}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign")
        openssl("req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", *subject)
    for name, authority, names in (
        ("server", "ca", "DNS:localhost,DNS:inside.example"),
        ("client", "ca", "DNS:client"),
        ("stranger", "other", "DNS:client"),
    ):
        (folder / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-extfile", "extensions", "-out", f"{name}.pem")
    openssl("pkey", "-in", "client.key", "-aes256", "-passout", "pass:geheim", "-out", "locked.key")
    return folder


@contextmanager
def serving_tls(certificates: Path, *, mutual: bool = False, newest: bool = True) -> Iterator[str]:
    """A server that is live, and over HTTPS. Of asyncio's own servers a client would not hear why it is refused."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if mutual:
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection.dup(), server_side=True, do_handshake_on_connect=False) as secured:
            try:
                secured.do_handshake()
                secured.recv(9999)
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except ssl.SSLError:  # the client is told why; hanging up before it has read that would take it back
                connection.shutdown(socket.SHUT_WR)
                connection.recv(9999)

    with raw_server(talk) as url:
        yield url.replace("http://127.0.0.1", "https://localhost")


def test_a_server_with_a_certificate_of_the_given_authority_is_trusted(send: Send, certificates: Path) -> None:
    with serving_tls(certificates) as url:
        assert send(url, LIVE, tls=Tls(ca=certificates / "ca.pem")) is True


@pytest.mark.parametrize("ca", [None, "other.pem"])
def test_a_server_of_another_authority_is_not(send: Send, certificates: Path, ca: str | None) -> None:
    tls = Tls(ca=certificates / ca) if ca else None
    with serving_tls(certificates) as url:
        failed = failure(send, url, LIVE, tls=tls)
    assert "CERTIFICATE_VERIFY_FAILED" in failed.words
    assert type(error_of(failed, Attempt("http://h"))) is AccessDenied


def test_the_certificate_must_have_the_name_of_the_address_or_the_one_that_was_given(
    send: Send, certificates: Path
) -> None:
    ca = certificates / "ca.pem"
    with serving_tls(certificates) as url:
        by_number = url.replace("localhost", "127.0.0.1")
        failed = failure(send, by_number, LIVE, tls=Tls(ca=ca))
        assert "CERTIFICATE_VERIFY_FAILED" in failed.words
        assert send(by_number, LIVE, tls=Tls(ca=ca, server_name="inside.example")) is True
        assert failure(send, url, LIVE, tls=Tls(ca=ca, server_name="outside.example")).code == "UNAVAILABLE"


@pytest.mark.parametrize("newest", [True, False], ids=["TLS 1.3", "TLS 1.2"])
def test_mutual_tls_lets_in_who_has_a_certificate(send: Send, certificates: Path, newest: bool) -> None:
    ca = certificates / "ca.pem"
    with serving_tls(certificates, mutual=True, newest=newest) as url:
        good = Tls(ca=ca, certificate=certificates / "client.pem", key=certificates / "client.key")
        assert send(url, LIVE, tls=good) is True
        bad = Tls(ca=ca, certificate=certificates / "stranger.pem", key=certificates / "stranger.key")
        for tls in (Tls(ca=ca), bad):
            assert type(error_of(failure(send, url, LIVE, tls=tls), Attempt("http://h"))) is AccessDenied


def test_tls_with_a_server_that_has_none_fails(send: Send, scripted: ScriptedServer) -> None:
    assert failure(send, scripted.url.replace("http", "https"), LIVE).code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("ca", "certificate", "key"),
    [
        ("client.key", None, None),
        (None, "client.pem", "server.key"),
        (None, "client.key", "client.key"),
        (None, "client.pem", "locked.key"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    certificates: Path, ca: str | None, certificate: str | None, key: str | None
) -> None:
    paths = [certificates / name if name else None for name in (ca, certificate, key)]
    tls = Tls(ca=paths[0], certificate=paths[1], key=paths[2])
    with pytest.raises(InvalidArgument, match=r"^Tls: `c"):
        HttpTransport(target_of("https://localhost", tls), tls)
