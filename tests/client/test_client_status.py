from __future__ import annotations

import pickle
from http import HTTPStatus

import grpc
import pytest

import sketchbridge_client
from sketchbridge_client import (
    AccessDenied,
    BatchFailed,
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
from sketchbridge_client.messages import Failed
from sketchbridge_client.status import (
    CODE_OF_HTTP_STATUS,
    MEANING_OF_CODE,
    MESSAGE_RULES,
    Again,
    Attempt,
    code_of_http_status,
    error_of,
    meaning_of,
)

ATTEMPT = Attempt("127.0.0.1:8001", model="shoes", request_id="abc", timeout_s=2.5)
ERRORS = [
    getattr(sketchbridge_client, name)
    for name in sketchbridge_client.__all__
    if isinstance(getattr(sketchbridge_client, name), type)
    and issubclass(getattr(sketchbridge_client, name), Exception)
]


def test_every_status_code_of_grpc_has_its_class() -> None:
    assert set(MEANING_OF_CODE) == {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize("status", [one for one in HTTPStatus if one >= 300], ids=lambda one: str(int(one)))
def test_every_status_of_http_has_its_class(status: HTTPStatus) -> None:
    error = error_of(Failed(code_of_http_status(status), "the very words"), ATTEMPT)
    assert isinstance(error, ServerError | ConnectionFailed)
    assert error.status == code_of_http_status(status)
    assert set(CODE_OF_HTTP_STATUS.values()) <= set(MEANING_OF_CODE)


@pytest.mark.parametrize("status", [200, 204, 418, 451, 499, 520, 599, 600, 999])
def test_a_status_that_no_table_lists_has_a_code_nevertheless(status: int) -> None:
    assert code_of_http_status(status) in MEANING_OF_CODE


def test_every_class_comes_from_somewhere_in_the_tables() -> None:
    named = {one.error for one in (*MEANING_OF_CODE.values(), *(meaning for _, _, meaning in MESSAGE_RULES))}
    assert {*named, SketchbridgeError, BatchFailed} == set(ERRORS)  # the last is made of several others


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
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-door'", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed", AccessDenied),
        ("UNAVAILABLE", "UNAUTHENTICATED: Hostname Verification Check failed.", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA: OK", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE: OK", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED: OK", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE: OK", AccessDenied),
        ("UNAVAILABLE", "SSL routines:OPENSSL_internal:SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: OK", AccessDenied),
        ("UNAVAILABLE", "Unwrap failed (TSI_DATA_CORRUPTED)", ConnectionFailed),
    ],
)
def test_the_words_decide_where_the_code_does_not(code: str, words: str, expected: type[Exception]) -> None:
    assert meaning_of(Failed(code, words)).error is expected
    error = error_of(Failed(code, words), ATTEMPT)
    assert type(error) is expected
    assert (error.status, error.model, error.request_id) == (code, "shoes", "abc")


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_every_message_says_what_the_server_said_or_how_long_it_was_waited_for(code: grpc.StatusCode) -> None:
    message = str(error_of(Failed(code.name, "the very words"), ATTEMPT))
    assert ("the very words" in message) or ("within 2.5 s" in message)
    assert "{" not in message


def test_what_triton_puts_before_its_words_is_dropped() -> None:
    words = "[request id: abc] in ensemble 'shoes', [request id: abc] The picture is empty."
    error = error_of(Failed("INVALID_ARGUMENT", words), ATTEMPT)
    assert str(error) == "`shoes` refused the request: The picture is empty."


def test_braces_in_the_servers_words_stay_as_they_are() -> None:
    assert "{model} {0}" in str(error_of(Failed("INTERNAL", "{model} {0}"), ATTEMPT))


def test_what_this_side_refuses_before_sending_is_an_invalid_argument() -> None:
    error = error_of(Failed(None, "no such thing"), ATTEMPT)
    assert type(error) is InvalidArgument
    assert error.status is None


