"""What our pipelines rely on in Triton itself, asked of the real one, so that none can change it unseen."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Callable

    from sketchbridge_server import TritonServer

pytestmark = pytest.mark.server


def fetch(server: TritonServer, path: str, *, port: int | None = None, body: Any = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.endpoints.host, port or server.endpoints.http_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read().decode()


def infer_over_http(server: TritonServer, text: str, parameters: dict[str, Any]) -> tuple[int, Any]:
    """The status, and what the model saw or the whole answer of a failure."""
    item = {"name": "sketch", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    status, answer = fetch(server, "/v2/models/shoes/infer", body={"inputs": [item], "parameters": parameters})
    return status, json.loads(json.loads(answer)["outputs"][0]["data"][0]) if status == 200 else answer


def test_parameters_reach_the_steps_of_an_ensemble_as_a_json_string(
    client: Any, request_input: Callable[..., Any], served: TritonServer
) -> None:
    parameters = {"method": "canny", "low_threshold": 50, "blur_sigma": 1.5, "flag": True}
    answer = client.infer(
        "shoes", [request_input("sketch", np.array([["x"]], dtype=object))], parameters=parameters
    ).as_numpy("photo")
    assert json.loads(json.loads(answer.item())["parameters"]) == parameters
    assert json.loads(infer_over_http(served, "x", parameters)[1]["parameters"]) == parameters


def test_an_ensemble_asks_a_step_only_for_the_outputs_it_uses(served: TritonServer) -> None:
    assert infer_over_http(served, "x", {})[1]["outputs"] == ["seen"]


def test_a_refusal_in_a_step_is_the_callers_fault_on_both_protocols(
    client: Any, request_input: Callable[..., Any], served: TritonServer
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("shoes", [request_input("sketch", np.array([["refuse"]], dtype=object))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "no thanks" in caught.value.message()
    status, answer = infer_over_http(served, "refuse", {})
    assert status == 400
    assert "no thanks" in answer


def test_models_run_in_this_python_environment_and_in_an_empty_folder(served: TritonServer) -> None:
    seen = infer_over_http(served, "x", {})[1]
    assert seen["prefix"] == sys.prefix
    assert any(path.endswith(("/preprocess", "site-packages")) for path in seen["path"])
    assert seen["folder"] == []


@pytest.mark.parametrize("path", ["systemsharedmemory/status", "cudasharedmemory/status", "logging", "trace/setting"])
def test_what_no_caller_needs_is_locked(served: TritonServer, path: str) -> None:
    assert fetch(served, f"/v2/{path}")[0] == 403


def test_shared_memory_is_locked_over_grpc_and_the_index_is_open(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        client.get_system_shared_memory_status()
    assert {model.name for model in client.get_model_repository_index().models} >= {"echo", "shoes"}


def test_models_cannot_be_unloaded(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="not allowed"):
        client.unload_model("echo")


def test_metrics_count_and_keep_no_summaries(served: TritonServer) -> None:
    _, metrics = fetch(served, "/metrics", port=served.endpoints.metrics_port)
    assert 'nv_inference_count{model="shoes",version="1"}' in metrics
    assert "nv_inference_request_summary" not in metrics
