"""Where a server is and how it is reached: addresses, TLS, and what lets a caller in."""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.messages import Headers

_GRPC_NAMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")
_SOCKETS = ("unix:", "unix-abstract:")
_LONGEST_SOCKET_PATH_BYTES = 107  # what Linux takes
_HIGHEST_PORT = 65535
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:/\\?#@,\s]+))(?::(?P<port>[0-9]{1,5}))?")
_OURS = frozenset(
    {
        *("traceparent", "tracestate", "inference-header-content-length", "content-type", "content-length"),
        *("content-encoding", "accept-encoding", "transfer-encoding", "connection", "keep-alive", "te", "upgrade"),
    }
)
_SECRETS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+\Z")  # what gRPC takes; HTTP would take more
_EXPECTED = (
    'expected the host and port of a server: "127.0.0.1:8001" or "grpcs://host:8001" for gRPC, "http://host:8000" or '
    '"https://host" for HTTP, or one of gRPC\'s own names such as "dns:///triton:8001" or "unix:/run/triton.sock"'
)


class Wire(Enum):
    """The protocol that a server is spoken to in."""

    GRPC = "grpc"
    HTTP = "http"


@dataclass(frozen=True)
class Target:
    """One server. address: as gRPC takes it, or the base URL for HTTP. url: as it was given, for messages."""

    wire: Wire
    address: str
    secure: bool
    url: str

    @property
    def on_this_host(self) -> bool:
        """Whether what is sent there never leaves this machine, as far as the address tells."""
        return self.address.startswith(_SOCKETS) or all(_is_loopback(host) for host in self._hosts())

    def _hosts(self) -> list[str]:
        if self.wire is Wire.HTTP:
            return [urlsplit(self.address).netloc]
        kind, colon, rest = self.address.partition(":")
        if f"{kind}{colon}" not in _GRPC_NAMES:
            return [self.address]
        if kind == "dns":
            return [_dns_name(rest)]
        return rest.lstrip("/").split(",")


@dataclass(frozen=True)
class Tls:
    """How a server proves who it is, and this side too if it must.

    ca: file of the certificate authorities to trust, PEM; None for those of the system. certificate, key: files of this
    side's own certificate chain and private key, PEM, both or neither (mutual TLS). server_name: the name that the
    server's certificate must have, if it is not the one in the address.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidArgument("Tls has one of `certificate` and `key`; mutual TLS takes both.")
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None:
                _check_file(name, path)
        if self.server_name is not None and not (isinstance(self.server_name, str) and _is_plain(self.server_name)):
            raise InvalidArgument(f"Tls: `server_name` is {self.server_name!r}; expected the name of a host.")

    def context(self) -> ssl.SSLContext:
        """What Python's own TLS makes of the files. Raises InvalidArgument if they cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as exc:
            raise InvalidArgument(f"Tls: `ca`, `{self.ca}`, has no certificates that can be read: {exc}.") from exc
        if self.certificate is not None:
            try:
                # A key with a password would have it asked for at the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            except (OSError, ValueError) as exc:
                raise InvalidArgument(
                    "Tls: `certificate` and `key` cannot be used; expected PEM files that belong together, the key "
                    f"without a password: {exc}."
                ) from exc
        return context


Token = str | Callable[[], str]
"""A bearer token, or what gives the present one; it is called for each request, so it should remember what it gave."""


class Credentials:
    """What lets a caller in. Nothing of it is in a repr, a message or a log.

    secret: whether there is something in it that must not cross a network in the clear.
    """

    def __init__(self, token: Token | None, api_key: str | None, headers: Mapping[str, str] | None) -> None:
        self._token: Callable[[], str] | None = None
        if headers is not None and not isinstance(headers, Mapping):
            raise InvalidArgument(
                f"`headers` is a {type(headers).__qualname__}; expected a mapping of names to values."
            )
        given = [(_header_name(name), _header_value(name, value)) for name, value in (headers or {}).items()]
        if api_key is not None:
            given.append(("x-api-key", _secret_value("api_key", api_key)))
        if isinstance(token, str):
            given.append(("authorization", _bearer(token)))
        elif token is not None:
            self._token = _function(token)
        self._fixed: Headers = tuple(given)
        names = [name for name, _ in given] + (["authorization"] if self._token else [])
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidArgument(f"The header `{twice}` is given twice; give one of `headers`, `token` and `api_key`.")
        self.secret = not _SECRETS.isdisjoint(names)

    def headers(self) -> Headers:
        """What to send with the next request. Raises InvalidArgument for what cannot be sent, and what `token` does."""
        if self._token is None:
            return self._fixed
        return (*self._fixed, ("authorization", _bearer(self._token())))


def parse_targets(url: str | Sequence[str], tls: Tls | None) -> tuple[Target, ...]:
    """One target for each address. Raises InvalidArgument for one that cannot be, for none, and for mixed protocols."""
    urls: object = [url] if isinstance(url, str) else url
    if not isinstance(urls, Sequence) or isinstance(urls, bytes):
        raise InvalidArgument(f"`url` is a {type(url).__qualname__}; {_EXPECTED}, or several of them in a list.")
    if not urls:
        raise InvalidArgument(f"`url` is an empty list; {_EXPECTED}, or several of them in a list.")
    targets = tuple(_target(one, tls) for one in urls)
    if len({target.wire for target in targets}) > 1:
        raise InvalidArgument("`url` has addresses for gRPC and for HTTP; one client speaks one of them.")
    if tls is not None and not all(target.secure for target in targets):
        raise InvalidArgument("`tls` is given for an http:// or grpc:// address, which is without. Use https, grpcs.")
    return targets


