"""Free ports, and ports that are not free."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from sketchbridge_server.config import Endpoints
from sketchbridge_server.errors import InvalidConfiguration, PortUnavailable

if TYPE_CHECKING:
    from sketchbridge_server.config import ServerConfig


def reserve_endpoints(config: ServerConfig) -> Endpoints:
    """Check the ports that were asked for, and pick free ones for those given as 0.

    All three are held open together while picking, so that no two are the same. They are let go before Triton takes
    them: another program can still get in between, and Triton then ends with its own message.
    Raises PortUnavailable with the port and its flag; InvalidConfiguration if the address is not one of this machine,
    or not IPv4.
    """
    address = _resolve(config.address)
    held: list[socket.socket] = []
    try:
        # Ports asked for by number come first, so that a free one is never picked on top of them.
        wanted = {"http": config.http_port, "grpc": config.grpc_port, "metrics": config.metrics_port}
        chosen: dict[str, int] = {}
        for name in sorted(wanted, key=lambda name: wanted[name] == 0):
            held.append(_bind(address, wanted[name], flag=f"--{name}-port"))
            chosen[name] = held[-1].getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    return Endpoints(address, http_port=chosen["http"], grpc_port=chosen["grpc"], metrics_port=chosen["metrics"])


def _resolve(address: str) -> str:
    """The address as numbers: of a name Triton makes 255.255.255.255."""
    if ":" in address:
        raise InvalidConfiguration(
            f"{address!r} is an IPv6 address; only IPv4 is served, as 127.0.0.1, or 0.0.0.0 for every interface"
        )
    try:
        found = socket.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:  # UnicodeError: no host name can be written so
        raise InvalidConfiguration(f"{address!r} is not an address of this machine: {exc}") from exc
    return str(found[0][4][0])


def _bind(address: str, port: int, *, flag: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Connections of a server that has just ended linger for a minute; only one that listens is in the way.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(1)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRNOTAVAIL:
            raise InvalidConfiguration(f"{address!r} is not an address of this machine; use --address") from exc
        why = "is in use by another program" if exc.errno == errno.EADDRINUSE else f"cannot be opened ({exc.strerror})"
        raise PortUnavailable(
            f"port {port} on {address} {why}. Choose another with {flag}, or end the program that has it "
            f"(`ss -ltnp 'sport = :{port}'` names it).",
            port=port,
        ) from exc
    return listener
