"""What Triton cannot be made to answer comes from a scripted gRPC server, over a real connection."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from sketchbridge_client import (
    NEVER,
    ConnectionFailed,
    InvalidArgument,
    ModelNotFound,
    ModelNotReady,
    RequestTimeout,
    ResponseInvalid,
)
from sketchbridge_client.status import MEANING_OF_CODE

if TYPE_CHECKING:
    from collections.abc import Callable


def infer_response(*outputs: tuple[str, str, list[int], bytes]) -> Callable[..., Any]:
    """Answers with these outputs: name, datatype, shape, raw content."""

    def infer(*_: Any) -> Any:
        response = service_pb2.ModelInferResponse(model_name="shoes", model_version="1")
        for name, datatype, shape, content in outputs:
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(content)
        return response

    return infer


def one_element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_each_status_comes_out_as_its_class(kind: Any, scripted: Any, code: grpc.StatusCode) -> None:
    scripted.fail(code, "the very words")
    error = MEANING_OF_CODE[code.name].error
    with kind(scripted.url, retry=NEVER) as client, pytest.raises(error) as caught:
        client.paint(b"x")
    assert type(caught.value) is error
    assert caught.value.status == code.name
    assert caught.value.request_id is not None
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "output",
    [
        ("photo", "UINT8", [1, 4, 4, 3], bytes(48)),
        ("photo", "BYTES", [2, 1], one_element(b"a") * 2),
        ("photo", "BYTES", [1], one_element(b"a")),
        ("photo", "BYTES", [1, 1], b""),
        ("photo", "BYTES", [1, 1], b"\x05"),
        ("photo", "BYTES", [1, 1], b"\xff\xff\0\0short"),
        ("photo", "BYTES", [1, 1], one_element(b"a") * 2),
        ("photo", "BYTES", [1, 1], one_element(b"no picture")),
        ("image", "BYTES", [1, 1], one_element(b"a")),
    ],
)
def test_an_answer_that_breaks_the_contract_is_response_invalid(
    kind: Any, scripted: Any, output: tuple[str, str, list[int], bytes]
) -> None:
    scripted.infer = infer_response(output)
    with kind(scripted.url) as client, pytest.raises(ResponseInvalid) as caught:
        client.paint(b"x")
    assert caught.value.model == "shoes"
    assert caught.value.request_id is not None


def test_an_answer_without_any_output_is_response_invalid(kind: Any, scripted: Any) -> None:
    scripted.infer = infer_response()
    with kind(scripted.url) as client, pytest.raises(ResponseInvalid, match="there came none"):
        client.paint(b"x")


def test_an_answer_may_be_larger_than_grpc_takes_by_default(kind: Any, scripted: Any) -> None:
    large = b"\x89PNG\r\n\x1a\n" + bytes(20 * 1024 * 1024)  # the default is 4 MiB
    scripted.infer = infer_response(("photo", "BYTES", [1, 1], one_element(large)))
    with kind(scripted.url) as client:
        assert client.paint(b"x").bytes == large


def test_why_a_model_is_not_ready_is_told_in_the_servers_words(kind: Any, scripted: Any) -> None:
    scripted.fail(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'shoes' has no available versions")
    scripted.index.models.add(name="shoes", version="1", state="UNAVAILABLE", reason="Internal: no weights")
    with kind(scripted.url) as client, pytest.raises(ModelNotReady, match=r"not ready: .* Internal: no weights"):
        client.paint(b"x")


def test_a_server_that_cannot_list_its_models_does_not_hide_the_first_error(
    kind: Any, scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.fail(grpc.StatusCode.NOT_FOUND, "no such thing")
    scripted.index.models.add(name="shoes", version="1", state="READY")  # and asking for its metadata then fails
    caplog.set_level(logging.DEBUG, logger="sketchbridge_client")
    with kind(scripted.url) as client, pytest.raises(ModelNotFound, match="no such thing") as caught:
        client.paint(b"x")
    assert caught.value.available == ()
    assert "cannot list models" in caplog.text


def test_a_client_closed_during_a_call_ends_it(kind: Any, scripted: Any) -> None:
    arrived, release = threading.Event(), threading.Event()

    def hang(*_: Any) -> Any:
        arrived.set()
        release.wait(10)
        return service_pb2.ModelInferResponse()

    scripted.infer = hang
    client = kind(scripted.url)

    def close() -> None:
        arrived.wait(10)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    try:
        with pytest.raises(ConnectionFailed):
            client.paint(b"x")
    finally:
        release.set()
        closing.join()


def test_nothing_answering_is_said_with_the_address_and_what_to_do(kind: Any, closed_port: int) -> None:
    url = f"127.0.0.1:{closed_port}"
    with kind(url, retry=NEVER) as client:
        with pytest.raises(ConnectionFailed, match=rf"^Nothing answers at {url}\. Start it with `sketchbridge serve`"):
            client.paint(b"x")
        with pytest.raises(ConnectionFailed):
            client.models()
        assert not client.live()
        assert not client.ready()
        assert not client.ready("shoes")


def test_no_answer_in_time_is_a_timeout_and_a_failed_connection(kind: Any, scripted: Any) -> None:
    release = threading.Event()
    scripted.infer = lambda *_: release.wait(10) and service_pb2.ModelInferResponse()
    with kind(scripted.url, timeout_s=0.1) as client:
        with pytest.raises(RequestTimeout, match=r"No answer from `shoes` at .* within 0\.1 s"):
            client.paint(b"x")
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            client.paint(b"x", timeout_s=0.05)
    release.set()


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "[::1]:8001", "dns:///triton:8001", "unix:/run/triton.sock"])
def test_the_repr_is_the_address_and_no_more(kind: Any, url: str) -> None:
    with kind(url) as client:
        assert repr(client) == f"Client({url!r})"


def test_a_closed_client_says_so_and_may_be_closed_again(kind: Any) -> None:
    with kind("127.0.0.1:8001") as client:
        client.close()
        client.close()
        with pytest.raises(InvalidArgument, match="is closed"):
            client.paint(b"x")
        with pytest.raises(InvalidArgument, match="is closed"):
            client.ready()
