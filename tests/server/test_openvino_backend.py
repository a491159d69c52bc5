"""The drop-in OpenVINO backend, inside a real Triton; what it shares is in test_drop_in_backends.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from sketchbridge_server import ModelLoadFailed, TritonServer
from sketchbridge_server.quiet_openvino import openvino

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

pytestmark = pytest.mark.server

PRECISE_CONFIG = """
backend: "openvino"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [256] }
output { name: "b" data_type: TYPE_FP32 dims: [256] }
instance_group { kind: KIND_CPU count: 1 }
"""


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def multiplying_graph(weights: np.ndarray[Any, Any]) -> onnx.GraphProto:
    """`a` (N, 256) float32 times a matrix -> `b`."""
    return helper.make_graph(
        [helper.make_node("MatMul", ["a", "weights"], ["b"])],
        "multiplying",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 256])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 256])],
        [numpy_helper.from_array(weights, "weights")],
    )


def test_a_shape_that_only_the_graph_refuses_is_the_callers_fault(
    client: Any, request_input: Callable[..., Any]
) -> None:
    threes = request_input("b", np.zeros((1, 3), np.float32))
    answer = client.infer("add", [request_input("a", np.ones((1, 3), np.float32)), threes])
    assert answer.as_numpy("sum").tolist() == [[1, 1, 1]]
    with pytest.raises(InferenceServerException) as caught:
        client.infer("add", [request_input("a", np.ones((1, 4), np.float32)), threes])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "input `a` has the shape (1, 4)" in caught.value.message()


def test_a_configuration_without_inputs_and_outputs_is_completed_from_the_graph(client: Any) -> None:
    config = client.get_model_config("completed", as_json=True)["config"]
    assert [(item["name"], item["data_type"], item["dims"]) for item in config["input"] + config["output"]] == [
        ("sketch", "TYPE_UINT8", ["2", "3"]),
        ("photo", "TYPE_UINT8", ["2", "3"]),
        ("lowest", "TYPE_UINT8", ["1"]),
    ]


def test_it_computes_in_float32_unless_it_is_told_otherwise(
    repository: Any, make_config: Callable[..., Any], request_input: Callable[..., Any]
) -> None:
    numbers = np.random.default_rng(0)
    weights = numbers.standard_normal((256, 256)).astype(np.float32)
    a = numbers.standard_normal((4, 256)).astype(np.float32)
    exact = a.astype(np.float64) @ weights
    repository.openvino("default", multiplying_graph(weights), PRECISE_CONFIG)
    configured = {"default": 1e-4}
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        for name, key, value in (("native", "HINT_BF16", "YES"), ("own", "INFERENCE_PRECISION_HINT", "bf16")):
            repository.openvino(name, multiplying_graph(weights), PRECISE_CONFIG + parameter(key, value))
            configured[name] = 1.0
    with (
        TritonServer(make_config(repository.folder)) as server,
        triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as client,
    ):
        for name, allowed in configured.items():
            error = np.abs(client.infer(name, [request_input("a", a)]).as_numpy("b") - exact).max()
            assert error < allowed, name
            assert (error > 1e-3) == (name != "default"), name


def test_every_mismatch_of_configuration_and_graph_is_told_at_once(
    repository: Any, make_config: Callable[..., Any]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sketch"], ["photo"])],
        "fixed",
        [helper.make_tensor_value_info("sketch", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 4])],
    )
    backend = 'backend: "openvino"\n'
    repository.openvino(
        "unfit",
        graph,
        f"""{backend} max_batch_size: 8
        input {{ name: "sketch" data_type: TYPE_UINT8 dims: [4] }}
        output {{ name: "picture" data_type: TYPE_FP32 dims: [4] }}""",
    )
    wrong = {
        "hint": ("PERFORMANCE_HINT", "FASTEST"),
        "streams": ("NUM_STREAMS", "many"),
        "threads": ("INFERENCE_NUM_THREADS", "-1"),
        "precision": ("INFERENCE_PRECISION_HINT", "f64"),
        "padding": ("ENABLE_BATCH_PADDING", "yes"),
        "extension": ("CPU_EXTENSION_PATH", "layers.so"),
    }
    for name, (key, value) in wrong.items():
        repository.openvino(name, graph, backend + parameter(key, value))
    both = parameter("HINT_BF16", "YES") + parameter("INFERENCE_PRECISION_HINT", "f32")
    repository.openvino("both", graph, backend + both)
    repository.openvino("empty", graph, f'{backend} default_model_filename: "other.xml"')
    repository.openvino("damaged", graph, backend)
    (repository.folder / "damaged" / "1" / "model.xml").write_text("<net>")
    with pytest.raises(ModelLoadFailed) as caught:
        TritonServer(make_config(repository.folder)).__enter__()
    reasons = caught.value.reasons
    assert "input `sketch` is TYPE_UINT8 in the configuration and f32 in the graph" in reasons["unfit"]
    assert "fixed batch of 1" in reasons["unfit"]
    assert "output picture is not in the graph, which has photo" in reasons["unfit"]
    assert "PERFORMANCE_HINT is 'FASTEST'; expected one of LATENCY, THROUGHPUT" in reasons["hint"]
    assert "NUM_STREAMS is 'many'" in reasons["streams"]
    assert "INFERENCE_NUM_THREADS is '-1'" in reasons["threads"]
    assert "INFERENCE_PRECISION_HINT is 'f64'; expected one of f32, bf16, f16" in reasons["precision"]
    assert "ENABLE_BATCH_PADDING is not supported here" in reasons["padding"]
    assert "CPU_EXTENSION_PATH is not supported here" in reasons["extension"]
    assert "HINT_BF16 is YES and INFERENCE_PRECISION_HINT is f32" in reasons["both"]
    assert "other.xml does not exist" in reasons["empty"]
    assert "cannot read" in reasons["damaged"]
