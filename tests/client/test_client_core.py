"""The verbs as programs, answered by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sketchbridge_client import (
    AccessDenied,
    BatchFailed,
    ModelNotFound,
    Picture,
    ResponseInvalid,
    Retry,
    SketchbridgeError,
)
from sketchbridge_client.calls import paint_call, painted
from sketchbridge_client.core import Core
from sketchbridge_client.messages import Failed, Inferred, bytes_tensor
from sketchbridge_client.programs import Prepare, Program, Send
from sketchbridge_client.targets import parse_targets
from sketchbridge_client.telemetry import Telemetry

PNG = b"\x89PNG\r\n\x1a\n"
CALL = paint_call(model="shoes", fit=None, normalise=None, output_format=None, quality=None)


def core(*urls: str) -> Core:
    return Core(parse_targets(list(urls or ("127.0.0.1:9",)), None), 30.0, Retry(), None, Telemetry(None))


def run(program: Program[Any], *answers: Any, slow_s: float = 0.0) -> Any:
    """Answer each request with the next of `answers`; what the program returns."""
    left = list(answers)
    try:
        step = next(program)
        while True:
            if isinstance(step, Send):
                time.sleep(slow_s)
                step = program.send(left.pop(0))
            else:
                step = program.send(step.work() if isinstance(step, Prepare) else None)
    except StopIteration as done:
        return done.value


def answer(*photos: bytes) -> Inferred:
    return Inferred("shoes", "1", (bytes_tensor("photo", list(photos)),))


def test_one_bad_answer_of_a_request_leaves_the_others_their_pictures() -> None:
    program = core().pictures(CALL, [b"a", b"b", b"c"], False, 10, painted)
    with pytest.raises(BatchFailed) as caught:
        run(program, {"max_batch_size": 8}, answer(PNG, b"no picture", PNG))
    assert [type(one) for one in caught.value.results] == [Picture, type(None), Picture]
    assert {index: type(one) for index, one in caught.value.errors.items()} == {1: ResponseInvalid}


def test_the_timings_of_a_later_request_of_a_batch_count_the_earlier_ones_as_network() -> None:
    program = core().pictures(CALL, [b"a", b"b"], False, 10, painted)
    first, second = run(program, {"max_batch_size": 1}, answer(PNG), answer(PNG), slow_s=0.1)
    assert second.timings.network_s - first.timings.network_s > 0.09
    assert second.timings.client_s - first.timings.client_s < 0.09
    assert first.timings.client_s < 0.09  # to ask how many go into one request is no work of this side


@pytest.mark.parametrize(
    ("verb", "answers"),
    [
        (lambda one: one.models(10), [{"models": [5]}]),
        (lambda one: one.models(10), [{"models": [{"name": "a", "state": "READY"}]}, {"inputs": None}]),
        (lambda one: one.stats(None, 10), [{"model_stats": [5]}]),
        (lambda one: one.stats(None, 10), [{"model_stats": [{"inference_count": "many"}]}]),
        (lambda one: one.model("a", "", 10), [{"inputs": ["x"]}, {}, True]),
        (lambda one: one.model("a", "", 10), [{}, {"max_batch_size": "x"}, True]),
        (lambda one: one.pictures(CALL, [b"a", b"b"], False, 10, painted), [{"max_batch_size": "x"}]),
    ],
)
def test_what_a_server_says_without_sense_is_an_invalid_answer(verb: Any, answers: list[Any]) -> None:
    with pytest.raises(ResponseInvalid, match="cannot be read"):
        run(verb(core()), *answers)


def test_asking_what_models_there_are_stays_within_the_deadline_of_the_call() -> None:
    asked_s: list[float | None] = []

    def converse() -> None:
        program = core().pictures(CALL, b"a", False, 1.0, painted)
        next(program)
        time.sleep(0.4)
        step = program.send(Failed("NOT_FOUND", "Request for unknown model: 'shoes' is not found"))
        while True:
            if isinstance(step, Send):
                asked_s.append(step.timeout_s)
            step = program.send(Failed("DEADLINE_EXCEEDED", "") if isinstance(step, Send) else None)

    with pytest.raises(ModelNotFound):
        converse()
    assert asked_s
    assert all(one is not None and one <= 0.61 for one in asked_s)


@pytest.mark.parametrize("order", [1, -1])
def test_a_server_that_lets_nobody_in_is_told_of_beside_one_that_is_lost(order: int) -> None:
    answers = [Failed("UNAUTHENTICATED", "no token"), Failed("UNAVAILABLE", "Connection refused")][::order]
    with pytest.raises(AccessDenied):
        run(core("127.0.0.1:9", "127.0.0.1:8").ready(None, 10), *answers)
    assert run(core("127.0.0.1:9", "127.0.0.1:8").ready(None, 10), answers[0], True) is True


def test_a_version_that_is_not_there_is_not_suggested_by_its_own_name() -> None:
    words = "Request for unknown model: 'shoes' version 9 is not found"
    metadata = {
        "inputs": [{"name": "sketch", "datatype": "BYTES"}],
        "outputs": [{"name": "photo", "datatype": "BYTES"}],
    }
    index = {"models": [{"name": name, "state": "READY"} for name in ("shoes", "shoes2")]}
    with pytest.raises(SketchbridgeError, match=r"version 9 is not found.*Did you mean `shoes2`\?"):
        run(core().model("shoes", "9", 10), Failed("NOT_FOUND", words), index, metadata, metadata)
