from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sketchbridge_server import InvalidConfiguration, PortUnavailable, ServerConfig
from sketchbridge_server.ports import reserve_endpoints


def config(address: str = "127.0.0.1", *, http_port: int = 0) -> ServerConfig:
    return ServerConfig((Path(),), address=address, http_port=http_port, grpc_port=0, metrics_port=0)


def test_free_ports_differ_and_are_free() -> None:
    endpoints = reserve_endpoints(config())
    ports = {endpoints.http_port, endpoints.grpc_port, endpoints.metrics_port}
    assert len(ports) == 3
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_listens_is_refused_even_on_all_interfaces() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortUnavailable, match=f"port {port} .* is in use .* --http-port"):
            reserve_endpoints(config("0.0.0.0", http_port=port))  # noqa: S104 - what is under test


def test_a_name_becomes_the_numbers_that_triton_can_read() -> None:
    assert reserve_endpoints(config("localhost")).address == "127.0.0.1"


@pytest.mark.parametrize("address", ["::", "::1", "[::1]"])
def test_ipv6_is_refused_with_what_to_give_instead(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"is an IPv6 address; only IPv4 is served, as 127\.0\.0\.1"):
        reserve_endpoints(config(address))


@pytest.mark.parametrize("address", ["192.0.2.1", "no such host.", "", 70 * "a", "a..b"])
def test_an_address_of_another_machine_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match="is not an address of this machine"):
        reserve_endpoints(config(address))
