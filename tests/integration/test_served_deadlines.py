"""No request is worked on after its caller has left or its time is over, asked of the real server.

Of a caller that left an ensemble Triton tells no step; the ensemble ends after the step that it waits for.

The queues are the shipped ones. The models behind them write down whom they work on, and can be held at it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from sketchbridge_server import TritonServer
from sketchbridge_server.deadlines import VARIABLE
from tests.integration.in_process import REPOSITORY
from tests.server.conftest import RepositoryBuilder, local_config

pytestmark = pytest.mark.server

BURST = 1_000
SHORT_US = 1_000_000  # more than any machine needs between two steps, where nothing is held

# A name that begins with `hold` is held until a file `<name>.go` lies in the model's folder.
WORK = """
import os, time
from pathlib import Path

class Work:
    def begin(self, folder):
        self.folder = Path(folder)

    def on(self, name):
        with (self.folder / "worked").open("a") as file:
            file.write(name + "\\n")
        while name.startswith("hold") and not (self.folder / f"{name}.go").exists():
            time.sleep(0.01)
"""

# Works on one request of a batch at a time, and on `first` until another of its batch has left.
STEP = f"""{WORK}
from sketchbridge_server.steps import PictureStep

class TritonPythonModel(PictureStep, Work):
    input_name = "name"

    def initialize(self, arguments):
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
        super().initialize(arguments)
        self.begin(arguments["model_repository"])

    def execute(self, requests):
        self.batch = requests
        return super().execute(requests)

    def answer(self, picture, options, wanted):
        self.on(picture.decode())
        while picture == b"first" and not any(request.is_cancelled() for request in self.batch):
            time.sleep(0.01)
        return {{"answer": picture}}
"""

DROP_IN = f"""{WORK}
from sketchbridge_server.drop_in import DropInModel, GraphTensor, Signature

class TritonPythonModel(DropInModel, Work):
    default_filename = "model.py"

    def load(self, path, config):
        self.begin(path.parents[1])
        return self.describe(path)

    @staticmethod
    def describe(path):
        name, answer = (GraphTensor(name, "TYPE_STRING", "text", (-1, 1)) for name in ("name", "answer"))
        return Signature((name,), (answer,))

    def run(self, feeds, requested):
        for name in feeds["name"].ravel():
            self.on(name.decode())
        return {{"answer": feeds["name"]}}

    def unload(self):
        pass
