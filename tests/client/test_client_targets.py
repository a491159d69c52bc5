"""Addresses: which are understood, which are refused, and how several of them share the work."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import AsyncClient, Client, ConnectionFailed, InvalidArgument, Tls
from sketchbridge_client.targets import Target, Wire, parse_targets
from sketchbridge_server.config import Endpoints
from tests.client.grpc_serving import PNG, painted_answer, serving_grpc
from tests.client.stand_in import stand_in_server
from tests.client.waiting import SOON


def target_of(url: str, tls: Tls | None = None) -> Target:
    (target,) = parse_targets(url, tls)
    return target


# What is understood


@pytest.mark.parametrize(
    ("url", "wire", "address", "secure"),
    [
        ("127.0.0.1:8001", Wire.GRPC, "127.0.0.1:8001", False),
        ("triton:8001", Wire.GRPC, "triton:8001", False),
        ("my-triton_0.example:8001", Wire.GRPC, "my-triton_0.example:8001", False),
        ("[::1]:8001", Wire.GRPC, "[::1]:8001", False),
        ("[fe80::1%eth0]:8001", Wire.GRPC, "[fe80::1%eth0]:8001", False),
        ("grpc://h:1", Wire.GRPC, "h:1", False),
        ("grpcs://h:65535", Wire.GRPC, "h:65535", True),
        ("grpcs://[::1]:443", Wire.GRPC, "[::1]:443", True),
        ("dns:///triton:8001", Wire.GRPC, "dns:///triton:8001", False),
        ("dns:triton", Wire.GRPC, "dns:triton", False),
        ("dns://8.8.8.8:53/triton:8001", Wire.GRPC, "dns://8.8.8.8:53/triton:8001", False),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001", Wire.GRPC, "ipv4:10.0.0.1:8001,10.0.0.2:8001", False),
        ("ipv6:[::1]:8001,[::2]:8001", Wire.GRPC, "ipv6:[::1]:8001,[::2]:8001", False),
        ("unix:/run/triton.sock", Wire.GRPC, "unix:/run/triton.sock", False),
        ("unix:///run/triton.sock", Wire.GRPC, "unix:///run/triton.sock", False),
        ("unix:triton.sock", Wire.GRPC, "unix:triton.sock", False),
        ("unix-abstract:triton", Wire.GRPC, "unix-abstract:triton", False),
        ("http://h:8000", Wire.HTTP, "http://h:8000", False),
        ("http://h/", Wire.HTTP, "http://h", False),
        ("https://gateway.example/triton/v1/", Wire.HTTP, "https://gateway.example/triton/v1", True),
        ("https://[::1]:8443", Wire.HTTP, "https://[::1]:8443", True),
    ],
)
def test_an_address_is_understood(url: str, wire: Wire, address: str, secure: bool) -> None:
    assert target_of(url) == Target(wire, address, secure, url)


@pytest.mark.parametrize("url", ["h:1", "dns:///h:1", "unix:/s", "grpcs://h:1", "https://h"])
def test_tls_options_make_an_address_that_leaves_it_open_a_secure_one(url: str) -> None:
    assert target_of(url, Tls()).secure


# What is refused


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            " ",
            "h",
            "h:",
            ":1",
            "h:0",
            "h:65536",
            f"h:{'9' * 5000}",
            "h:-1",
            "h:+1",
            "h:1 ",
            " h:1",
            "h:1\n",
            "h:²",
            "h:1_0",
        ),
        *("::1:8001", "[::1]", "[foo]:1", "[127.0.0.1]:1", "[::1:1", "::1]:1", "[::1]x:1", "h:1/v2", "h\\x:1", "a,b:1"),
        *("localhost", "127.0.0.1:", ":8001", "127.0.0.1:99999", "127.0.0.1:8001/v2", "a b:1"),
        *("ftp://h:1", "ftp://a:1", "HTTP://h:1", "grpc://h", "grpc://", "grpcs://h:1/x", "grpc://h:1?x"),
        *("dns:", "dns:///", "dns:/", "dns:a b:1", "dns:h:99999", "dns://8.8.8.8", "dns:///h/x"),
        *("ipv4:", "ipv4:h:1", "ipv4:10.0.0.1", "ipv4:10.0.0.1:1,", "ipv4:[::1]:1", "ipv6:10.0.0.1:1", "ipv6:::1:1"),
        *("unix:", "unix:/", "unix:///", "unix:/a\0b", f"unix:/{'a' * 107}", "unix-abstract:"),
        *(
            "http://",
            "http:///v2",
            "http://h:0",
            "http://h:99999",
            "http://[::1",
            "https://[::1",
            "http://[::1]x",
            "http://h?a",
            "http://h/?q",
            "http://h/#a",
        ),
        *("http://h/ x", "http://h\\x", "http://:80", "h\udcff:1", "dns:///\udcff:1", "http://\udcff", "\x7f:1"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_when_the_client_is_made(kind: Any, url: str) -> None:
    with pytest.raises(InvalidArgument, match="expected the host and port"):
        kind(url)


@pytest.mark.parametrize("url", [None, 7, b"h:1", {"h:1"}, [], (), ["h:1", None], [["h:1"]], {}])
def test_what_is_no_address_is_refused(kind: Any, url: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected the host and port"):
        kind(url)


def test_one_client_speaks_one_protocol(kind: Any) -> None:
    with pytest.raises(InvalidArgument, match="one client speaks one of them"):
        kind(["h:8001", "http://h:8000"])


@pytest.mark.parametrize(
    "url",
    [
        *("http://user:p4ss@h", "user:p4ss@h:1", "grpcs://user:p4ss@h:1", "dns:///user:p4ss@h:1"),
        *("https://h/?key=p4ss", "https://h:1/a?key=p4ss", "grpc://h:1?key=p4ss"),
    ],
)
@pytest.mark.parametrize("wrap", [str, lambda url: [url], lambda url: {url}], ids=["alone", "in a list", "in a set"])
def test_a_password_in_an_address_is_refused_and_not_shown(kind: Any, url: str, wrap: Callable[[str], Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        kind(wrap(url))
    assert "p4ss" not in repr(caught.value)


PIECES = st.sampled_from(
    [
        *("@:/[]?#%,.-_0 \\\n\0"),
        *("//", "://", "http", "https", "grpc", "grpcs", "dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:"),
        *("localhost", "127.0.0.1", "::1", "[::1]", "8001", "65536", "münchen", "\udcff", "%zz", "xn--"),
    ]
)
URLS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=9).map("".join))


@settings(max_examples=500, deadline=None)
@given(URLS)
def test_any_text_is_an_address_or_an_invalid_argument(url: str) -> None:
    with contextlib.suppress(InvalidArgument):
        target = target_of(url)
        assert isinstance(target.on_this_host, bool)
        assert target.url == url


@settings(max_examples=200, deadline=None)
@given(URLS)
def test_a_client_of_any_text_can_be_made_or_is_an_invalid_argument(url: str) -> None:
    with contextlib.suppress(InvalidArgument):
        AsyncClient(url, token="secret")
    with contextlib.suppress(InvalidArgument), Client(url, plaintext_credentials=True) as client:
        assert repr(client) == f"Client({url!r})"


@settings(max_examples=300, deadline=None)
@given(URLS, URLS)
def test_what_stands_before_an_at_sign_is_never_shown(before: str, after: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_targets(f"{before}p4ssword@{after}", None)
    assert "p4ssword" not in repr(caught.value)


HOSTS = st.sampled_from(["10.0.0.1", "triton", "localhost.example", "127.0.0.1.example"])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["127.0.0.1:1", "127.0.0.2:2"]), max_size=4), st.integers(0, 4))
def test_one_address_elsewhere_among_several_is_enough_to_leave_this_machine(here: list[str], position: int) -> None:
    assert target_of(f"ipv4:{','.join(here)}" if here else "unix:/s").on_this_host
    assert not target_of(f"ipv4:{','.join([*here[:position], '10.0.0.1:1', *here[position:]])}").on_this_host


@given(
    HOSTS,
    st.sampled_from(
        ["{}:1", "grpc://{}:1", "http://{}", "http://{}:1/localhost", "dns:///{}:1", "dns:{}", "dns://127.0.0.1/{}:1"]
    ),
)
def test_only_the_loopback_is_on_this_machine(host: str, form: str) -> None:
    assert not target_of(form.format(host)).on_this_host
    assert target_of(form.format("localhost")).on_this_host


# Servers that are reached


class Painter(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A gRPC server that counts what it is asked to paint."""

    def __init__(self) -> None:
        self.port = 0
        self.painted = 0
        self.server: Any = None

    def ServerReady(self, *_: Any) -> Any:  # noqa: N802  gRPC's name
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelInfer(self, *_: Any) -> Any:  # noqa: N802  gRPC's name
        self.painted += 1
        return painted_answer()


