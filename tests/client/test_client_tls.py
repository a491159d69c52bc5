"""TLS both ways: whom a client trusts, who trusts it, and what the errors say.

Against a real Triton, and small servers of HTTPS, which Triton has not.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sketchbridge_client import (
    NEVER,
    AccessDenied,
    Client,
    ConnectionFailed,
    InvalidArgument,
    SketchbridgeError,
    Tls,
)
from sketchbridge_server.config import Endpoints
from tests.client.certificates import server_context
from tests.client.noting_servers import grpc_server, http_server
from tests.client.stand_in import stand_in_server
from tests.client.waiting import SOON

# The servers


@dataclass(frozen=True)
class Ports:
    """One port for each protocol, by the protocol's name."""

    grpc: int
    http: int

    def url(self, way: Any, *, host: str = "127.0.0.1", secure: bool = True) -> str:
        return f"{way.protocol}{'s' if secure else ''}://{host}:{getattr(self, way.protocol)}"


@pytest.fixture(scope="module")
def secured(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A Triton that speaks TLS over gRPC, and a server of HTTPS."""
    folder = tmp_path_factory.mktemp("secured")
    context = server_context(certificates, "server")
    with (
        stand_in_server(folder, ("shoes",), ("--grpc-use-ssl=1", *tls_arguments(certificates))) as endpoints,
        http_server(context) as server,
    ):
        yield Ports(endpoints.grpc_port, server.port)


@pytest.fixture(scope="module")
def mutual(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """The same, and both ask for a certificate of the client."""
    folder = tmp_path_factory.mktemp("mutual")
    context = server_context(certificates, "server", mutual=True)
    with (
        stand_in_server(folder, ("shoes",), ("--grpc-use-ssl-mutual=1", *tls_arguments(certificates))) as endpoints,
        http_server(context) as server,
    ):
        yield Ports(endpoints.grpc_port, server.port)


def tls_arguments(certificates: Path) -> tuple[str, ...]:
    return (
        f"--grpc-server-cert={certificates / 'server.pem'}",
        f"--grpc-server-key={certificates / 'server.key'}",
        f"--grpc-root-cert={certificates / 'ca.pem'}",
    )


def own(certificates: Path, name: str = "client", **more: Any) -> Tls:
    """TLS with the certificate of `name`."""
    files = {"certificate": certificates / f"{name}.pem", "key": certificates / f"{name}.key"}
    return Tls(ca=certificates / "ca.pem", server_name="localhost", **files, **more)


# Whom each side trusts


@pytest.mark.server
def test_a_server_with_a_certificate_of_the_given_authority_is_trusted(
    way: Any, secured: Ports, certificates: Path
) -> None:
    with way.kind(secured.url(way, host="localhost"), tls=Tls(ca=certificates / "ca.pem")) as client:
        assert client.live()


@pytest.mark.server
def test_a_picture_goes_over_tls(kind: Any, secured: Ports, certificates: Path, png: bytes) -> None:
    with kind(f"grpcs://localhost:{secured.grpc}", tls=Tls(ca=str(certificates / "ca.pem"))) as client:
        assert client.paint(png).model == "shoes"


@pytest.mark.server
def test_an_address_without_a_scheme_speaks_tls_if_tls_is_given(kind: Any, secured: Ports, certificates: Path) -> None:
    for url in (f"localhost:{secured.grpc}", f"dns:///localhost:{secured.grpc}"):
        with kind(url, tls=Tls(ca=certificates / "ca.pem")) as client:
            assert client.live()


@pytest.mark.server
def test_one_server_with_a_wrong_certificate_leaves_the_work_to_the_others(
    kind: Any, secured: Ports, certificates: Path, png: bytes
) -> None:
    # The certificate is for the name, not for the number.
    urls = [f"grpcs://{host}:{secured.grpc}" for host in ("127.0.0.1", "localhost")]
    with kind(urls, tls=Tls(ca=certificates / "ca.pem")) as client:
        assert [client.paint(png).timings.attempts for _ in range(3)] == [2, 1, 1]
    with (
        kind(urls[:1], tls=Tls(ca=certificates / "ca.pem")) as client,
        pytest.raises(AccessDenied, match="server_name"),
    ):
        client.paint(png)


@pytest.mark.server
def test_without_tls_options_the_authorities_of_the_system_are_trusted(
    way: Any, secured: Ports, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with way.kind(secured.url(way, host="localhost")) as client:
        assert client.live()
    with way.kind(secured.url(way), tls=Tls(server_name="inside.example")) as client:
        assert client.live()


def test_a_system_may_keep_its_authorities_in_a_folder(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0a1b2c3d.0").write_bytes((certificates / "ca.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    real = ssl.get_default_verify_paths()
    paths = real._replace(cafile=None, capath=str(tmp_path))  # type: ignore[arg-type]  # typeshed leaves the None out
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    context = server_context(certificates, "server", alpn=("http/1.1",))
    with http_server(context) as server:
        error = refusal(Client, f"grpcs://localhost:{server.port}", retry=NEVER)
    assert "speaks TLS but no gRPC" in str(error)  # so it was trusted


@pytest.mark.server
@pytest.mark.parametrize("ca", [None, "other.pem"], ids=["the system's authorities", "another authority"])
def test_a_server_of_another_authority_is_not_trusted_and_not_tried_again(
    way: Any, secured: Ports, certificates: Path, ca: str | None
) -> None:
    tls = Tls(ca=certificates / ca) if ca else None
    with way.kind(secured.url(way, host="localhost"), tls=tls) as client:
        with pytest.raises(AccessDenied, match=r"is not trusted: .*`Tls\(ca=\.\.\.\)`\.$") as caught:
            client.models()
        assert "tried" not in str(caught.value)
        for ask in (client.live, client.ready):
            with pytest.raises(AccessDenied, match="is not trusted"):
                ask()


@pytest.mark.server
def test_the_certificate_must_have_the_name_of_the_address_or_the_one_that_was_given(
    way: Any, secured: Ports, certificates: Path
) -> None:
    ca = certificates / "ca.pem"
    for host, tls in (("127.0.0.1", Tls(ca=ca)), ("localhost", Tls(ca=ca, server_name="outside.example"))):
        error = refusal(way.kind, secured.url(way, host=host), tls=tls)
        assert type(error) is AccessDenied
        assert "is for another name" in str(error)
        assert str(error).endswith("`Tls(server_name=...)`.")
    with way.kind(secured.url(way), tls=Tls(ca=ca, server_name="inside.example")) as client:
        assert client.live()


def test_a_certificate_that_has_expired_is_not_trusted(way: Any, certificates: Path) -> None:
    context = server_context(certificates, "expired", alpn=("h2", "http/1.1"))
    context_url = f"{way.protocol}s://localhost"
    with http_server(context) as server:
        error = refusal(way.kind, f"{context_url}:{server.port}", tls=Tls(ca=certificates / "ca.pem"))
    assert type(error) is AccessDenied
    assert "certificate has expired" in str(error)


@pytest.mark.server
def test_mutual_tls_lets_in_who_has_a_certificate(way: Any, mutual: Ports, certificates: Path) -> None:
    with way.kind(mutual.url(way), tls=own(certificates)) as client:
        assert client.live()


@pytest.mark.server
@pytest.mark.parametrize("name", [None, "stranger"], ids=["no certificate", "one of another authority"])
def test_mutual_tls_keeps_out_who_has_no_good_certificate_and_the_error_says_what_to_give(
    way: Any, mutual: Ports, certificates: Path, name: str | None
) -> None:
    nothing = Tls(ca=certificates / "ca.pem", server_name="localhost")
    error = refusal(way.kind, mutual.url(way), tls=own(certificates, name) if name else nothing, retry=SOON)
    # Over gRPC with TLS 1.3 Triton hangs up without a word.
    assert type(error) is (ConnectionFailed if way.protocol == "grpc" else AccessDenied)
    assert "`Tls(certificate=..., key=...)`" in str(error)


@pytest.mark.parametrize("name", [None, "stranger"], ids=["no certificate", "one of another authority"])
def test_a_server_that_says_why_it_does_not_trust_this_side_is_believed(
    way: Any, certificates: Path, name: str | None
) -> None:
    context = server_context(certificates, "server", mutual=True, newest=False, alpn=("h2", "http/1.1"))
    nothing = Tls(ca=certificates / "ca.pem", server_name="localhost")
    with http_server(context) as server:
        url = f"{way.protocol}s://127.0.0.1:{server.port}"
        error = refusal(way.kind, url, tls=own(certificates, name) if name else nothing)
    assert type(error) is AccessDenied
    assert "does not trust this side" in str(error)


@pytest.mark.server
def test_plain_text_to_a_port_of_tls_fails_and_says_so(way: Any, secured: Ports) -> None:
    error = refusal(way.kind, secured.url(way, secure=False), retry=SOON)
    assert type(error) is ConnectionFailed
    assert "Does it speak TLS if and only if the address says so" in str(error)


def test_tls_to_a_port_of_plain_grpc_fails_at_once_and_says_so(kind: Any) -> None:
    with grpc_server() as server:
        error = refusal(kind, f"grpcs://127.0.0.1:{server.port}")
    assert type(error) is ConnectionFailed
    assert "does not speak TLS" in str(error)
    assert "tried" not in str(error)


@pytest.mark.server
def test_tls_to_a_port_of_plain_http_fails_and_says_so(way: Any, endpoints: Endpoints) -> None:
    error = refusal(way.kind, f"{way.protocol}s://127.0.0.1:{endpoints.http_port}", retry=SOON)
    assert type(error) is ConnectionFailed
    assert "Does it speak TLS if and only if the address says so" in str(error)


def test_a_port_of_https_is_no_port_of_grpc(kind: Any, certificates: Path) -> None:
    with http_server(server_context(certificates, "server", alpn=("http/1.1",))) as server:
        error = refusal(kind, f"grpcs://localhost:{server.port}", tls=Tls(ca=certificates / "ca.pem"))
    assert type(error) is ConnectionFailed
    assert "speaks TLS but no gRPC" in str(error)


# What cannot be given


@pytest.mark.parametrize(
    ("ca", "certificate", "key"),
    [
        ("client.key", None, None),
        (None, "client.pem", "server.key"),
        (None, "client.key", "client.key"),
        (None, "client.pem", "locked.key"),
    ],
)
def test_files_that_cannot_be_used_are_named_when_the_client_is_made(
    way: Any, certificates: Path, ca: str | None, certificate: str | None, key: str | None
) -> None:
    paths = [certificates / name if name else None for name in (ca, certificate, key)]
    tls = Tls(ca=paths[0], certificate=paths[1], key=paths[2])
    with pytest.raises(InvalidArgument, match=r"^Tls: `c"):
        way.kind(f"{way.protocol}s://localhost:1", tls=tls)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certificate": "a.pem"}, "mutual TLS takes both"),
        ({"key": "a.pem"}, "mutual TLS takes both"),
        ({"ca": "/no/such.pem"}, "`ca` is `/no/such.pem`, and there is no such file"),
        ({"ca": b"/no/such.pem"}, "`ca` is a bytes; expected the path"),
        ({"ca": 7}, "`ca` is a int; expected the path"),
        ({"ca": "x" * 9999}, "there is no such file"),
        ({"ca": "a\0b"}, "there is no such file"),
        ({"server_name": ""}, "`server_name` is ''; expected the name of a host"),
        ({"server_name": "a\nb"}, "expected the name of a host"),
        ({"server_name": 7}, "expected the name of a host"),
    ],
)
def test_tls_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Tls(**options)


def test_a_key_given_as_text_is_not_shown(certificates: Path) -> None:
    text = (certificates / "client.key").read_text()
    with pytest.raises(InvalidArgument, match="expected the path of one") as caught:
        Tls(certificate=certificates / "client.pem", key=text)
    assert text.splitlines()[1] not in str(caught.value)


def test_tls_options_for_an_address_without_tls_are_refused(way: Any, certificates: Path) -> None:
    with pytest.raises(InvalidArgument, match="`tls` is given for an http:// or grpc:// address"):
        way.kind(f"{way.protocol}://127.0.0.1:1", tls=Tls(ca=certificates / "ca.pem"))


def refusal(kind: Any, url: str, **options: Any) -> SketchbridgeError:
    """What a client raises that cannot get in."""
    with kind(url, timeout_s=60, **options) as client, pytest.raises(SketchbridgeError) as caught:
        client.models()
    return caught.value
