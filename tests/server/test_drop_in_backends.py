"""What both drop-in backends do, each inside the same real Triton."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.server, pytest.mark.parametrize("prefix", ["", "openvino_"], ids=["onnxruntime", "openvino"])]


def executions(client: triton_grpc.InferenceServerClient, model: str) -> int:
    return int(client.get_inference_statistics(model, as_json=True)["model_stats"][0].get("execution_count", 0))


def executions_since(before: int, client: triton_grpc.InferenceServerClient, model: str) -> int:
    """Triton counts an execution just after it has answered, so a busy machine may have to be asked again."""
    give_up = time.monotonic() + 5
    while (made := executions(client, model) - before) == 0 and time.monotonic() < give_up:
        time.sleep(0.02)
    return made


def test_one_request_gets_what_the_graph_computes(prefix: str, client: Any, request_input: Callable[..., Any]) -> None:
    sketch = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    answer = client.infer(f"{prefix}invert", [request_input("sketch", sketch)])
    np.testing.assert_array_equal(answer.as_numpy("photo"), 255 - sketch)
    assert answer.as_numpy("lowest").tolist() == [[250]]


def test_only_the_requested_output_comes_back(prefix: str, client: Any, request_input: Callable[..., Any]) -> None:
    sketch = np.zeros((2, 2, 3), np.uint8)
    answer = client.infer(
        f"{prefix}invert", [request_input("sketch", sketch)], outputs=[triton_grpc.InferRequestedOutput("lowest")]
    )
    assert answer.as_numpy("photo") is None
    assert answer.as_numpy("lowest").tolist() == [[255], [255]]


def test_an_answer_is_not_overwritten_by_the_next(prefix: str, client: Any, request_input: Callable[..., Any]) -> None:
    def ask(level: int) -> bool:
        sketch = np.full((1 + level % 3, 2, 3), level, np.uint8)
        answer = client.infer(f"{prefix}invert", [request_input("sketch", sketch)])
        return bool((answer.as_numpy("photo") == 255 - sketch).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(100)))


def test_concurrent_requests_of_different_sizes_are_batched_and_each_gets_its_own(
    prefix: str, client: Any, request_input: Callable[..., Any]
) -> None:
    model = f"{prefix}invert_seven"
    sketches = [np.full((1 + number % 2, 2, 3), number * 10, np.uint8) for number in range(5)]
    before = executions(client, model)
    with ThreadPoolExecutor(len(sketches)) as pool:
        photos = pool.map(
            lambda sketch: client.infer(model, [request_input("sketch", sketch)]).as_numpy("photo"), sketches
        )
        for sketch, photo in zip(sketches, photos, strict=True):
            np.testing.assert_array_equal(photo, 255 - sketch)
    assert executions_since(before, client, model) == 1


def test_a_request_that_breaks_the_batch_fails_alone(
    prefix: str, client: Any, request_input: Callable[..., Any]
) -> None:
    model, name, values = ("fold", "width", [1, 1, 7, 1]) if prefix else ("lookup", "index", [1, 1, 7, 1])

    def ask(value: int) -> bool:
        try:
            client.infer(model, [request_input(name, np.array([[value]], np.int64))])
        except InferenceServerException:
            return False
        return True

    before = executions(client, model)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, values)) == [True, True, False, True]
    assert executions_since(before, client, model) == 1


def test_a_wrong_shape_is_an_invalid_argument(prefix: str, client: Any, request_input: Callable[..., Any]) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(f"{prefix}invert", [request_input("sketch", np.zeros((1, 3, 2), np.uint8))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