def refuse_to_leak(targets: Sequence[Target], credentials: Credentials, *, plaintext_credentials: bool) -> None:
    """Raise InvalidArgument if a secret would cross a network in the clear, unless the caller says that it may."""
    open_ones = [target.url for target in targets if not target.secure and not target.on_this_host]
    if credentials.secret and open_ones and not plaintext_credentials:
        raise InvalidArgument(
            f"A token or key would cross the network in the clear to {open_ones[0]}. Use TLS (`grpcs://`, `https://`), "
            "or say `plaintext_credentials=True` where something else encrypts the way, such as a service mesh."
        )


def _target(url: object, tls: Tls | None) -> Target:
    if not isinstance(url, str):
        raise InvalidArgument(f"`url` is a {type(url).__qualname__}; {_EXPECTED}.")
    if "@" in url:  # not shown: what stands before it may be a password
        raise InvalidArgument("`url` has an `@`; credentials go into `token`, `api_key` or `headers`, not the address.")
    scheme, separator, rest = url.partition("://")
    valid = url.isprintable()  # so it can be encoded, too
    if separator and scheme in {"http", "https"}:
        target = Target(Wire.HTTP, url.rstrip("/"), secure=scheme == "https", url=url)
        valid = valid and not re.search(r"[?#\s]", rest) and _is_host(rest.partition("/")[0])
    elif separator and scheme in {"grpc", "grpcs"}:
        target = Target(Wire.GRPC, rest, secure=scheme == "grpcs", url=url)
        valid = valid and _is_host(rest, needs_port=True)
    elif url.startswith(_GRPC_NAMES):
        target = Target(Wire.GRPC, url, secure=tls is not None, url=url)
        valid = valid and _is_grpc_name(*url.split(":", 1))
    else:
        target = Target(Wire.GRPC, url, secure=tls is not None, url=url)
        valid = valid and _is_host(url, needs_port=True)
    if not valid:
        shown, query, _ = url.partition("?")  # what follows it may be a key
        raise InvalidArgument(f"`url` is {shown + query!r}{'...' if query else ''}; {_EXPECTED}.")
    return target


def _is_grpc_name(kind: str, rest: str) -> bool:
    """Whether `kind:rest` is a name as gRPC has them. Source: grpc/doc/naming.md."""
    if kind in {"unix", "unix-abstract"}:
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        return bool(path.strip("/")) and len(unquote_to_bytes(path)) <= _LONGEST_SOCKET_PATH_BYTES
    if kind == "dns":
        return _is_host(_dns_name(rest))
    return all(_is_host(one, needs_port=True, version=int(kind[-1])) for one in rest.lstrip("/").split(","))


def _dns_name(rest: str) -> str:
    """The name in what follows `dns:`, without the server that is to be asked for it."""
    return rest[2:].partition("/")[2] if rest.startswith("//") else rest.lstrip("/")


def _is_host(text: str, *, needs_port: bool = False, version: int | None = None) -> bool:
    """Whether `text` is a host and a port. version: of the IP address that it has to be; None for any, or a name."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or (needs_port and found["port"] is None):
        return False
    if found["port"] is not None and not 0 < int(found["port"]) <= _HIGHEST_PORT:
        return False
    if found["ipv6"] is None and version is None:
        return True
    try:
        address = ipaddress.ip_address(found["ipv6"] or found["host"])
    except ValueError:
        return False
    return address.version == (6 if found["ipv6"] else 4) and version in {None, address.version}


def _is_loopback(host_and_port: str) -> bool:
    found = _HOST_AND_PORT.fullmatch(host_and_port)
    if found is None:
        return False
    host = found["ipv6"] or found["host"]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_file(name: str, path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgument(f"Tls: `{name}` is a {type(path).__qualname__}; expected the path of a PEM file.")
    text = os.fspath(path)
    if "-----BEGIN" in str(text):  # not shown: it may be a key
        raise InvalidArgument(f"Tls: `{name}` is the text of a PEM file; expected the path of one.")
    try:
        found = Path(path).is_file()
    except (OSError, TypeError):  # too long for a path, or a path in bytes
        found = False
    if not found:
        raise InvalidArgument(f"Tls: `{name}` is `{text!s}`, and there is no such file.")


def _header_name(name: str) -> str:
    lowered = name.lower() if isinstance(name, str) else ""
    if lowered in _OURS:
        raise InvalidArgument(f"`headers`: `{lowered}` is set for each request by the client itself; leave it out.")
    if not _HEADER_NAME.match(lowered) or lowered.startswith("grpc-") or lowered.endswith("-bin"):
        raise InvalidArgument(
            f"`headers`: {name!r} cannot be the name of one; it takes letters, digits, `-`, `_`, `.`."
        )
    return lowered


def _header_value(name: str, value: object) -> str:
    """The value, which is never shown."""
    if not isinstance(value, str):
        raise InvalidArgument(f"The value of `{name}` is a {type(value).__qualname__}; expected text.")
    if value and not _is_plain(value):
        raise InvalidArgument(
            f"The value of `{name}` cannot be sent: expected printable ASCII text without spaces or a newline around "
            "it. What is read from a file may need `.strip()`."
        )
    return value


def _secret_value(name: str, value: object) -> str:
    if value == "":
        raise InvalidArgument(f"`{name}` is empty. Leave it out if the server asks for none.")
    return _header_value(name, value)


def _bearer(token: object) -> str:
    return f"Bearer {_secret_value('token', token)}"


def _function(token: object) -> Callable[[], str]:
    if not callable(token):
        raise InvalidArgument(f"`token` is a {type(token).__qualname__}; expected a string or what returns one.")
    if inspect.iscoroutinefunction(token):
        raise InvalidArgument(
            "`token` is an async function; give one that returns at once, from what a task refreshes."
        )
    return token


def _is_plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
