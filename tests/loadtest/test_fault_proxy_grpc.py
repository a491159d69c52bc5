"""What gRPC makes of each fault: its status, and how it mends itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_loadtest.fault_proxy import (
    BlackHole,
    CutAfter,
    Drip,
    Ending,
    FaultProxy,
    HalfOpen,
    PassThrough,
    Refuse,
    ResetStorm,
    Side,
)
from tests.client.grpc_serving import serving_grpc
from tests.loadtest.echoing import BOTH, QUIET_S, WAIT_S, address_of

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", -1),
]


KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),  # else its 60 s are waited for
    ("grpc.http2.max_pings_without_data", 0),
]


MEBIBYTE = 1 << 20


OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers a request with a mebibyte, once it may."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        self.arrived.release()
        self.may_answer.wait(WAIT_S)
        return service_pb2.ModelInferResponse(id=request.id, raw_output_contents=[bytes(MEBIBYTE)])


@pytest.fixture
def servicer() -> Iterator[Servicer]:
    servicer = Servicer()
    with serving_grpc(servicer, workers=4) as (_, port):
        servicer.url = f"127.0.0.1:{port}"
        yield servicer
        servicer.may_answer.set()


@pytest.fixture
def wire(servicer: Servicer) -> Iterator[FaultProxy]:
    with FaultProxy(servicer.url) as proxy:
        yield proxy


@contextmanager
def channel_to(proxy: FaultProxy, *options: tuple[str, int]) -> Iterator[Any]:
    """The stub of a channel of its own."""
    with grpc.insecure_channel(proxy.url, options=[*OPTIONS, *options]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def infer(
    stub: Any, *, size_bytes: int = MEBIBYTE, timeout_s: float | None = WAIT_S, wait_for_ready: bool = False
) -> grpc.StatusCode:
    """Send a request of this size. The status that gRPC reports."""
    request = service_pb2.ModelInferRequest(id="7", raw_input_contents=[bytes(size_bytes)])
    try:
        answer = stub.ModelInfer(request, timeout=timeout_s, wait_for_ready=wait_for_ready)
    except grpc.RpcError as exc:
        code: grpc.StatusCode = exc.code()
        return code
    assert answer.id == "7"
    return OK


def infer_again(stub: Any) -> grpc.StatusCode:
    """Ask until the channel has found the server again: a call soon after a cut may still go to the dead connection."""
    until = time.monotonic() + WAIT_S
    while (status := infer(stub, wait_for_ready=True)) is UNAVAILABLE and time.monotonic() < until:
        time.sleep(0.02)
    return status


def test_grpc_works_through_the_proxy_over_one_connection(wire: FaultProxy) -> None:
    with channel_to(wire) as stub:
        for _ in range(3):
            assert infer(stub) is OK
    counts = wire.wait_until(lambda counts: counts.live == 0, WAIT_S)
    assert counts.accepted == 1
    assert counts.to_client_bytes > 3 * MEBIBYTE


@BOTH
@pytest.mark.parametrize(
    ("side", "count"),
    [
        pytest.param(Side.SERVER, 0, id="handshake"),
        pytest.param(Side.CLIENT, MEBIBYTE // 2, id="request"),
        pytest.param(Side.SERVER, MEBIBYTE // 2, id="answer"),
    ],
)
def test_grpc_is_unavailable_where_a_connection_is_cut_and_mends_itself(
    wire: FaultProxy, side: Side, count: int, ending: Ending
) -> None:
    wire.inject(CutAfter(side, count, ending))
    with channel_to(wire) as stub:
        assert infer(stub) is UNAVAILABLE
        assert wire.counts.cuts == 1
        assert infer_again(stub) is OK
        assert wire.counts.accepted == 2


@BOTH
def test_grpc_is_unavailable_where_the_connection_is_cut_while_the_server_works(
    servicer: Servicer, wire: FaultProxy, ending: Ending
) -> None:
    servicer.may_answer.clear()
    with channel_to(wire) as stub, ThreadPoolExecutor(1) as pool:
        status = pool.submit(infer, stub)
        assert servicer.arrived.acquire(timeout=WAIT_S)
        assert wire.cut_all(ending) == 1
        assert status.result() is UNAVAILABLE


def test_grpc_in_a_black_hole_waits_for_its_deadline(servicer: Servicer, wire: FaultProxy) -> None:
    with channel_to(wire) as old, channel_to(wire) as new:
        assert infer(old) is OK
        assert servicer.arrived.acquire(timeout=WAIT_S)
        wire.inject(BlackHole())
        assert infer(old, timeout_s=0.5) is DEADLINE_EXCEEDED
        assert infer(new, timeout_s=0.5) is DEADLINE_EXCEEDED
        assert not servicer.arrived.acquire(blocking=False)
        wire.inject(PassThrough())
        wire.cut_all()
        for stub in (old, new):
            assert infer_again(stub) is OK


def test_grpc_gives_up_connecting_into_a_black_hole_after_its_own_limit_and_not_the_deadline(wire: FaultProxy) -> None:
    wire.inject(BlackHole())
    with channel_to(wire, ("grpc.min_reconnect_backoff_ms", 100)) as stub:
        assert infer(stub) is UNAVAILABLE


def test_grpc_with_keepalive_gives_a_black_hole_up_by_itself(wire: FaultProxy) -> None:
    with channel_to(wire, *KEEPALIVE) as stub:
        assert infer(stub) is OK
        wire.inject(BlackHole())
        assert infer(stub, timeout_s=None) is UNAVAILABLE


@pytest.mark.parametrize("silent", list(Side), ids=lambda side: side.name)
def test_grpc_over_half_a_connection_waits_for_its_deadline(servicer: Servicer, wire: FaultProxy, silent: Side) -> None:
    with channel_to(wire) as stub:
        assert infer(stub) is OK
        assert servicer.arrived.acquire(timeout=WAIT_S)
        wire.inject(HalfOpen(silent))
        assert infer(stub, size_bytes=1, timeout_s=0.5) is DEADLINE_EXCEEDED
        # A silent server has done the work, for nobody.
        assert servicer.arrived.acquire(timeout=WAIT_S if silent is Side.SERVER else QUIET_S) is (silent is Side.SERVER)


def test_grpc_over_a_drip_waits_for_its_deadline_and_goes_on_when_it_is_over(wire: FaultProxy) -> None:
    with channel_to(wire) as stub:
        assert infer(stub) is OK
        wire.inject(Drip(1000))
        assert infer(stub, timeout_s=0.5) is DEADLINE_EXCEEDED
        wire.inject(PassThrough())
        assert infer(stub) is OK
        assert wire.counts.accepted == 1


def test_grpc_is_unavailable_in_a_reset_storm_and_mends_itself(wire: FaultProxy) -> None:
    wire.inject(ResetStorm())
    with channel_to(wire) as stub:
        assert infer(stub) is UNAVAILABLE
        assert wire.counts.refused >= 1
        wire.inject(PassThrough())
        assert infer_again(stub) is OK


def test_grpc_goes_on_over_an_open_connection_while_new_ones_are_refused(wire: FaultProxy) -> None:
    with channel_to(wire) as old, channel_to(wire) as new:
        assert infer(old) is OK
        wire.inject(Refuse())
        assert infer(old) is OK
        assert infer(new) is UNAVAILABLE
        wire.cut_all()
        assert infer(old) is UNAVAILABLE
        wire.inject(PassThrough())
        for stub in (old, new):
            assert infer_again(stub) is OK


def test_grpc_is_unavailable_where_nobody_is_upstream_and_finds_the_one_that_comes(
    servicer: Servicer, closed_address: tuple[str, int]
) -> None:
    with FaultProxy(closed_address) as proxy, channel_to(proxy) as stub:
        assert infer(stub) is UNAVAILABLE
        proxy.upstream = address_of(servicer.url)
        assert infer_again(stub) is OK
