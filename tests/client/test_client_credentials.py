"""Tokens, keys and headers: how they go with each request, and which are refused before anything is sent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sketchbridge_client import AccessDenied, AsyncClient, Client, InvalidArgument, patrol
from sketchbridge_server.config import Endpoints
from tests.client.noting_servers import grpc_server
from tests.client.stand_in import stand_in_server

TOKEN, API_KEY, PASSWORD = "t0ken-mine", "k3y-mine", "p4ssword-mine"


class VaultSealed(Exception):
    pass


# What Triton asks for


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A Triton that asks for a header before it runs a model, and over gRPC before it tells its health."""
    folder = tmp_path_factory.mktemp("restricted")
    arguments = (
        f"--grpc-restricted-protocol=inference,health:door={PASSWORD}",
        f"--http-restricted-api=inference:door={PASSWORD}",
    )
    with stand_in_server(folder, ("shoes",), arguments) as endpoints:
        yield endpoints


@pytest.mark.server
@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_restricted_protocol_lets_in_who_has_the_header_and_nobody_else(
    way: Any, restricted: Endpoints, png: bytes, given: str | None
) -> None:
    header = "triton-grpc-protocol-door" if way.protocol == "grpc" else "door"
    with way.connect(restricted, headers={header: PASSWORD}) as client:
        assert client.paint(png).model == "shoes"
        assert client.ready()
    with way.connect(restricted, headers={header: given} if given else None) as client:
        with pytest.raises(AccessDenied, match=f"restricted, expecting header '{header}'.*`headers`") as caught:
            client.paint(png)
        assert "tried" not in str(caught.value)
        if way.protocol == "grpc":
            with pytest.raises(AccessDenied):
                client.ready()


# On their way


def test_a_token_a_key_and_headers_go_with_each_request(way: Any, noting: Any) -> None:
    options = {"token": TOKEN, "api_key": API_KEY, "headers": {"X-Tenant": "a b", "x-empty": ""}}
    with way.kind(noting.url, **options) as client:
        assert client.live()
        assert client.live()
    assert len(noting.seen) == 2
    for came in map(dict, noting.seen):
        assert came["authorization"] == f"Bearer {TOKEN}"
        assert came["x-api-key"] == API_KEY
        assert (came["x-tenant"], came["x-empty"]) == ("a b", "")
        assert came["traceparent"]


def test_without_credentials_none_are_sent(way: Any, noting: Any) -> None:
    with way.kind(noting.url) as client:
        client.live()
    assert not {"authorization", "x-api-key", "cookie"} & dict(noting.seen[0]).keys()


def test_a_function_is_asked_for_the_token_of_each_request(way: Any, noting: Any) -> None:
    tokens = iter(f"number-{number}" for number in range(9))
    with way.kind(noting.url, token=lambda: next(tokens)) as client:
        for _ in range(3):
            client.live()
    assert [dict(came)["authorization"] for came in noting.seen] == [f"Bearer number-{number}" for number in range(3)]


def test_a_request_that_is_tried_again_has_the_token_of_that_moment(kind: Any) -> None:
    tokens = iter(["first", "second"])
    with grpc_server() as server:

        def fail_once(_: str, context: grpc.ServicerContext) -> None:
            if len(server.calls) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

        server.before = fail_once
        with kind(f"127.0.0.1:{server.port}", token=lambda: next(tokens)) as client:
            client.paint(b"x")
        assert [dict(came)["authorization"] for came in server.seen] == ["Bearer first", "Bearer second"]


def test_tasks_that_share_a_client_each_send_the_token(kind: Any) -> None:
    async def all_at_once(port: int) -> None:
        async with AsyncClient(f"127.0.0.1:{port}", token=lambda: TOKEN) as client:
            await asyncio.gather(*(client.paint(b"x") for _ in range(20)))

    with grpc_server() as server:
        if kind is Client:
            with Client(f"127.0.0.1:{server.port}", token=lambda: TOKEN) as client, ThreadPoolExecutor(8) as pool:
                list(pool.map(client.paint, [b"x"] * 20))
        else:
            asyncio.run(all_at_once(server.port))
        assert [dict(came)["authorization"] for came in server.seen] == [f"Bearer {TOKEN}"] * 20


def test_what_the_function_raises_reaches_the_caller(way: Any, noting: Any) -> None:
    def token() -> str:
        raise VaultSealed

    with way.kind(noting.url, token=token) as client:
        for call in (client.live, client.models, lambda: client.paint(b"x")):
            with pytest.raises(VaultSealed):
                call()
    assert noting.seen == []


@pytest.mark.parametrize("given", ["a\nb", "a\r\nx-admin: yes", "é", "\0", " a", "a\n", "", None, b"a", 7])
def test_what_the_function_gives_must_be_a_header(way: Any, noting: Any, given: Any) -> None:
    with way.kind(noting.url, token=lambda: given) as client, pytest.raises(InvalidArgument, match="`token`") as caught:
        client.live()
    assert caught.value.__cause__ is None
    assert noting.seen == []


def test_what_a_server_does_not_let_in_is_not_tried_again(kind: Any) -> None:
    with grpc_server() as server:
        server.before = lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")
        with kind(f"127.0.0.1:{server.port}", token=TOKEN) as client:
            with pytest.raises(AccessDenied, match=r"the token has expired\. Check `token`"):
                client.paint(b"x")
            with pytest.raises(AccessDenied):
                client.live()
        assert len(server.calls) == 2