"""

NAMES = """
backend: "python"
max_batch_size: 8
input { name: "name" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "answer" data_type: TYPE_STRING dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
# As `shoes`: first a step that takes bytes, then one that may take long, then another.
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "name" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "answer" data_type: TYPE_STRING dims: [ 1 ] }
ensemble_scheduling {
  step {
    model_name: "step" model_version: -1
    input_map { key: "name" value: "name" } output_map { key: "answer" value: "decoded" }
  }
  step {
    model_name: "drop_in" model_version: -1
    input_map { key: "name" value: "decoded" } output_map { key: "answer" value: "painted" }
  }
  step {
    model_name: "last" model_version: -1
    input_map { key: "name" value: "painted" } output_map { key: "answer" value: "answer" }
  }
}
"""
# Waits for three; the delay is only there to end a broken test.
BATCH_OF_THREE = "dynamic_batching { preferred_batch_size: [ 3 ] max_queue_delay_microseconds: 60000000 }"


def shipped_queue(model: str) -> str:
    """How requests wait for a shipped model, as its configuration says it."""
    shipped = (REPOSITORY / model / "config.pbtxt").read_text()
    config = text_format.Parse(shipped, model_config_pb2.ModelConfig())
    return f"dynamic_batching {{ {text_format.MessageToString(config.dynamic_batching)} }}"


@dataclass(frozen=True)
class Bench:
    """A running server over `folder`. Calls are made in threads of `pool`."""

    folder: Path
    server: TritonServer
    client: triton_grpc.InferenceServerClient
    pool: ThreadPoolExecutor

    def call(self, model: str, name: str, **settings: Any) -> Future[Any]:
        return self.pool.submit(self.client.infer, model, inputs(name), **settings)

    def refusal(self, model: str, name: str, *, protocol: str, request_id: str, timeout_us: int) -> Future[Any]:
        """A call that ends in what the server says instead of an answer: its status and message."""
        ask = {"grpc": self._refusal_over_grpc, "http": self._refusal_over_http}[protocol]
        return self.pool.submit(ask, model, name, request_id, timeout_us)

    def _refusal_over_grpc(self, model: str, name: str, request_id: str, timeout_us: int) -> tuple[str, str]:
        with pytest.raises(InferenceServerException) as caught:
            self.client.infer(model, inputs(name), request_id=request_id, timeout=timeout_us)
        return caught.value.status(), caught.value.message()

    def _refusal_over_http(self, model: str, name: str, request_id: str, timeout_us: int) -> tuple[str, str]:
        item = {"name": "name", "shape": [1, 1], "datatype": "BYTES", "data": [name]}
        body = json.dumps({"id": request_id, "inputs": [item], "parameters": {"timeout": timeout_us}})
        endpoints = self.server.endpoints
        connection = http.client.HTTPConnection(endpoints.host, endpoints.http_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", f"/v2/models/{model}/infer", body)
            response = connection.getresponse()
            return str(response.status), json.loads(response.read())["error"]

    def begin(self, model: str, name: str) -> tuple[triton_grpc.CallContext, Future[Any]]:
        """A call that can be cancelled, and what becomes its error, None if it is answered."""
        ended: Future[Any] = Future()

        def end(result: Any, error: Any) -> None:
            ended.set_result(error)

        return self.client.async_infer(model, inputs(name), end), ended

    def worked_on(self, model: str) -> list[str]:
        path = self.folder / model / "worked"
        return path.read_text().split() if path.exists() else []

    def let_go(self, model: str, name: str) -> None:
        (self.folder / model / f"{name}.go").touch()

    def waiting(self, model: str) -> int:
        endpoints = self.server.endpoints
        connection = http.client.HTTPConnection(endpoints.host, endpoints.metrics_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        start = f'nv_inference_pending_request_count{{model="{model}",'
        return int(next(line.rpartition(" ")[2] for line in lines if line.startswith(start)))


def inputs(name: str) -> list[triton_grpc.InferInput]:
    item = triton_grpc.InferInput("name", [1, 1], "BYTES")
    item.set_data_from_numpy(np.array([[name.encode()]], dtype=object))
    return [item]


def wait_until(condition: Callable[[], bool]) -> None:
    """The test's own time limit ends a wait that is in vain."""
    while not condition():
        time.sleep(0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("models")
    builder = RepositoryBuilder(folder)
    builder.python("step", STEP, NAMES + shipped_queue("decode"))
    builder.python("step_of_batches", STEP, NAMES + BATCH_OF_THREE)
    builder.python("step_without_batcher", STEP, NAMES)
    builder.python("drop_in", DROP_IN, NAMES + shipped_queue("shoes_generator"))
    builder.python("drop_in_without_batcher", DROP_IN, NAMES)
    builder.python("last", DROP_IN, NAMES)
    builder.ensemble("ensemble", ENSEMBLE)
    with TritonServer(local_config(folder)) as server:
        yield server


@pytest.fixture
def bench(running: TritonServer) -> Iterator[Bench]:
    (folder,) = running.config.repositories
    for path in (*folder.glob("*/worked"), *folder.glob("*/*.go")):
        path.unlink()
    with triton_grpc.InferenceServerClient(running.endpoints.grpc_url) as client, ThreadPoolExecutor(4) as pool:
        made = Bench(folder, running, client, pool)
        yield made
        for model in folder.iterdir():  # so that a test that failed leaves nobody held
            made.let_go(model.name, "hold")


@pytest.mark.parametrize("model", ["step", "step_without_batcher", "drop_in", "drop_in_without_batcher"])
def test_a_direct_request_that_is_cancelled_in_the_queue_is_never_worked_on(bench: Bench, model: str) -> None:
    held = bench.call(model, "hold")
    wait_until(lambda: bench.worked_on(model) == ["hold"])
    before = bench.waiting(model)
    call, left = bench.begin(model, "left")
    wait_until(lambda: bench.waiting(model) == before + 1)
    call.cancel()
    assert left.result().status() == "StatusCode.CANCELLED"
    after = bench.call(model, "after")  # on the same connection, so it comes in after the cancellation
    wait_until(lambda: bench.waiting(model) == before + 2)
    bench.let_go(model, "hold")
    held.result()
    after.result()
    assert bench.worked_on(model) == ["hold", "after"]


def test_a_request_of_a_batch_that_is_cancelled_before_its_turn_is_never_worked_on(bench: Bench) -> None:
    model = "step_of_batches"
    held = bench.call(model, "first")
    wait_until(lambda: bench.waiting(model) == 1)
    call, left = bench.begin(model, "left")
    wait_until(lambda: bench.waiting(model) == 2)
    other = bench.call(model, "last")
    wait_until(lambda: bench.worked_on(model) == ["first"])
    call.cancel()
    assert left.result().status() == "StatusCode.CANCELLED"
    assert [answered.result().as_numpy("answer").item() for answered in (held, other)] == [b"first", b"last"]
    assert bench.worked_on(model) == ["first", "last"]


@pytest.fixture
def held(bench: Bench) -> Future[Any]:
    """A request to the ensemble that the middle step works on, until it is let go."""
    bench.let_go("step", "hold")
    bench.let_go("last", "hold")
    call = bench.call("ensemble", "hold")
    wait_until(lambda: bench.worked_on("drop_in") == ["hold"])
    return call


@pytest.mark.parametrize(("protocol", "status"), [("grpc", "StatusCode.UNAVAILABLE"), ("http", "503")])
def test_a_request_whose_time_ends_within_an_ensemble_is_never_worked_on_there(
    bench: Bench, held: Future[Any], protocol: str, status: str
) -> None:
    before = bench.waiting("drop_in")
    request_id = uuid.uuid4().hex
    late = bench.refusal("ensemble", "late", protocol=protocol, request_id=request_id, timeout_us=SHORT_US)
    patient = bench.call("ensemble", "patient", request_id=uuid.uuid4().hex, timeout=600_000_000)
    without_id = bench.call("ensemble", "nameless", timeout=SHORT_US)
    wait_until(lambda: bench.waiting("drop_in") == before + 3)
    time.sleep(SHORT_US / 1e6)
    bench.let_go("drop_in", "hold")
    assert late.result()[0] == status
    assert "Request timeout expired" in late.result()[1]
    for answered in (held, patient, without_id):
        answered.result()
    assert set(bench.worked_on("step")) == {"hold", "late", "patient", "nameless"}
    for model in ("drop_in", "last"):
        assert sorted(bench.worked_on(model)) == ["hold", "nameless", "patient"]


def test_an_id_and_timeout_that_were_used_before_get_their_whole_time_again(bench: Bench, held: Future[Any]) -> None:
    request_id = "the-same-id-every-time"
    before = bench.waiting("drop_in")
    late = bench.refusal("ensemble", "late", protocol="grpc", request_id=request_id, timeout_us=SHORT_US)
    wait_until(lambda: bench.waiting("drop_in") == before + 1)
    time.sleep(SHORT_US / 1e6)
    bench.let_go("drop_in", "hold")
    assert "Request timeout expired" in late.result()[1]
    held.result()
    for name in ("again", "and_again"):
        bench.call("ensemble", name, request_id=request_id, timeout=SHORT_US).result()
    assert bench.worked_on("last") == ["hold", "again", "and_again"]


def test_an_ensemble_whose_caller_left_ends_after_the_step_that_it_waits_for(bench: Bench, held: Future[Any]) -> None:
    before = bench.waiting("drop_in")
    call, left = bench.begin("ensemble", "left")
    wait_until(lambda: bench.waiting("drop_in") == before + 1)
    call.cancel()
    assert left.result().status() == "StatusCode.CANCELLED"
    after = bench.call("ensemble", "after")
    wait_until(lambda: bench.waiting("drop_in") == before + 2)
    bench.let_go("drop_in", "hold")
    held.result()
    after.result()
    assert bench.worked_on("drop_in") == ["hold", "left", "after"]
    assert bench.worked_on("last") == ["hold", "after"]


# Answers with the table's path in the model's environment and how many requests were noted in it.
TELL = f"""
import os
import numpy
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        path = os.environ.get({VARIABLE!r}, "")
        words = numpy.fromfile(path, dtype=numpy.uint64).reshape(-1, 2, 8) if path else numpy.zeros((1, 2, 8))
        told = numpy.array([[f"{{path}} {{(words[1:, 0] > 0).sum()}}".encode()]], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("answer", told)]) for _ in requests]
"""


def test_a_restart_begins_with_an_empty_table_and_a_stop_leaves_none(tmp_path: Path) -> None:
    RepositoryBuilder(tmp_path).python("step", STEP, NAMES).python("tell", TELL, NAMES)
    server = TritonServer(local_config(tmp_path))
    paths = []
    for _ in range(2):
        with server, triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as client:
            client.infer("step", inputs("one"), request_id=uuid.uuid4().hex, timeout=1_000_000)
            path, noted = client.infer("tell", inputs("x")).as_numpy("answer").item().decode().split()
            assert Path(path).exists()
            assert noted == "1"
        paths.append(Path(path))
        assert not paths[-1].exists()
    assert paths[0] != paths[1]


def test_a_server_that_is_told_to_has_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/of/another/server")
    RepositoryBuilder(tmp_path).python("tell", TELL, NAMES)
    with (
        TritonServer(local_config(tmp_path, refuse_expired=False)) as server,
        triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as client,
    ):
        assert client.infer("tell", inputs("x")).as_numpy("answer").item() == b" 0"


def test_a_burst_of_a_thousand_callers_is_taken_in_and_answered(bench: Bench) -> None:
    held = bench.call("step", "hold")
    wait_until(lambda: bench.worked_on("step") == ["hold"])
    errors = [bench.begin("step", "one")[1] for _ in range(BURST)]
    wait_until(lambda: bench.waiting("step") >= BURST)
    bench.let_go("step", "hold")
    held.result()
    assert {error.result() for error in errors} == {None}
