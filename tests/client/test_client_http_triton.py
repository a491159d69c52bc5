"""Both HTTP transports against a real Triton."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Ask, Failed, Inferred, Question, Reply, elements_of
from tests.client.http_transports import Send, failure, infer, target_of
from tests.client.stand_in import serving, write_model

PATIENT = """backend: "python"
max_batch_size: 1
input [{ name: "sketch" data_type: TYPE_STRING dims: [1] }]
output [{ name: "photo" data_type: TYPE_STRING dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
dynamic_batching { default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 60000000 } }
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP address of a Triton with two of the stand-in models, and one that heeds the time in the queue."""
    folder = tmp_path_factory.mktemp("repository")
    write_model(folder / "patient", PATIENT)
    write_model(folder / "shoes", PATIENT.replace("max_batch_size: 1", "max_batch_size: 8"))
    with serving(folder) as endpoints:
        yield endpoints.http_url


def notes_of(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, Inferred)
    picture = Image.open(io.BytesIO(elements_of(reply.outputs[0])[0]))
    return {**picture.text, "parameters": json.loads(picture.text["parameters"])}  # type: ignore[attr-defined]


def test_a_real_triton_runs_a_model(send: Send, triton: str, png: bytes) -> None:
    parameters: dict[str, Any] = {"fit": "crop", "quality": 90, "sigma": 0.8, "fast": True, "note": "é"}
    reply = send(triton, infer(png, **parameters))
    assert isinstance(reply, Inferred)
    assert (reply.model, reply.version, [output.name for output in reply.outputs]) == ("shoes", "1", ["photo"])
    notes = notes_of(reply)
    assert notes["parameters"] == parameters
    assert notes["request_id"] == "abc"
    assert notes["sha256"] == hashlib.sha256(png).hexdigest()


def test_all_outputs_come_in_binary_if_none_is_named(send: Send, triton: str, png: bytes) -> None:
    reply = send(triton, replace(infer(png), outputs=(), version="1"))
    assert notes_of(reply)["sha256"] == hashlib.sha256(png).hexdigest()


def test_a_large_picture_goes_there_and_back(send: Send, triton: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "png", compress_level=0)
    reply = send(triton, infer(buffer.getvalue()))
    assert isinstance(reply, Inferred)
    assert notes_of(reply)["sha256"] == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert len(reply.outputs[0].data) > 4_000_000


def test_a_real_triton_answers_every_question(send: Send, triton: str) -> None:
    answers: dict[Question, Any] = {question: send(triton, Ask(question, "shoes")) for question in Question}
    assert answers[Question.SERVER_LIVE] is True
    assert answers[Question.SERVER_READY] is True
    assert answers[Question.MODEL_READY] is True
    assert answers[Question.MODEL_METADATA]["inputs"] == [{"name": "sketch", "datatype": "BYTES", "shape": [-1, 1]}]
    assert answers[Question.MODEL_CONFIG]["max_batch_size"] == 8
    assert answers[Question.STATISTICS]["model_stats"][0]["name"] == "shoes"
    assert [model["name"] for model in answers[Question.REPOSITORY_INDEX]["models"]] == ["patient", "shoes"]
    assert send(triton, Ask(Question.MODEL_READY, "nope")) is False
    assert send(triton, Ask(Question.MODEL_READY, "shoes", "9")) is False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("INVALID_ARG", "INVALID_ARGUMENT"),
        ("INTERNAL", "INTERNAL"),
        ("NOT_FOUND", "NOT_FOUND"),
        ("UNAVAILABLE", "UNAVAILABLE"),
        ("UNSUPPORTED", "UNIMPLEMENTED"),
    ],
)
def test_the_errors_of_a_real_triton_have_grpcs_codes(
    send: Send, triton: str, png: bytes, code: str, expected: str
) -> None:
    failed = failure(send, triton, infer(png, raise_error=code))
    assert (failed.code, failed.words) == (expected, "as asked")


def test_a_real_triton_tells_what_it_has_not(send: Send, triton: str, png: bytes) -> None:
    for request in (infer(png, model="nope"), replace(infer(png), version="9"), infer(png, model="../health/live")):
        failed = failure(send, triton, request)
        assert (failed.code, "unknown model" in failed.words) == ("NOT_FOUND", True)


def test_a_real_triton_gives_a_request_up_that_waited_too_long_in_the_queue(triton: str, png: bytes) -> None:
    transport = HttpTransport(target_of(triton), None)
    try:
        # One is in the model and one waits at its door; only the third is in the queue.
        before = [transport.begin(infer(png, model="patient", sleep_s=0.5), 20.0, ()) for _ in range(2)]
        time.sleep(0.2)  # so that the third comes last
        hasty = replace(infer(png, model="patient"), parameters={"timeout": 10_000})
        third = transport.begin(hasty, None, ()).outcome()
        assert all(isinstance(flight.outcome(), Inferred) for flight in before)
    finally:
        transport.close()
    assert isinstance(third, Failed)
    assert "Request timeout expired" in third.words


def test_many_tasks_share_one_transport(triton: str, png: bytes) -> None:
    async def send_all() -> list[Reply]:
        transport = HttpAsyncTransport(target_of(triton), None)
        try:
            return await asyncio.gather(*(transport.send(infer(png, number=number), 60.0, ()) for number in range(300)))
        finally:
            await transport.close()

    assert [notes_of(reply)["parameters"]["number"] for reply in asyncio.run(send_all())] == list(range(300))


def test_threads_share_one_transport(triton: str, png: bytes) -> None:
    transport = HttpTransport(target_of(triton), None)
    numbers: dict[int, int] = {}

    def work(first: int) -> None:
        for number in range(first, first + 20):
            numbers[number] = notes_of(transport.send(infer(png, number=number), 60.0, ()))["parameters"]["number"]

    threads = [threading.Thread(target=work, args=(20 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()
    assert numbers == {number: number for number in range(160)}