# The patrol asks with the same credentials


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patrol asks after a server as soon as an answer takes a little."""
    monkeypatch.setattr(patrol, "ROUND_S", 0.05)
    monkeypatch.setattr(patrol, "SILENCE_S", 0.1)


def test_the_patrol_asks_a_silent_server_with_the_same_credentials(kind: Any, impatient: None) -> None:
    asked = threading.Event()
    tokens = iter(f"number-{number}" for number in range(999))
    with grpc_server() as server:

        def answer_once_asked(name: str, _: grpc.ServicerContext) -> None:
            if name == "ModelInfer":
                assert asked.wait(30)
            asked.set()

        server.before = answer_once_asked
        with kind(f"127.0.0.1:{server.port}", token=lambda: next(tokens), api_key=API_KEY) as client:
            client.paint(b"x")
        calls = {name: dict(metadata) for name, metadata in server.calls}
    assert calls.keys() == {"ModelInfer", "ServerLive"}
    assert len({call["authorization"] for call in calls.values()}) == 2
    assert all(call["authorization"].startswith("Bearer number-") for call in calls.values())
    assert all(call["x-api-key"] == API_KEY for call in calls.values())


@pytest.fixture(scope="module")
def secretive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A Triton that tells nobody its health."""
    folder = tmp_path_factory.mktemp("secretive")
    with stand_in_server(folder, ("sketch",), ("--grpc-restricted-protocol=health:door=shut",)) as endpoints:
        yield endpoints


@pytest.mark.server
def test_a_server_that_does_not_tell_its_health_keeps_its_calls(
    kind: Any, png: bytes, impatient: None, secretive: Endpoints
) -> None:
    """Triton says UNAVAILABLE to who may not ask after its health, and is there nevertheless."""
    with kind(secretive.grpc_url) as client:
        with pytest.raises(AccessDenied):
            client.live()
        assert client.sketch(png, sleep_s=1.5).timings.attempts == 1


def test_a_lost_server_that_does_not_tell_its_health_is_back_once_it_answers(kind: Any, impatient: None) -> None:
    with grpc_server() as first, grpc_server() as second:
        refused = threading.Event()

        def refuse_to_tell(name: str, context: grpc.ServicerContext) -> None:
            if name == "ServerReady":
                refused.set()
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
            if name == "ModelInfer" and not refused.is_set():
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

        first.before = refuse_to_tell
        with kind([f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"]) as client:
            client.paint(b"x")
            client.paint(b"x")  # one of the two was sent to the first, which is left alone since then
            assert refused.wait(30)
            inner = getattr(client, "inner", client)
            give_up = time.monotonic() + 30
            while inner._core.servers.balancer.resting:
                assert time.monotonic() < give_up
                time.sleep(0.01)
            first.calls.clear()
            for _ in range(4):
                client.paint(b"x")
            assert len(first.calls) == 2


def test_a_token_that_fails_in_the_patrol_alone_leaves_the_call_and_is_not_logged(
    kind: Any, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    failed = threading.Event()
    given: list[str] = []

    def token() -> str:
        if given:
            failed.set()
            raise VaultSealed(f"cannot renew {PASSWORD}")
        given.append(TOKEN)
        return TOKEN

    with grpc_server() as server:
        server.before = lambda *_: failed.wait(30)
        with kind(f"127.0.0.1:{server.port}", token=token) as client:
            assert client.paint(b"x").model == "shoes"
    assert "VaultSealed" in caplog.text
    assert PASSWORD not in caplog.text


# What cannot be given


@pytest.mark.parametrize("where", ["token", "api_key", "header"])
@pytest.mark.parametrize(
    "value",
    [
        "s3cret\nb",
        "s3cret\r\nx-admin: yes",
        "s3cré",
        "s3cret\0",
        "s3cret\x7f",
        " s3cret",
        "s3cret ",
        "s3cret\n",
        b"s3cret",
        7,
    ],
)
def test_a_value_that_no_header_can_have_is_refused_and_not_shown(kind: Any, where: str, value: Any) -> None:
    options = {"headers": {"x-secret": value}} if where == "header" else {where: value}
    with pytest.raises(InvalidArgument) as caught:
        kind("127.0.0.1:1", **options)
    assert "s3cr" not in repr(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("", "a b", "a:b", "a\nb", "é", ":path", "grpc-timeout", "x-bin", "a\r\n", 7, None),
        *("traceparent", "Content-Type", "Content-Length", "Transfer-Encoding", "connection", "te", "accept-encoding"),
    ],
)
def test_a_name_that_no_header_of_a_caller_can_have_is_refused(kind: Any, name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^`headers`"):
        kind("127.0.0.1:1", headers={name: "a"})


@pytest.mark.parametrize(
    "options",
    [
        {"token": TOKEN, "headers": {"Authorization": "Basic abc"}},
        {"token": lambda: TOKEN, "headers": {"Authorization": "Basic abc"}},
        {"api_key": API_KEY, "headers": {"X-API-Key": "abc"}},
        {"headers": {"X-Tenant": "a", "x-tenant": "b"}},
    ],
)
def test_a_header_that_is_given_twice_is_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="is given twice"):
        kind("127.0.0.1:1", **options)


async def token_of_tomorrow() -> str:
    return TOKEN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": ""}, "`token` is empty"),
        ({"api_key": ""}, "`api_key` is empty"),
        ({"token": token_of_tomorrow}, "`token` is an async function"),
        ({"token": 7}, "`token` is a int"),
    ],
)
def test_credentials_that_cannot_be_meant_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        kind("127.0.0.1:1", **options)
