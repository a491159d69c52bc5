"""What comes over the wire of HTTP: answers of every kind, broken ones, and what is no HTTP at all."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable

import pytest

from sketchbridge_client.errors import ConnectionFailed
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Failed, Inferred
from sketchbridge_client.status import Attempt, error_of
from tests.client.http_transports import Send, failure, infer, send_blocking, target_of
from tests.client.raw_server import raw_server

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
    with raw_server(talk) as port:
        failed = failure(send, f"http://127.0.0.1:{port}", infer(b""))
    assert failed.code == "UNAVAILABLE"
    assert type(error_of(failed, Attempt("http://h"))) is ConnectionFailed


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

    with raw_server(talk) as port:
        reply = send(f"http://127.0.0.1:{port}", infer(b""))
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

    with raw_server(talk) as port:
        assert failure(send_blocking, f"http://127.0.0.1:{port}", infer(b"")).code == "UNAVAILABLE"


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

    with raw_server(talk) as port:
        transport = HttpTransport(target_of(f"http://127.0.0.1:{port}"), None)
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

    with raw_server(talk) as port:
        transport = HttpTransport(target_of(f"http://127.0.0.1:{port}"), None)
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

    with raw_server(talk) as port:
        assert failure(send_blocking, f"http://127.0.0.1:{port}", infer(bytes(20_000_000))).code == "OUT_OF_RANGE"
