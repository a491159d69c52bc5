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
    Raises PortUnavailable with the port and its flag; InvalidConfiguration if the address is not one of this machine.
    """
    held: list[socket.socket] = []
    try:
        # Ports asked for by number come first, so that a free one is never picked on top of them.
        wanted = {"http": config.http_port, "grpc": config.grpc_port, "metrics": config.metrics_port}
        chosen: dict[str, int] = {}
        for name in sorted(wanted, key=lambda name: wanted[name] == 0):
            held.append(_bind(config.address, wanted[name], flag=f"--{name}-port"))
            chosen[name] = held[-1].getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    return Endpoints(config.address, http_port=chosen["http"], grpc_port=chosen["grpc"], metrics_port=chosen["metrics"])


def _bind(address: str, port: int, *, flag: str) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as exc:
        raise InvalidConfiguration(f"{address!r} is not an address of this machine: {exc.strerror}") from exc
    listener = socket.socket(family, kind, protocol)
    # Connections of a server that has just ended linger for a minute; only one that listens is in the way.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
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
