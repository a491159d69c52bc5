"""The drop-in ONNX Runtime backend, inside a real Triton; what it shares is in test_drop_in_backends.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from sketchbridge_server import ModelLoadFailed, TritonServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.server


def executions(client: triton_grpc.InferenceServerClient, model: str) -> int:
    return int(client.get_inference_statistics(model, as_json=True)["model_stats"][0].get("execution_count", 0))


def test_a_request_that_breaks_the_batch_fails_alone_as_the_callers_fault(
    client: Any, request_input: Callable[..., Any]
) -> None:
    def ask(index: int) -> float | InferenceServerException:
        try:
            answer = client.infer("lookup", [request_input("index", np.array([[index]], np.int64))])
        except InferenceServerException as exc:
            return exc
        return float(answer.as_numpy("value").item())

    before = executions(client, "lookup")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [0, 1, 7, 2]))
    assert executions(client, "lookup") - before == 1
    assert [answers[0], answers[1], answers[3]] == [0.0, 10.0, 20.0]
    assert isinstance(answers[2], InferenceServerException)
    assert answers[2].status() == "StatusCode.INVALID_ARGUMENT"
    assert "out of data bounds" in answers[2].message()


def test_bytes_go_in_and_out_as_text(client: Any, request_input: Callable[..., Any]) -> None:
    words = np.array([["Schuh"], ["čaj"], [""]], dtype=object)
    answer = client.infer("copy", [request_input("text", words)])
    assert [word.decode() for word in answer.as_numpy("copy").ravel()] == ["Schuh", "čaj", ""]


def test_bytes_that_are_no_text_are_the_callers_fault(client: Any, request_input: Callable[..., Any]) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("copy", [request_input("text", np.array([[b"\xff\xfe"]], dtype=object))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_configuration_without_inputs_and_outputs_is_completed_from_the_graph(client: Any) -> None:
    config = client.get_model_config("copy", as_json=True)["config"]
    assert [(item["name"], item["data_type"], item["dims"]) for item in config["input"] + config["output"]] == [
        ("text", "TYPE_STRING", ["1"]),
        ("copy", "TYPE_STRING", ["1"]),
    ]


def test_every_mismatch_of_configuration_and_graph_is_told_at_once(
    repository: Any, make_config: Callable[..., Any]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sketch"], ["photo"])],
        "fixed",
        [helper.make_tensor_value_info("sketch", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 4])],
    )
    config = """
    backend: "onnxruntime"
    max_batch_size: 8
    input { name: "sketch" data_type: TYPE_UINT8 dims: [4] }
    output { name: "picture" data_type: TYPE_FP32 dims: [4] }
    """
    repository.onnx("unfit", graph, config)
    repository.onnx("levels", graph, 'backend: "onnxruntime" optimization { graph { level: 5 } }')
    repository.onnx("threads", graph, THREADS_CONFIG)
    repository.onnx("empty", graph, 'backend: "onnxruntime" default_model_filename: "other.onnx"')
    with pytest.raises(ModelLoadFailed) as caught:
        TritonServer(make_config(repository.folder)).__enter__()
    reasons = caught.value.reasons
    assert "input `sketch` is TYPE_UINT8 in the configuration and tensor(float) in the graph" in reasons["unfit"]
    assert "fixed batch of 1" in reasons["unfit"]
    assert "output picture is not in the graph, which has photo" in reasons["unfit"]
    assert "optimization.graph.level is 5; expected one of 0, -1, 1, 2" in reasons["levels"]
    assert "intra_op_thread_count is 'many'" in reasons["threads"]
    assert "other.onnx does not exist" in reasons["empty"]


THREADS_CONFIG = """
backend: "onnxruntime"
parameters { key: "intra_op_thread_count" value { string_value: "many" } }
"""
