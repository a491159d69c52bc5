"""The server tells callers, by any client, how long each step of their request waited and took."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray

from sketchbridge_export.triton_config import paint_config
from sketchbridge_server import ServerConfig, TritonServer, guardian
from tests.conftest import PHOTOS, SKETCHES
from tests.integration.in_process import REPOSITORY

pytestmark = pytest.mark.server

Tensor = NDArray[Any]

# Paints nothing and stamps nothing, as a backend that is not in Python.
FOREIGN_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        drawings = [pb_utils.get_input_tensor_by_name(request, "sketch").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("photo", drawing)]) for drawing in drawings]
"""
FOREIGN_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "sketch" data_type: TYPE_UINT8 dims: [ 256, 256, 3 ] }
output { name: "photo" data_type: TYPE_UINT8 dims: [ 256, 256, 3 ] }
"""


@dataclass(frozen=True)
class Told:
    """What a call was told. steps: model, queue_us and compute_us of each. elapsed_us: of the call, by its caller."""

    outputs: Mapping[str, Tensor]
    steps: Sequence[tuple[str, int | None, int]]
    elapsed_us: float

    @property
    def models(self) -> list[str]:
        return [model for model, _, _ in self.steps]

    @property
    def sum_us(self) -> int:
        return sum((queue_us or 0) + compute_us for _, queue_us, compute_us in self.steps)


def ask(
    client: triton_grpc.InferenceServerClient,
    model: str,
    tensor: Tensor,
    *outputs: str,
    request_id: str | None = None,
    **settings: Any,
) -> Told:
    """Ask for outputs; `timings` must be among them, and the same for every picture."""
    name = {"sketch": "photo", "encode": "image"}.get(model, "photo" if model.endswith("_roundtrip") else "sketch")
    item = triton_grpc.InferInput(name, list(tensor.shape), "UINT8" if tensor.dtype == np.uint8 else "BYTES")
    item.set_data_from_numpy(tensor)
    asked = [triton_grpc.InferRequestedOutput(output) for output in outputs]
    began = time.monotonic()
    answer = client.infer(model, [item], outputs=asked, request_id=request_id or uuid.uuid4().hex, **settings)
    elapsed_us = 1e6 * (time.monotonic() - began)
    given = {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}
    assert set(given) == set(outputs)
    (text,) = set(given["timings"][:, 0])
    assert given["timings"].shape == (len(tensor), 1)
    steps = [(step["model"], step["queue_us"], step["compute_us"]) for step in json.loads(text)]
    return Told(given, steps, elapsed_us)


def files(*paths: Path) -> Tensor:
    return np.array([path.read_bytes() for path in paths], dtype=object)[:, None]


@pytest.fixture
def client(server: TritonServer) -> Iterator[triton_grpc.InferenceServerClient]:
    with triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as connected:
        yield connected


def check(told: Told, models: list[str]) -> None:
    assert told.models == models
    waited_us = [queue_us for _, queue_us, _ in told.steps]
    assert waited_us[0] is None
    assert all(queue_us is not None and queue_us >= 0 for queue_us in waited_us[1:])
    assert all(compute_us > 0 for _, _, compute_us in told.steps)
    assert told.sum_us <= told.elapsed_us


@pytest.mark.parametrize("settings", [{}, {"timeout": 60_000_000}], ids=["no limit", "a limit"])
def test_a_painting_comes_with_the_times_of_its_three_steps(
    client: triton_grpc.InferenceServerClient, settings: dict[str, Any]
) -> None:
    told = ask(client, "shoes", files(SKETCHES[0]), "photo", "timings", **settings)
    check(told, ["decode", "shoes_generator", "encode"])
    assert told.outputs["photo"][0, 0].startswith(b"\x89PNG")


def test_pictures_of_one_request_have_the_same_times(client: triton_grpc.InferenceServerClient) -> None:
    check(ask(client, "shoes", files(*SKETCHES[:3]), "photo", "timings"), ["decode", "shoes_generator", "encode"])


def test_a_round_trip_begins_with_the_sketch(client: triton_grpc.InferenceServerClient) -> None:
    told = ask(client, "shoes_roundtrip", files(PHOTOS[0]), "sketch", "repainted", "timings")
    check(told, ["sketch", "shoes_generator", "encode"])


def test_a_step_by_itself_tells_of_itself_even_with_an_id_that_an_ensemble_had(
    client: triton_grpc.InferenceServerClient,
) -> None:
    request_id = uuid.uuid4().hex
    for _ in range(2):
        told = ask(client, "shoes", files(SKETCHES[0]), "timings", request_id=request_id)
        check(told, ["decode", "shoes_generator", "encode"])
        image = np.zeros((2, 30, 40, 3), np.uint8)
        check(ask(client, "encode", image, "image_bytes", "timings", request_id=request_id), ["encode"])
        check(ask(client, "sketch", files(PHOTOS[0]), "sketch", "timings", request_id=request_id), ["sketch"])


@pytest.mark.parametrize("request_id", ["1", "fifteen-letters"])
def test_an_id_that_is_too_short_to_tell_calls_apart_gives_the_last_step_only(
    client: triton_grpc.InferenceServerClient, request_id: str
) -> None:
    check(ask(client, "shoes", files(SKETCHES[0]), "photo", "timings", request_id=request_id), ["encode"])


def test_callers_at_once_are_each_told_their_own_times(client: triton_grpc.InferenceServerClient) -> None:
    def call(_: int) -> Told:
        return ask(client, "shoes", files(SKETCHES[0]), "timings")

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(call, range(24)))
    for one in told:
        check(one, ["decode", "shoes_generator", "encode"])
    assert len({one.sum_us for one in told}) > 1


def outputs_over_http(server: TritonServer, model: str, name: str, path: Path) -> list[dict[str, Any]]:
    """Of a request in JSON that names no outputs."""
    item = {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(path.read_bytes()).decode()]}
    body = {"id": uuid.uuid4().hex, "inputs": [item], "parameters": {"output_encoding": "base64"}}
    connection = http.client.HTTPConnection(server.endpoints.host, server.endpoints.http_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
    outputs: list[dict[str, Any]] = answer["outputs"]
    return outputs


@pytest.mark.parametrize(
    ("model", "name", "path", "expected"),
    [
        ("shoes", "sketch", SKETCHES[0], ["photo", "timings"]),
        ("shoes_roundtrip", "photo", PHOTOS[0], ["repainted", "sketch", "timings"]),
        ("sketch", "photo", PHOTOS[0], ["sketch", "sketch_image", "timings"]),
    ],
)
def test_who_names_no_outputs_gets_the_pictures_first_and_then_the_times(
    server: TritonServer, model: str, name: str, path: Path, expected: list[str]
) -> None:
    outputs = outputs_over_http(server, model, name, path)
    assert [output["name"] for output in outputs] == expected
    assert base64.b64decode(outputs[0]["data"][0]).startswith(b"\x89PNG")
    assert json.loads(outputs[-1]["data"][0])[0]["queue_us"] is None


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of ensembles around a generator that stamps nothing; `older` is as they were without times."""
    folder = tmp_path_factory.mktemp("models")
    for block in ("decode", "encode"):
        shutil.copytree(REPOSITORY / block, folder / block)
    for name in ("shoes", "shoes_generator", "older"):
        (folder / name / "1").mkdir(parents=True)
    (folder / "shoes_generator" / "config.pbtxt").write_text(FOREIGN_CONFIG)
    (folder / "shoes_generator" / "1" / "model.py").write_text(FOREIGN_MODEL)
    (folder / "shoes" / "config.pbtxt").write_text(paint_config("shoes"))
    older = paint_config("shoes", timings=False).replace('name: "shoes"', 'name: "older"')
    (folder / "older" / "config.pbtxt").write_text(older)
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[triton_grpc.InferenceServerClient]:
    config = ServerConfig((folder,), http_port=0, grpc_port=0, metrics_port=0, grace_period_s=5)
    with TritonServer(config) as server, triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as connected:
        yield connected


def test_a_generator_that_stamps_nothing_is_left_out_and_an_older_ensemble_paints_as_ever(foreign: Path) -> None:
    with serving(foreign) as client:
        check(ask(client, "shoes", files(SKETCHES[0]), "photo", "timings"), ["decode", "encode"])
        item = triton_grpc.InferInput("sketch", [1, 1], "BYTES")
        item.set_data_from_numpy(files(SKETCHES[0]))
        answer = client.infer("older", [item], request_id=uuid.uuid4().hex)
        assert [output.name for output in answer.get_response().outputs] == ["photo"]


def test_where_there_is_no_table_a_step_knows_its_own_time(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guardian, "SHARED_MEMORY", tmp_path / "missing")
    with serving(foreign) as client:
        check(ask(client, "shoes", files(SKETCHES[0]), "photo", "timings"), ["encode"])
    assert "steps will tell no times but their own" in caplog.text
