"""Who is let in: TLS both ways, tokens, keys and headers, against a real Triton and servers that note what came.

What Triton has not, such as HTTPS, is a small server that speaks just enough of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import runpy
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import (
    NEVER,
    AccessDenied,
    AsyncClient,
    Client,
    ConnectionFailed,
    InvalidArgument,
    Retry,
    SketchbridgeError,
    Tls,
    patrol,
)
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.targets import Credentials
from sketchbridge_server import config
from sketchbridge_server.config import Endpoints

stand_in_server = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))["stand_in_server"]

OPENSSL = shutil.which("openssl")
TOKEN, API_KEY, PASSWORD = "t0ken-mine", "k3y-mine", "p4ssword-mine"
SOON = Retry(first_contact_s=0.2)  # a server that is never reached is given up after that, and not at the deadline
PNG = b"\x89PNG\r\n\x1a\n"


# The servers


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
    for name, authority, names, days in (
        ("server", "ca", "DNS:localhost,DNS:inside.example", "2"),
        ("expired", "ca", "DNS:localhost", "-1"),
        ("client", "ca", "DNS:client", "2"),
        ("stranger", "other", "DNS:client", "2"),
    ):
        (folder / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", days)
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-extfile", "extensions", "-out", f"{name}.pem")
    openssl("pkey", "-in", "client.key", "-aes256", "-passout", "pass:geheim", "-out", "locked.key")
    return folder


@contextmanager
def triton(folder: Path, *arguments: str, models: tuple[str, ...] = ("shoes",)) -> Iterator[Endpoints]:
    """A real Triton with more arguments than ServerConfig has words for."""
    original = config.command_line
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # over before another server is started
            patch.setattr(
                "sketchbridge_server.triton.command_line",
                lambda *args, **options: [*original(*args, **options), *arguments],
            )
            endpoints = stack.enter_context(stand_in_server(folder, models))
        yield endpoints


def tls_arguments(certificates: Path) -> list[str]:
    return [
        f"--grpc-server-cert={certificates / 'server.pem'}",
        f"--grpc-server-key={certificates / 'server.key'}",
        f"--grpc-root-cert={certificates / 'ca.pem'}",
    ]


@contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server that answers 200 to everything, over HTTPS if there is a context; it notes the headers that came."""
    server = HttpServer([])

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client may be quicker to hang up
                talk(self.request)

    def talk(connection: socket.socket) -> None:
        if context is None:
            answer(connection)
            return
        with context.wrap_socket(connection.dup(), server_side=True, do_handshake_on_connect=False) as secured:
            try:
                secured.do_handshake()
                answer(secured)
            except ssl.SSLError:  # the client is told why; hanging up before it has read that would take it back
                connection.shutdown(socket.SHUT_WR)
                connection.recv(9999)

    def answer(connection: socket.socket) -> None:
        came = b""
        while part := connection.recv(9999):
            came += part
            while b"\r\n\r\n" in came:
                head, _, came = came.partition(b"\r\n\r\n")
                lines = head.decode("ascii").split("\r\n")[1:]
                server.seen.append(
                    [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
                )
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.port = listener.server_address[1]
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


@dataclass
class HttpServer:
    """seen: the headers of each request."""

    seen: list[list[tuple[str, str]]]
    port: int = 0


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A gRPC server that says yes to everything, and notes the metadata that came with each call.

    before: called at the start of each call, with its name; it may abort it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[tuple[str, list[tuple[str, str]]]] = []
        self.before: Callable[[str, grpc.ServicerContext], Any] = lambda *_: None

    @property
    def seen(self) -> list[list[tuple[str, str]]]:
        return [metadata for _, metadata in self.calls]

    def ServerLive(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ServerLive", context)
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ServerReady", context)
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelInfer(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self._note("ModelInfer", context)
        answer = service_pb2.ModelInferResponse(model_name="shoes", model_version="1")
        answer.outputs.add(name="photo", datatype="BYTES", shape=[1, 1])
        answer.raw_output_contents.append(len(PNG).to_bytes(4, "little") + PNG)
        return answer

    def _note(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls.append((name, [(one.key, one.value) for one in context.invocation_metadata()]))
        self.before(name, context)


@contextmanager
def grpc_server() -> Iterator[GrpcServer]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        servicer, server = GrpcServer(), grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        servicer.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield servicer
        server.stop(grace=0).wait()


@pytest.fixture
def noting(way: Any) -> Iterator[Any]:
    """A server of the protocol of `way` that notes what came, with its `url`."""
    kind: Any = grpc_server if way.protocol == "grpc" else http_server
    with kind() as server:
        server.url = f"{way.protocol}://127.0.0.1:{server.port}"
        yield server


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
        triton(folder, "--grpc-use-ssl=1", *tls_arguments(certificates)) as endpoints,
        http_server(context) as server,
    ):
        yield Ports(endpoints.grpc_port, server.port)


@pytest.fixture(scope="module")
def mutual(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """The same, and both ask for a certificate of the client."""
    folder = tmp_path_factory.mktemp("mutual")
    context = server_context(certificates, "server", mutual=True)
    with (
        triton(folder, "--grpc-use-ssl-mutual=1", *tls_arguments(certificates)) as endpoints,
        http_server(context) as server,
    ):
        yield Ports(endpoints.grpc_port, server.port)


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A Triton that asks for a header before it runs a model, and over gRPC before it tells its health."""
    folder = tmp_path_factory.mktemp("restricted")
    arguments = (
        f"--grpc-restricted-protocol=inference,health:door={PASSWORD}",
        f"--http-restricted-api=inference:door={PASSWORD}",
    )
    with triton(folder, *arguments, models=("shoes", "sketch")) as endpoints:
        yield endpoints


def server_context(
    certificates: Path, name: str, *, mutual: bool = False, newest: bool = True, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if mutual:
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def own(certificates: Path, name: str = "client", **more: Any) -> Tls:
    """TLS with the certificate of `name`."""
    files = {"certificate": certificates / f"{name}.pem", "key": certificates / f"{name}.key"}
    return Tls(ca=certificates / "ca.pem", server_name="localhost", **files, **more)


# TLS


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
def test_tls_to_a_port_of_plain_http_fails_and_says_so(way: Any, secured: Ports, restricted: Endpoints) -> None:
    error = refusal(way.kind, f"{way.protocol}s://127.0.0.1:{restricted.http_port}", retry=SOON)
    assert type(error) is ConnectionFailed
    assert "Does it speak TLS if and only if the address says so" in str(error)


def test_a_port_of_https_is_no_port_of_grpc(kind: Any, certificates: Path) -> None:
    with http_server(server_context(certificates, "server", alpn=("http/1.1",))) as server:
        error = refusal(kind, f"grpcs://localhost:{server.port}", tls=Tls(ca=certificates / "ca.pem"))
    assert type(error) is ConnectionFailed
    assert "speaks TLS but no gRPC" in str(error)


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


# What Triton asks for


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


# Tokens, keys and headers on their way


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


class VaultSealed(Exception):
    pass


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


SECRETS: list[dict[str, Any]] = [
    {"token": TOKEN},
    {"token": lambda: TOKEN},
    {"api_key": API_KEY},
    {"headers": {"Authorization": "Basic abc"}},
    {"headers": {"Cookie": "session=abc"}},
]


@pytest.mark.parametrize("options", SECRETS)
@pytest.mark.parametrize(
    "url",
    [
        "triton:8001",
        "10.0.0.2:8001",
        "[2001:db8::1]:8001",
        "grpc://triton:8001",
        "http://triton:8000",
        "http://localhost.example:8000",
        "dns:///triton:8001",
        "dns://127.0.0.53:53/triton:8001",
        "ipv4:127.0.0.1:8001,10.0.0.2:8001",
        "ipv6:[::1]:8001,[2001:db8::1]:8001",
        ["127.0.0.1:8001", "10.0.0.2:8001"],
    ],
)
def test_a_secret_does_not_cross_a_network_in_the_clear_unless_the_caller_says_so(
    kind: Any, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match="would cross the network in the clear"):
        kind(url, **options)
    with kind(url, **options, plaintext_credentials=True):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8001",
        "127.9.9.9:8001",
        "localhost:8001",
        "LOCALHOST:8001",
        "[::1]:8001",
        "grpc://localhost:8001",
        "http://localhost:8000",
        "http://127.0.0.1/triton",
        "http://[::1]",
        "unix:/run/triton.sock",
        "unix-abstract:triton",
        "dns:///localhost:8001",
        "dns:localhost:8001",
        "dns://8.8.8.8:53/localhost:8001",
        "ipv4:127.0.0.1:8001,127.0.0.2:8001",
        "ipv6:[::1]:8001",
        "grpcs://triton:8001",
        "https://triton",
    ],
)
def test_a_secret_may_stay_on_this_machine_or_go_encrypted(kind: Any, url: str) -> None:
    with kind(url, token=TOKEN):
        pass


def test_headers_without_a_secret_may_go_in_the_clear(kind: Any) -> None:
    with kind("triton:8001", headers={"x-tenant": "a"}):
        pass


def test_what_is_for_this_machine_goes_through_no_proxy(
    way: Any, noting: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with way.kind(noting.url, token=TOKEN) as client:
        assert client.live()


# Secrets are shown nowhere


def test_nothing_of_the_credentials_is_shown_anywhere(
    way: Any, noting: Any, closed_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider, registry = InMemorySpanExporter(), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    metrics = ClientMetrics(registry=registry)
    for url in (noting.url, f"{way.protocol}://127.0.0.1:{closed_port}"):
        for token in (TOKEN, lambda: TOKEN):
            options = {"token": token, "api_key": API_KEY, "headers": {"x-password": PASSWORD}}
            with way.kind(url, **options, retry=NEVER, metrics=metrics) as client:
                shown += [repr(client), str(client), repr(vars(getattr(client, "inner", client)))]
                shown += [word for call in calls_of(client) for word in told_by(call)]
    shown += [span.to_json() for span in exporter.get_finished_spans()]
    shown += [caplog.text, generate_latest(registry).decode(), repr(Credentials(TOKEN, API_KEY, {"x-p": PASSWORD}))]
    assert len(exporter.get_finished_spans()) == 16
    for secret in (TOKEN, API_KEY, PASSWORD):
        assert not [text for text in shown if secret in text]


def calls_of(client: Any) -> list[Callable[[], Any]]:
    return [client.live, client.models, lambda: client.model("shoes"), lambda: client.paint(b"x")]


def told_by(call: Callable[[], Any]) -> list[str]:
    """All that a caller may see of a call."""
    try:
        return [repr(call())]
    except SketchbridgeError as exc:
        return [repr(exc), str(exc), repr(pickle.dumps(exc)), "".join(traceback.format_exception(exc))]


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


@pytest.mark.server
def test_a_server_that_does_not_tell_its_health_keeps_its_calls(
    kind: Any, png: bytes, impatient: None, tmp_path: Path
) -> None:
    """Triton says UNAVAILABLE to who may not ask after its health, and is there nevertheless."""
    arguments = ("--grpc-restricted-protocol=health:door=shut",)
    with triton(tmp_path, *arguments, models=("sketch",)) as endpoints, kind(endpoints.grpc_url) as client:
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


def refusal(kind: Any, url: str, **options: Any) -> SketchbridgeError:
    """What a client raises that cannot get in."""
    with kind(url, timeout_s=60, **options) as client, pytest.raises(SketchbridgeError) as caught:
        client.models()
    return caught.value
