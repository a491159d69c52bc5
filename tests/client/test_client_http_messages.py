from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from sketchbridge_client.errors import ModelNotFound, ModelNotReady, Overloaded, ResponseInvalid
from sketchbridge_client.http_messages import http_request, read_reply, retry_after_s
from sketchbridge_client.messages import Ask, Failed, Infer, Inferred, Question, Tensor, bytes_tensor, elements_of
from sketchbridge_client.status import Attempt, error_of

PNG = b"\x89PNG\r\n\x1a\n and so on"
INFER = Infer("shoes", "", (bytes_tensor("sketch", [PNG]),), ("photo",), {}, "abc")
NOW_S = 1_700_000_000.0
NUMBERS = ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8"]
DATATYPES = ["BOOL", *(f"{u}INT{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)), "FP16", "FP32", "FP64"]


def answer(outputs: Any, data: bytes = b"", **more: Any) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an answer with these outputs, and this binary data behind them."""
    head = json.dumps({"model_name": "shoes", "model_version": "1", "outputs": outputs, **more}).encode()
    return {"Inference-Header-Content-Length": str(len(head))}, head + data


def read(headers: Mapping[str, str], body: bytes, *, status: int = 200, request: Any = INFER) -> Any:
    return read_reply(request, status, CIMultiDict(headers), body, now_s=NOW_S)


def refusal(headers: Mapping[str, str], body: bytes) -> str:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        read(headers, body)
    assert type(caught.value) is ValueError  # not one of its kinds, whose words are no sentence
    return str(caught.value)


def failure(status: int, body: bytes, headers: Mapping[str, str] | None = None, request: Any = INFER) -> Failed:
    with pytest.raises(Failed) as caught:
        read(headers or {}, body, status=status, request=request)
    return caught.value


def binary(name: str = "photo", datatype: Any = "BYTES", shape: Any = (1, 1), size: Any = 0) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


# What is sent


def test_a_request_is_what_tritons_own_client_sends() -> None:
    theirs = InferInput("sketch", [1, 1], "BYTES")
    theirs.set_data_from_numpy(np.array([[PNG]], dtype=np.object_))
    body, head_bytes = InferenceServerClient.generate_request_body(
        [theirs],
        outputs=[InferRequestedOutput("photo")],
        request_id="abc",
        timeout=2_500_000,
        parameters={"fit": "crop", "quality": 90, "sigma": 0.8, "fast": True},
    )
    ours = http_request(
        Infer(
            **{name: getattr(INFER, name) for name in ("model", "version", "inputs", "outputs", "request_id")},
            parameters={"fit": "crop", "quality": 90, "sigma": 0.8, "fast": True},
        ),
        2.5,
    )
    assert (ours.method, ours.path) == ("POST", "/v2/models/shoes/infer")
    assert json.loads(ours.body[0]) == json.loads(body[:head_bytes])
    assert b"".join(ours.body[1:]) == body[head_bytes:]
    assert dict(ours.headers)["inference-header-content-length"] == str(len(ours.body[0]))
    assert dict(ours.headers)["content-length"] == str(sum(len(part) for part in ours.body))


def test_every_output_is_asked_for_in_binary_if_none_is_named() -> None:
    head = json.loads(http_request(Infer("shoes", "", INFER.inputs, (), {"fit": "crop"}, ""), None).body[0])
    assert head["parameters"] == {"fit": "crop", "binary_data_output": True}
    assert "outputs" not in head
    assert "id" not in head


@pytest.mark.parametrize(("seconds", "microseconds"), [(2.5, 2_500_000), (1e-9, 1), (0.0, 1), (1e300, 2**63 - 1)])
def test_the_time_in_the_queue_is_whole_microseconds_and_never_none(seconds: float, microseconds: int) -> None:
    head = json.loads(http_request(INFER, seconds).body[0])
    assert head["parameters"]["timeout"] == microseconds


@pytest.mark.parametrize(
    ("model", "version", "path"),
    [
        ("shoes", "", "/v2/models/shoes/infer"),
        ("shoes", "3", "/v2/models/shoes/versions/3/infer"),
        ("a/b?c#d %é", "1/2", "/v2/models/a%2Fb%3Fc%23d%20%25%C3%A9/versions/1%2F2/infer"),
        ("..", ".", "/v2/models/%2E%2E/versions/%2E/infer"),
        ("v1.5", "", "/v2/models/v1.5/infer"),
    ],
)
def test_names_cannot_leave_their_place_in_the_path(model: str, version: str, path: str) -> None:
    assert http_request(Infer(model, version, (), (), {}, ""), None).path == path


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_json_has_no_word_for_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        http_request(Infer("shoes", "", (), (), {"sigma": number}, ""), None)


@pytest.mark.parametrize(
    ("ask", "method", "path"),
    [
        (Ask(Question.SERVER_LIVE), "GET", "/v2/health/live"),
        (Ask(Question.SERVER_READY), "GET", "/v2/health/ready"),
        (Ask(Question.MODEL_READY, "shoes"), "GET", "/v2/models/shoes/ready"),
        (Ask(Question.MODEL_READY, "shoes", "2"), "GET", "/v2/models/shoes/versions/2/ready"),
        (Ask(Question.MODEL_METADATA, "shoes"), "GET", "/v2/models/shoes"),
        (Ask(Question.MODEL_CONFIG, "shoes", "2"), "GET", "/v2/models/shoes/versions/2/config"),
        (Ask(Question.STATISTICS, "shoes"), "GET", "/v2/models/shoes/stats"),
        (Ask(Question.STATISTICS), "GET", "/v2/models/stats"),
        (Ask(Question.REPOSITORY_INDEX), "POST", "/v2/repository/index"),
    ],
)
def test_every_question_has_its_place(ask: Ask, method: str, path: str) -> None:
    request = http_request(ask, None)
    assert (request.method, request.path, request.body) == (method, path, ())


# What comes back


def test_binary_outputs_are_cut_where_their_sizes_say() -> None:
    photo, scores = bytes_tensor("photo", [b"one", b"two"]), np.arange(6, dtype="<f4")
    headers, body = answer(
        [binary(shape=[2, 1], size=len(photo.data)), binary("scores", "FP32", [2, 3], 24)],
        photo.data + scores.tobytes(),
        parameters={"seed": 7},
    )
    reply = read(headers, body)
    assert reply == Inferred(
        "shoes",
        "1",
        (
            Tensor("photo", "BYTES", photo.shape, (photo.data,)),
            Tensor("scores", "FP32", (2, 3), (scores.tobytes(),)),
        ),
        {"seed": 7},
    )
    theirs = InferenceServerClient.parse_response_body(body, header_length=int(next(iter(headers.values()))))
    assert theirs.as_numpy("photo").ravel().tolist() == elements_of(reply.outputs[0])
    assert theirs.as_numpy("scores").tobytes() == reply.outputs[1].data


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), zip(DATATYPES, NUMBERS, strict=True))
def test_outputs_in_json_become_the_bytes_that_binary_ones_have(datatype: str, dtype: str, nested: bool) -> None:
    array = np.array([[0, 1, 100], [3, 1, 0]]).astype(dtype)
    data = (array if nested else array.ravel()).tolist()
    headers, body = answer([{"name": "x", "datatype": datatype, "shape": [2, 3], "data": data}])
    assert read(headers, body).outputs == (Tensor("x", datatype, (2, 3), (array.tobytes(),)),)
    assert read({}, body).outputs[0].data == array.tobytes()  # without the header all of it is JSON


def test_texts_in_json_become_elements_of_bytes() -> None:
    _, body = answer([{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["é", ""]}])
    assert elements_of(read({}, body).outputs[0]) == ["é".encode(), b""]


def test_json_and_binary_outputs_can_stand_in_one_answer() -> None:
    described = [{"name": "a", "datatype": "INT8", "shape": [2], "data": [1, 2]}, binary("b", "UINT8", [2], 2)]
    assert [tensor.data for tensor in read(*answer(described, b"\3\4")).outputs] == [b"\1\2", b"\3\4"]


def test_an_answer_without_outputs_and_version_is_one() -> None:
    assert read({}, b'{"model_name": "shoes"}') == Inferred("shoes", "", ())


@pytest.mark.parametrize("length", ["", "-1", "1e3", "99999999", "9" * 5000, "0x10", "\u0665"])
def test_a_header_length_that_cannot_be_is_refused(length: str) -> None:
    headers, body = answer([])
    assert "Inference-Header-Content-Length" in refusal(dict.fromkeys(headers, length), body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no UTF-8 at byte 0"),
        ('{"model_name": "é"}'.encode("utf-16"), "no UTF-8"),
        (b"[" * 100_000, "too many levels"),
        (b'{"a":' * 100_000, "too many levels"),
        (b"9" * 100_000, "no JSON"),
        (b"[]", "a list; expected a JSON object"),
        (b"null", "null; expected a JSON object"),
        (b"{}", "`model_name` is missing"),
        (b'{"model_name": 5}', "`model_name` is a number"),
        (b'{"model_name": "\\ud800"}', "surrogate"),
        (b'{"model_name": "m", "model_version": 1}', "`model_version` is a number"),
        (b'{"model_name": "m", "outputs": {}}', "`outputs` of the answer is an object"),
        (b'{"model_name": "m", "outputs": [7]}', "An output of the answer is a number"),
        (b'{"model_name": "m", "parameters": []}', "`parameters` of the answer is a list"),
        (b'{"model_name": "m", "parameters": {"a": null}}', "no text, number or boolean"),
        (b'{"model_name": "' + b"m" * 2000 + b'"}', "at most 1000"),
        (b'{"model_name": "m"}' + b" " * 2**24, "at most 16,777,216"),
    ],
)
def test_a_body_that_is_no_answer_is_refused(body: bytes, words: str) -> None:
    assert words in refusal({}, body)


@pytest.mark.parametrize(
    ("described", "data", "words"),
    [
        ({}, b"", "`name` is missing"),
        ({"name": "photo"}, b"", "`datatype` is missing"),
        (binary(datatype="FLOAT"), b"", "does not know"),
        (binary(datatype=[]), b"", "`datatype` is a list"),
        (binary(shape=None), b"", "`shape`"),
        (binary(shape=[1, -1]), b"", "`shape`"),
        (binary(shape=[True]), b"", "`shape`"),
        (binary(shape=[1.0]), b"", "`shape`"),
        (binary(shape=[2**64]), b"", "`shape`"),
        (binary(shape=[9] * 100_000), b"", "`shape`"),
        ({"name": "photo", "datatype": "BYTES", "shape": [1]}, b"", "`parameters` of `photo` is null"),
        ({**binary(), "parameters": {}}, b"", "`binary_data_size`"),
        (binary(size=-1), b"", "`binary_data_size`"),
        (binary(size=5), b"1234", "`binary_data_size`"),
        (binary(size=True), b"1", "`binary_data_size`"),
        (binary(size="4"), b"1234", "`binary_data_size`"),
        (binary(size=4), b"\0\0\0\0and more", "belong to no output"),
        (binary(size=4), b"\1\0\0\0", "ends in the middle of its element 0"),
        (binary(size=4), b"\xff\xff\xff\xff", "ends in the middle of its element 0"),
        (binary(size=2), b"\0\0", "ends in the middle of its element 0"),
        (binary(size=8), bytes(8), "do not hold that many"),
        (binary(shape=[3, 1], size=8), bytes(8), "do not hold that many"),
        (binary(datatype="FP32", shape=[2], size=4), bytes(4), "4 bytes came"),
        (binary(datatype="UINT8", shape=[2**63 - 1] * 32, size=4), bytes(4), "4 bytes came"),
    ],
)
def test_an_output_that_does_not_fit_its_bytes_is_refused(described: Any, data: bytes, words: str) -> None:
    assert words in refusal(*answer([described], data))


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("UINT8", [1], 5),
        ("UINT8", [1], {"0": 1}),
        ("UINT8", [2], [1]),
        ("UINT8", [1], [256]),
        ("UINT8", [1], [-1]),
        ("UINT64", [1], [2**64]),
        ("INT8", [1], [1.0]),
        ("INT8", [1], [True]),
        ("INT8", [1], [None]),
        ("BOOL", [1], [1]),
        ("FP32", [1], ["1.0"]),
        ("FP64", [1], [10**400]),
        ("FP32", [2, 2], [[1, 2, 3], [4]]),
        ("FP32", [2, 2], [[1, 2], 3, 4]),
        ("FP32", [2], [[1, 2]]),
        ("BYTES", [1], [1]),
        ("BYTES", [1], ["\ud800"]),
        ("BF16", [1], [1.0]),
    ],
)
def test_data_in_json_that_does_not_fit_its_tensor_is_refused(datatype: str, shape: list[int], data: Any) -> None:
    refusal(*answer([{"name": "x", "datatype": datatype, "shape": shape, "data": data}]))


def test_an_output_that_comes_twice_is_refused() -> None:
    assert "came twice" in refusal(*answer([binary("a", "UINT8", [1], 1)] * 2, b"12"))


def test_a_float_too_large_for_its_type_is_infinite() -> None:
    _, body = answer([{"name": "x", "datatype": "FP16", "shape": [1], "data": [1e300]}])
    assert read({}, body).outputs[0].data == np.array([np.inf], "<f2").tobytes()


@given(st.dictionaries(st.just("Inference-Header-Content-Length"), st.text(max_size=5)), st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_refused(headers: dict[str, str], body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read(headers, body), Inferred)


def test_an_answer_that_was_damaged_on_its_way_is_an_answer_or_refused() -> None:
    rng = random.Random(7)  # noqa: S311  not for secrets
    headers, body = answer([binary(size=9), binary("scores", "FP32", [2], 8)], b"\5\0\0\0photo" + bytes(8))
    for _ in range(3000):
        damaged = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'0123456789-"[]{},:\\\xff')
        with contextlib.suppress(ValueError):
            assert isinstance(read(headers, bytes(damaged)), Inferred)


# Questions and errors


@pytest.mark.parametrize("question", [Question.SERVER_LIVE, Question.SERVER_READY, Question.MODEL_READY])
def test_readiness_is_the_status(question: Question) -> None:
    ask = Ask(question, "shoes")
    assert read({}, b"", request=ask) is True
    for status in (400, 404, 503):
        assert read({}, b'{"error":"Model version not ready"}', status=status, request=ask) is False
    for status, code in ((401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (302, "UNIMPLEMENTED")):
        assert failure(status, b"", request=ask).code == code


def test_the_index_is_a_mapping_as_it_is_over_grpc() -> None:
    index = [{"name": "shoes", "version": "1", "state": "READY"}]
    assert read({}, json.dumps(index).encode(), request=Ask(Question.REPOSITORY_INDEX)) == {"models": index}


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"", b"<html>"])
def test_an_index_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        read({}, body, request=Ask(Question.REPOSITORY_INDEX))


@pytest.mark.parametrize("question", [Question.MODEL_METADATA, Question.MODEL_CONFIG, Question.STATISTICS])
def test_the_other_questions_are_answered_with_a_mapping(question: Question) -> None:
    assert read({}, b'{"name": "shoes"}', request=Ask(question, "shoes")) == {"name": "shoes"}
    with pytest.raises(ValueError, match="expected a JSON object"):
        read({}, b"[]", request=Ask(question, "shoes"))


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (404, "Request for unknown model: 'nope' is not found", ModelNotFound),
        (400, "Model version not ready", ModelNotReady),
        (503, "[request id: abc] Exceeds maximum queue size", Overloaded),
    ],
)
def test_tritons_words_decide_as_they_do_over_grpc(status: int, words: str, error: type[Exception]) -> None:
    failed = failure(status, json.dumps({"error": words}).encode())
    assert failed.words == words
    assert type(error_of(failed, Attempt("http://h"))) is error


@pytest.mark.parametrize(
    ("status", "content_type", "body", "words"),
    [
        (502, "text/html", b"<html><h1>Bad Gateway</h1></html>", "HTTP 502 Bad Gateway"),
        (502, "text/html", b"Bad <b>Gateway</b>", "HTTP 502 Bad Gateway"),
        (503, "text/plain", b"no healthy\n upstream", "HTTP 503 Service Unavailable: no healthy upstream"),
        (500, "application/json", b'{"detail": "oh"}', 'HTTP 500 Internal Server Error: {"detail": "oh"}'),
        (500, "application/json", b'{"error": {"code": 5}}', 'HTTP 500 Internal Server Error: {"error": {"code": 5}}'),
        (504, "text/plain", b"", "HTTP 504 Gateway Timeout"),
        (500, "text/plain", b"\x00\x01\x02", "HTTP 500 Internal Server Error"),
        (500, "text/plain", b"\xff", "HTTP 500 Internal Server Error: \ufffd"),
        (500, "text/plain", b"a" * 5000, f"HTTP 500 Internal Server Error: {'a' * 300} ..."),
        (599, "text/plain", b"", "HTTP 599"),
        (400, "application/json", json.dumps({"error": "e" * 9000}).encode(), "e" * 4000 + " ..."),
        (400, "application/json", b'{"error": "\\ud800"}', "?"),
        (400, "application/json", b'{"error": ""}', 'HTTP 400 Bad Request: {"error": ""}'),
    ],
)
def test_an_error_says_what_it_can(status: int, content_type: str, body: bytes, words: str) -> None:
    assert failure(status, body, {"Content-Type": content_type}).words == words


def test_a_redirect_tells_where_to_but_not_the_secrets_in_it() -> None:
    failed = failure(302, b"", {"Location": "https://user:pw@login.example/start?token=geheim"})
    assert failed.code == "UNIMPLEMENTED"
    assert failed.words.startswith("HTTP 302 Found to https://login.example/start; redirects are not followed")
    assert "to" not in failure(301, b"", {"Location": "http://[broken"}).words.split(";")[0].split()


def test_every_other_status_is_a_failure() -> None:
    assert "OK" not in {failure(status, b"").code for status in range(201, 1000)}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),  # is over
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 5000, None),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 99999999999999999999 22:13:50 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, now_s=NOW_S) == seconds


def test_a_failure_knows_how_long_the_server_asks_to_be_left_alone() -> None:
    assert failure(429, b"", {"Retry-After": "7"}).retry_after_s == 7.0
    assert failure(429, b"").retry_after_s is None


def test_what_cannot_be_understood_is_an_invalid_response() -> None:
    assert type(error_of(Failed("OK", "The answer is no JSON."), Attempt("http://h"))) is ResponseInvalid