def test_an_error_without_words_still_says_something() -> None:
    assert "no reason given" in str(error_of(Failed("INTERNAL", ""), ATTEMPT))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            "failed to connect to all addresses; last error: ipv4: Connection refused",
            "Start it with `sketchbridge serve`",
        ),
        ("errors resolving nosuch:8001: Domain name not found", "Check its name"),
        ("DNS resolution failed for nosuch:8001", "Check its name"),
        ("SSL_ERROR_SSL: SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("Cannot check peer: missing selected ALPN property.", "speaks TLS but no gRPC"),
        ("failed to connect to all addresses; last error: Socket closed", "does it ask for a certificate of this side"),
        ("failed to connect to all addresses; last error: Socket closed", "is this the port of this protocol"),
    ],
)
def test_a_failed_connection_says_what_to_do(words: str, advice: str) -> None:
    message = str(error_of(Failed("UNAVAILABLE", words), ATTEMPT))
    assert "127.0.0.1:8001" in message
    assert advice in message


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed", "`Tls(ca=...)`"),
        ("Hostname Verification Check failed.", "`Tls(server_name=...)`"),
        ("certificate verify failed: Hostname mismatch, certificate is not valid for 'a'", "`Tls(server_name=...)`"),
        ("SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA: OK", "`Tls(certificate=..., key=...)`"),
        ("This protocol is restricted, expecting header 'triton-grpc-protocol-door'", "`headers`"),
    ],
)
def test_who_is_not_let_in_is_told_what_to_give(words: str, advice: str) -> None:
    message = str(error_of(Failed("UNAUTHENTICATED", words), ATTEMPT))
    assert "127.0.0.1:8001" in message
    assert words in message
    assert advice in message


@pytest.mark.parametrize(
    ("code", "words", "again"),
    [
        ("UNAVAILABLE", "Stream removed (Socket closed)", Again.LOST),
        ("UNAVAILABLE", "failed to connect to all addresses", Again.LOST),
        ("CANCELLED", "CANCELLED", Again.LOST),  # of a Triton that stops
        ("INTERNAL", "Received RST_STREAM with error code 2", Again.LOST),
        ("INTERNAL", "Stub process 'decode_0' is not healthy.", Again.FEW_TIMES),
        ("INTERNAL", "Failed to process the request(s)", Again.NO),
        ("RESOURCE_EXHAUSTED", "quota", Again.LATER),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (5049 vs. 1000)", Again.NO),
        ("UNAVAILABLE", "Exceeds maximum queue size", Again.LATER),
        ("NOT_FOUND", "Request for unknown model: 'shoes' has no available versions", Again.IF_LEAVING),
        ("NOT_FOUND", "Request for unknown model: 'shoez' is not found", Again.NO),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Again.NO),
        ("INVALID_ARGUMENT", "unexpected inference input", Again.NO),
        ("UNAUTHENTICATED", "no token", Again.NO),
        ("UNAVAILABLE", "SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", Again.ELSEWHERE),
        ("UNAVAILABLE", "SSL_ERROR_SSL: WRONG_VERSION_NUMBER", Again.ELSEWHERE),
        ("UNAVAILABLE", "Cannot check peer: missing selected ALPN property.", Again.ELSEWHERE),
        ("UNAVAILABLE", "Unwrap failed (TSI_DATA_CORRUPTED)", Again.LOST),
    ],
)
def test_only_what_another_try_may_mend_is_tried_again(code: str, words: str, again: Again) -> None:
    assert meaning_of(Failed(code, words)).again is again


@pytest.mark.parametrize("code", MEANING_OF_CODE)
def test_what_the_caller_has_to_fix_is_never_tried_again(code: str) -> None:
    meaning = MEANING_OF_CODE[code]
    assert not (issubclass(meaning.error, InvalidArgument) and meaning.again is not Again.NO)
