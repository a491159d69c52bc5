"""From what a caller gives to a Client or an AsyncClient to what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sketchbridge_client.async_driving import AsyncDriver
from sketchbridge_client.conversation import Hedge, Servers
from sketchbridge_client.core import Core
from sketchbridge_client.driving import Driver
from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.grpc_aio_transport import GrpcAsyncTransport
from sketchbridge_client.grpc_transport import GrpcTransport
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.in_process import InProcess, InProcessAsyncDriver, InProcessCore, InProcessDriver
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.retries import Retry
from sketchbridge_client.targets import Credentials, Tls, Token, Wire, parse_targets, refuse_to_leak
from sketchbridge_client.telemetry import Telemetry

Url = str | Sequence[str] | InProcess
"""What a client is given of its servers."""


def prepare(
    url: Url,
    *,
    timeout_s: float | None,
    retry: Retry,
    hedge: Hedge | None,
    tls: Tls | None,
    token: Token | None,
    api_key: str | None,
    headers: Mapping[str, str] | None,
    plaintext_credentials: bool,
    metrics: ClientMetrics | None,
) -> tuple[Core, Credentials]:
    """The verbs and the credentials of a client. Raises InvalidArgument for options that cannot be."""
    _check_kind("retry", retry, Retry)
    for name, value, kind in (("hedge", hedge, Hedge), ("tls", tls, Tls), ("metrics", metrics, ClientMetrics)):
        if value is not None:
            _check_kind(name, value, kind)
    if hedge is not None and retry.never:
        raise InvalidArgument(
            "`hedge` sends second copies, and `retry=NEVER` sends each request once. Leave one of them out."
        )
    credentials = Credentials(token, api_key, headers)
    if isinstance(url, InProcess):
        return InProcessCore(url, timeout_s, retry, hedge, Telemetry(metrics)), credentials
    targets = parse_targets(url, tls)
    refuse_to_leak(targets, credentials, plaintext_credentials=plaintext_credentials)
    return Core(targets, timeout_s, retry, hedge, Telemetry(metrics)), credentials


def blocking_driver(url: Url, servers: Servers, tls: Tls | None, credentials: Credentials) -> Driver:
    """What waits by blocking, with a way to each target."""
    if isinstance(url, InProcess):
        return InProcessDriver(servers, url, credentials)
    kinds: dict[Wire, type[GrpcTransport | HttpTransport]] = {Wire.GRPC: GrpcTransport, Wire.HTTP: HttpTransport}
    return Driver(servers, [kinds[target.wire](target, tls) for target in servers.targets], credentials)


def async_driver(url: Url, servers: Servers, tls: Tls | None, credentials: Credentials) -> AsyncDriver:
    """What waits in asyncio, with a way to each target."""
    if isinstance(url, InProcess):
        return InProcessAsyncDriver(servers, url, credentials)
    kinds: dict[Wire, type[GrpcAsyncTransport | HttpAsyncTransport]] = {
        Wire.GRPC: GrpcAsyncTransport,
        Wire.HTTP: HttpAsyncTransport,
    }
    return AsyncDriver(servers, [kinds[target.wire](target, tls) for target in servers.targets], credentials)


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InvalidArgument(f"`{name}` is a {type(value).__qualname__}; expected a {kind.__qualname__}.")
