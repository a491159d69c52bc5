"""What goes over gRPC, held against protobuf itself."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from sketchbridge_client.grpc_messages import CHANNEL_OPTIONS, method_and_message, read_reply, stub_of
from sketchbridge_client.messages import Ask, Failed, Infer, Inferred, Question, Tensor

TENSORS = st.builds(
    Tensor,
    st.text(max_size=5),
    st.sampled_from(["BYTES", "UINT8"]),
    st.tuples(st.integers(0, 9)),
    st.lists(st.binary(max_size=300), max_size=3).map(tuple),
)
PARAMETERS = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "timeout"),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    max_size=3,
)


def written(request: Infer, timeout_s: float | None = None) -> bytes:
    """What gRPC is given to send."""
    _, message = method_and_message(request, timeout_s)
    return bytes(message)


@given(st.lists(TENSORS, max_size=3), PARAMETERS, st.none() | st.floats(0, 1e300))
def test_a_request_is_written_as_protobuf_writes_it(
    tensors: list[Tensor], parameters: dict[str, bool | int | float | str], timeout_s: float | None
) -> None:
    request = Infer("shoes", "2", tuple(tensors), ("photo",), parameters, "abc")
    read = service_pb2.ModelInferRequest.FromString(written(request, timeout_s))
    assert list(read.raw_input_contents) == [tensor.data for tensor in tensors]
    assert [(one.name, one.datatype, tuple(one.shape)) for one in read.inputs] == [
        (tensor.name, tensor.datatype, tensor.shape) for tensor in tensors
    ]
    assert (read.model_name, read.model_version, read.id) == ("shoes", "2", "abc")
    assert [one.name for one in read.outputs] == ["photo"]
    told = {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in read.parameters.items()}
    timeout = {} if timeout_s is None else {"timeout": min(max(1, round(timeout_s * 1e6)), 2**63 - 1)}
    assert told == {**parameters, **timeout}
    again = service_pb2.ModelInferRequest.FromString(read.SerializeToString())
    assert again == read


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_contents_of_any_length_arrive_whole(size: int) -> None:
    request = Infer("shoes", "", (Tensor("sketch", "UINT8", (size,), (b"x" * size,)),), (), {}, "abc")
    assert service_pb2.ModelInferRequest.FromString(written(request)).raw_input_contents[0] == b"x" * size


@pytest.mark.parametrize("question", Question)
def test_every_question_has_its_method(question: Question) -> None:
    method, message = method_and_message(Ask(question, "shoes", "1"), None)
    assert message.IsInitialized()
    with grpc.insecure_channel("127.0.0.1:9") as channel:
        assert callable(getattr(stub_of(channel), method))


@pytest.mark.parametrize("outputs", [(5,), ("\ud800",)])
def test_what_protobuf_cannot_write_is_the_callers_to_fix(outputs: Any) -> None:
    with pytest.raises(Failed, match="gRPC cannot carry it") as caught:
        method_and_message(Infer("shoes", "", (), outputs, {}, "abc"), None)
    assert caught.value.code is None


def test_outputs_without_their_contents_are_no_answer() -> None:
    message = service_pb2.ModelInferResponse(model_name="shoes")
    message.outputs.add(name="photo", datatype="BYTES", shape=[1, 1])
    with pytest.raises(Failed, match="1 outputs came with the contents of 0"):
        read_reply(Infer("shoes", "", (), (), {}, "abc"), message)
    message.raw_output_contents.append(b"\1\0\0\0a")
    read = read_reply(Infer("shoes", "", (), (), {}, "abc"), message)
    assert read == Inferred("shoes", "", (Tensor("photo", "BYTES", (1, 1), (b"\1\0\0\0a",)),), {})


def test_the_message_limits_are_set_both_ways() -> None:
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == 64 * 1024 * 1024
    assert int(options["grpc.keepalive_time_ms"]) > 300_000  # Triton hangs up on who pings oftener