@contextmanager
def painter(address: str = "127.0.0.1:0") -> Iterator[Painter]:
    servicer = Painter()
    with serving_grpc(servicer, workers=2, address=address) as (servicer.server, servicer.port):
        yield servicer


@pytest.fixture
def two() -> Iterator[tuple[Painter, Painter]]:
    with painter() as first, painter() as second:
        yield first, second


def names_of(*ports: int) -> dict[str, str | list[str]]:
    """Each way to name several ports of 127.0.0.1 to one client."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return {"a name with several addresses": f"ipv4:{','.join(addresses)}", "a list": addresses}


SEVERAL = pytest.mark.parametrize("named", ["a name with several addresses", "a list"])


@SEVERAL
def test_several_addresses_are_taken_in_turns(kind: Any, two: tuple[Painter, Painter], named: str) -> None:
    with kind(names_of(two[0].port, two[1].port)[named]) as client:
        until_all_have_painted(client, two)  # gRPC connects to the addresses of a name in the background
        before = [one.painted for one in two]
        for _ in range(10):
            client.paint(b"x")
    assert [one.painted - earlier for one, earlier in zip(two, before, strict=True)] == [5, 5]


@SEVERAL
@pytest.mark.parametrize("first", [True, False], ids=["the first is down", "the last is down"])
def test_with_one_of_them_down_every_call_is_answered(kind: Any, closed_port: int, named: str, first: bool) -> None:
    with painter() as running:
        ports = (closed_port, running.port) if first else (running.port, closed_port)
        with kind(names_of(*ports)[named]) as client:
            for _ in range(20):
                assert client.paint(b"x").bytes == PNG
    assert running.painted == 20


@SEVERAL
def test_one_of_them_may_go_and_come_back(kind: Any, two: tuple[Painter, Painter], named: str) -> None:
    with kind(names_of(two[0].port, two[1].port)[named]) as client:
        until_all_have_painted(client, two)
        two[0].server.stop(grace=0).wait()
        for _ in range(20):
            assert client.paint(b"x").bytes == PNG
        with painter(f"127.0.0.1:{two[0].port}") as again:
            until_all_have_painted(client, (again,))


def test_with_all_of_them_down_the_error_says_so(kind: Any, closed_port: int) -> None:
    with kind([f"127.0.0.1:{closed_port}", f"localhost:{closed_port}"], timeout_s=60, retry=SOON) as client:
        with pytest.raises(ConnectionFailed, match="Nothing answers at"):
            client.paint(b"x")
        assert not client.live()


@pytest.mark.parametrize("form", ["dns:///localhost:{}", "dns:localhost:{}", "grpc://localhost:{}", "localhost:{}"])
def test_a_name_is_looked_up(kind: Any, form: str) -> None:
    with painter() as running, kind(form.format(running.port)) as client:
        assert client.paint(b"x").bytes == PNG


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_a_unix_socket_is_reached(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)  # of a relative path, as the folder may have a long one
    with painter("unix:triton.sock"), kind("unix:triton.sock") as client:
        assert client.paint(b"x").bytes == PNG
    if len(str(tmp_path)) < 90:
        with painter(f"unix:{tmp_path}/a b.sock"), kind(form.format(f"{tmp_path}/a b.sock"), token="t") as client:
            assert client.paint(b"x").bytes == PNG


def test_a_socket_that_is_not_there_is_said_to_be_missing(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with kind("unix:triton.sock", retry=SOON) as client:
        with pytest.raises(ConnectionFailed, match=r"There is no socket at unix:triton\.sock\. Start the server"):
            client.paint(b"x")
        assert not client.ready()


@pytest.mark.server
def test_a_triton_on_a_unix_socket_is_reached(
    kind: Any, unix_triton: str, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind(unix_triton, token="t", api_key="k") as client:
        assert client.paint(png).model == "shoes"
        assert client.ready("shoes")


@pytest.mark.server
def test_a_triton_is_reached_by_name(kind: Any, endpoints: Endpoints, png: bytes) -> None:
    with kind(f"dns:///localhost:{endpoints.grpc_port}") as client:
        assert client.paint(png).model == "shoes"


@pytest.fixture(scope="module")
def unix_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Triton has no option for a socket, but what it makes of a host and a port can be the name of one."""
    folder = tmp_path_factory.mktemp("unix")
    address = f"unix:{folder}/s"
    if len(address) > 90:
        pytest.skip(f"{folder} is too long for the path of a socket")
    with stand_in_server(folder / "repository", ("shoes",), (f"--grpc-address={address}",)) as endpoints:
        yield f"{address}:{endpoints.grpc_port}"


def until_all_have_painted(client: Any, painters: tuple[Painter, ...]) -> None:
    before = Counter({one.port: one.painted for one in painters})
    give_up = time.monotonic() + 60
    while any(one.painted == before[one.port] for one in painters):
        assert time.monotonic() < give_up, "not all of them were asked"
        client.paint(b"x")
        time.sleep(0.01)


@pytest.mark.parametrize("headers", [[], [("x-tenant", "a")], "x-tenant: a", 7])
def test_headers_that_are_no_mapping_are_refused(kind: Any, headers: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`headers` is a .*; expected a mapping of names to values"):
        kind("127.0.0.1:1", headers=headers)
