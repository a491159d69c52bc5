from __future__ import annotations

import pickle

import grpc
import pytest

import sketchbridge_client
from sketchbridge_client import (
    ConnectionFailed,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    ResponseInvalid,
    ServerError,
    SketchbridgeError,
)
from sketchbridge_client.status import ERROR_OF_CODE, MESSAGE_RULES, Attempt, error_class, error_from_status

ATTEMPT = Attempt("127.0.0.1:8001", model="shoes", request_id="abc", timeout_s=2.5)
ERRORS = [
    getattr(sketchbridge_client, name)
    for name in sketchbridge_client.__all__
    if isinstance(getattr(sketchbridge_client, name), type)
    and issubclass(getattr(sketchbridge_client, name), Exception)
]


def test_every_status_code_of_grpc_has_its_class() -> None:
    assert set(ERROR_OF_CODE) == set(grpc.StatusCode)


def test_every_class_comes_from_somewhere_in_the_tables() -> None:
    named = {*ERROR_OF_CODE.values(), *(error for _, _, error in MESSAGE_RULES)}
    assert {*named, SketchbridgeError} == set(ERRORS)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_under_the_one_root(error: type[SketchbridgeError]) -> None:
    assert issubclass(error, SketchbridgeError)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_survives_a_process_boundary(error: type[SketchbridgeError]) -> None:
    sent = error("what happened", status="INTERNAL", model="shoes", request_id="abc")
    came = pickle.loads(pickle.dumps(sent))  # noqa: S301  our own bytes
    assert (type(came), str(came), vars(came)) == (error, "what happened", vars(sent))


def test_fix_the_call_can_be_caught_in_one_place() -> None:
    assert issubclass(InvalidInput, InvalidArgument)
    assert issubclass(InvalidInput, ServerError)
    assert issubclass(RequestTimeout, ConnectionFailed)


# The words are Triton 2.51's and grpcio 1.85's own, read off the real thing.
@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        ("NOT_FOUND", "Request for unknown model: 'shoez' is not found", ModelNotFound),
        ("NOT_FOUND", "Request for unknown model: 'shoes' version 9 is not found", ModelNotFound),
        ("NOT_FOUND", "Request for unknown model: 'shoes' has no available versions", ModelNotReady),
        ("UNAVAILABLE", "Request for unknown model: 'shoes' version 1 is not at ready state", ModelNotReady),
        ("UNAVAILABLE", "Request for unknown model: 'shoez' is not found", ModelNotFound),
        ("UNAVAILABLE", "[request id: abc] Exceeds maximum queue size", Overloaded),
        ("UNAVAILABLE", "Request timeout expired", Overloaded),
        ("UNAVAILABLE", "Stream removed (Socket closed)", ConnectionFailed),
        ("INTERNAL", "Stub process 'decode_0' is not healthy.", ModelNotReady),
        ("INTERNAL", "Failed to process the request(s)", ServerError),
        ("INVALID_ARGUMENT", "unexpected inference input 'sketch' for model 'decode'", InvalidInput),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (5049 vs. 1000)", InvalidArgument),
        ("RESOURCE_EXHAUSTED", "Stream removed (CLIENT: Received message larger than max)", ResponseInvalid),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", InvalidInput),
        ("RESOURCE_EXHAUSTED", "quota", Overloaded),
    ],
)
def test_the_words_decide_where_the_code_does_not(code: str, words: str, expected: type[Exception]) -> None:
    assert error_class(grpc.StatusCode[code], words) is expected
    error = error_from_status(f"StatusCode.{code}", words, ATTEMPT)
    assert type(error) is expected
    assert (error.status, error.model, error.request_id) == (code, "shoes", "abc")


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_every_message_says_what_the_server_said_or_how_long_it_was_waited_for(code: grpc.StatusCode) -> None:
    message = str(error_from_status(str(code), "the very words", ATTEMPT))
    assert ("the very words" in message) or ("within 2.5 s" in message)
    assert "{" not in message


def test_what_triton_puts_before_its_words_is_dropped() -> None:
    words = "[request id: abc] in ensemble 'shoes', [request id: abc] The picture is empty."
    error = error_from_status("StatusCode.INVALID_ARGUMENT", words, ATTEMPT)
    assert str(error) == "`shoes` refused the request: The picture is empty."


def test_braces_in_the_servers_words_stay_as_they_are() -> None:
    assert "{model} {0}" in str(error_from_status("StatusCode.INTERNAL", "{model} {0}", ATTEMPT))


def test_what_tritonclient_refuses_before_sending_is_an_invalid_argument() -> None:
    error = error_from_status(None, 'Parameter "x" is a reserved parameter', ATTEMPT)
    assert type(error) is InvalidArgument
    assert error.status is None


def test_an_error_without_words_still_says_something() -> None:
    assert "no reason given" in str(error_from_status("StatusCode.INTERNAL", None, ATTEMPT))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            "failed to connect to all addresses; last error: ipv4: Connection refused",
            "Start it with `sketchbridge serve`",
        ),
        ("errors resolving nosuch:8001: Domain name not found", "Check its name"),
        ("DNS resolution failed for nosuch:8001", "Check its name"),
        ("failed to connect to all addresses; last error: Socket closed", "Is this the gRPC port"),
    ],
)
def test_a_failed_connection_says_what_to_do(words: str, advice: str) -> None:
    message = str(error_from_status("StatusCode.UNAVAILABLE", words, ATTEMPT))
    assert "127.0.0.1:8001" in message
    assert advice in message
