"""Both HTTP transports over TLS: whom they trust, and who trusts them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sketchbridge_client.errors import AccessDenied, InvalidArgument
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.status import Attempt, error_of
from sketchbridge_client.targets import Tls
from tests.client.certificates import server_context
from tests.client.http_transports import LIVE, Send, failure, target_of
from tests.client.raw_server import raw_server
from tests.client.scripted_http import ScriptedHttpServer


@contextmanager
def serving_tls(certificates: Path, *, mutual: bool = False, newest: bool = True) -> Iterator[str]:
    """A server that is live, and over HTTPS."""

    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with raw_server(talk, server_context(certificates, mutual=mutual, newest=newest)) as port:
        yield f"https://localhost:{port}"


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


def test_tls_with_a_server_that_has_none_fails(send: Send, scripted_http: ScriptedHttpServer) -> None:
    assert failure(send, scripted_http.url.replace("http", "https"), LIVE).code == "UNAVAILABLE"


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
