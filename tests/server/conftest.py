from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from onnx import GraphProto, TensorProto, helper

from sketchbridge_server import ServerConfig, TritonServer
from sketchbridge_server.quiet_openvino import openvino

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ECHO_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "text" data_type: TYPE_STRING dims: [1] }
output { name: "seen" data_type: TYPE_STRING dims: [1] }
output { name: "unseen" data_type: TYPE_STRING dims: [1] }
"""

# Answers with what it was told. `refuse` is the caller's fault, `sleep FILE` makes the file and takes a second, `hang
# FILE` takes very long, `die` ends the process.
ECHO_MODEL = """
import json, os, sys, time
import cv2, numpy, triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        text = request.inputs()[0].as_numpy().ravel()[0].decode()
        if text == "refuse":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("no thanks", pb_utils.TritonError.INVALID_ARG))
        if text.startswith(("sleep ", "hang ")):
            word, _, begun = text.partition(" ")
            open(begun, "x").close()
            time.sleep(1 if word == "sleep" else 600)
        if text == "die":
            os._exit(3)
        seen = {
            "parameters": request.parameters(),
            "outputs": sorted(request.requested_output_names()),
            "prefix": sys.prefix,
            "path": sys.path,
            "folder": os.listdir("."),
        }
        array = numpy.array([[json.dumps(seen).encode()]], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name in request.requested_output_names()])
"""

ENSEMBLE_CONFIG = """
platform: "ensemble"
max_batch_size: 8
input { name: "sketch" data_type: TYPE_STRING dims: [1] }
output { name: "photo" data_type: TYPE_STRING dims: [1] }
ensemble_scheduling {
  step {
    model_name: "echo" model_version: -1
    input_map { key: "text" value: "sketch" } output_map { key: "seen" value: "middle" }
  }
  step {
    model_name: "copy" model_version: -1
    input_map { key: "text" value: "middle" } output_map { key: "copy" value: "photo" }
  }
}
"""


@dataclass(frozen=True)
class RepositoryBuilder:
    """Writes a small, real model repository."""

    folder: Path

    def python(self, name: str, code: str = ECHO_MODEL, config: str = ECHO_CONFIG) -> RepositoryBuilder:
        version = self._version(name, config)
        (version / "model.py").write_text(code)
        return self

    def onnx(self, name: str, graph: onnx.GraphProto, config: str) -> RepositoryBuilder:
        version = self._version(name, config)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, version / "model.onnx")
        return self

    def openvino(self, name: str, graph: GraphProto, config: str) -> RepositoryBuilder:
        version = self.onnx(name, graph, config).folder / name / "1"
        read = openvino.Core().read_model(version / "model.onnx")
        openvino.save_model(read, version / "model.xml", compress_to_fp16=False)
        (version / "model.onnx").unlink()
        return self

    def ensemble(self, name: str, config: str = ENSEMBLE_CONFIG) -> RepositoryBuilder:
        self._version(name, config)
        return self

    def _version(self, name: str, config: str) -> Path:
        version = self.folder / name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(config)
        return version


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def inverting_graph() -> onnx.GraphProto:
    """`sketch` (N, 2, 3) uint8 -> `photo` = 255 - sketch, and `lowest` (N, 1) = its least value."""
    return helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["white"], value=helper.make_tensor("white", TensorProto.UINT8, [1], [255])
            ),
            helper.make_node("Sub", ["white", "sketch"], ["photo"]),
            helper.make_node("Flatten", ["photo"], ["flat"]),
            helper.make_node("ReduceMin", ["flat"], ["lowest"], axes=[1], keepdims=1),
        ],
        "inverting",
        [tensor("sketch", TensorProto.UINT8, "N", 2, 3)],
        [tensor("photo", TensorProto.UINT8, "N", 2, 3), tensor("lowest", TensorProto.UINT8, "N", 1)],
    )


def lookup_graph() -> onnx.GraphProto:
    """`index` (N, 1) int64 -> `value` (N, 1) = ten times the index; only 0, 1 and 2 exist."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [0.0, 10.0, 20.0])
    return helper.make_graph(
        [
            helper.make_node("Constant", [], ["numbers"], value=table),
            helper.make_node("Gather", ["numbers", "index"], ["value"]),
        ],
        "lookup",
        [tensor("index", TensorProto.INT64, "N", 1)],
        [tensor("value", TensorProto.FLOAT, "N", 1)],
    )


def copying_graph() -> onnx.GraphProto:
    """`text` (N, 1) string -> `copy`."""
    return helper.make_graph(
        [helper.make_node("Identity", ["text"], ["copy"])],
        "copying",
        [tensor("text", TensorProto.STRING, "N", 1)],
        [tensor("copy", TensorProto.STRING, "N", 1)],
    )


def folding_graph() -> onnx.GraphProto:
    """`width` (N, 1) int64 -> `folded` = all widths in rows as long as the largest, which must divide N."""
    return helper.make_graph(
        [
            helper.make_node("ReduceMax", ["width"], ["widest"], axes=[0], keepdims=0),
            helper.make_node("Constant", [], ["rest"], value=helper.make_tensor("rest", TensorProto.INT64, [1], [-1])),
            helper.make_node("Concat", ["rest", "widest"], ["shape"], axis=0),
            helper.make_node("Reshape", ["width", "shape"], ["folded"]),
        ],
        "folding",
        [tensor("width", TensorProto.INT64, "N", 1)],
        [tensor("folded", TensorProto.INT64, "N", 1)],
    )


def adding_graph() -> onnx.GraphProto:
    """`a` + `b` -> `sum`, each (N, 3) float32."""
    return helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        "adding",
        [tensor("a", TensorProto.FLOAT, "N", 3), tensor("b", TensorProto.FLOAT, "N", 3)],
        [tensor("sum", TensorProto.FLOAT, "N", 3)],
    )


INVERT_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "sketch" data_type: TYPE_UINT8 dims: [2, 3] }
output { name: "photo" data_type: TYPE_UINT8 dims: [2, 3] }
output { name: "lowest" data_type: TYPE_UINT8 dims: [1] }
instance_group { kind: KIND_CPU count: 1 }
"""

# These wait until so many rows have come, however slow the machine is; the delay is only there to end a broken test.
INVERT_SEVEN_CONFIG = (
    f"{INVERT_CONFIG}dynamic_batching {{ max_queue_delay_microseconds: 60000000 preferred_batch_size: [7] }}"
)

LOOKUP_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "index" data_type: TYPE_INT64 dims: [1] }
output { name: "value" data_type: TYPE_FP32 dims: [1] }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: [4] }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "execution_mode" value { string_value: "0" } }
optimization { graph { level: -1 } }
"""

READ_ONNX = """
default_model_filename: "model.onnx"
parameters { key: "PERFORMANCE_HINT" value { string_value: "LATENCY" } }
parameters { key: "NUM_STREAMS" value { string_value: "1" } }
parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "1" } }
parameters { key: "HINT_BF16" value { string_value: "NO" } }
"""

# With a single thread OpenVINO 2026.4 loses the error, so this takes as many as there are.
FOLD_CONFIG = """
backend: "openvino"
max_batch_size: 8
input { name: "width" data_type: TYPE_INT64 dims: [1] }
output { name: "folded" data_type: TYPE_INT64 dims: [1] }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: [4] }
"""

# The configuration lets any width through, the graph only three.
ADD_CONFIG = """
backend: "openvino"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [-1] }
input { name: "b" data_type: TYPE_FP32 dims: [-1] }
output { name: "sum" data_type: TYPE_FP32 dims: [-1] }
instance_group { kind: KIND_CPU count: 1 }
"""

COMPLETED_CONFIG = """
backend: "openvino"
max_batch_size: 8
instance_group { kind: KIND_CPU count: 1 }
"""

COPY_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
instance_group { kind: KIND_CPU count: 1 }
"""


def for_openvino(config: str) -> str:
    return config.replace('"onnxruntime"', '"openvino"')


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    """An empty model repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    return RepositoryBuilder(folder)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One running server for all tests that only call it."""
    builder = RepositoryBuilder(tmp_path_factory.mktemp("repository"))
    builder.python("echo").ensemble("shoes")
    builder.onnx("invert", inverting_graph(), INVERT_CONFIG)
    builder.onnx("invert_seven", inverting_graph(), INVERT_SEVEN_CONFIG)
    builder.onnx("lookup", lookup_graph(), LOOKUP_CONFIG)
    builder.onnx("copy", copying_graph(), COPY_CONFIG)
    builder.openvino("openvino_invert", inverting_graph(), for_openvino(INVERT_CONFIG))
    builder.onnx("openvino_invert_seven", inverting_graph(), for_openvino(INVERT_SEVEN_CONFIG) + READ_ONNX)
    builder.openvino("fold", folding_graph(), FOLD_CONFIG)
    builder.openvino("add", adding_graph(), ADD_CONFIG)
    builder.openvino("completed", inverting_graph(), COMPLETED_CONFIG)
    with TritonServer(local_config(builder.folder)) as server:
        yield server


@pytest.fixture(scope="session")
def client(served: TritonServer) -> Iterator[triton_grpc.InferenceServerClient]:
    with triton_grpc.InferenceServerClient(served.endpoints.grpc_url) as client:
        yield client


def local_config(*repositories: Path, **settings: Any) -> ServerConfig:
    """Free ports and short waits."""
    return ServerConfig(
        **{
            "repositories": repositories,
            "http_port": 0,
            "grpc_port": 0,
            "metrics_port": 0,
            "ready_timeout_s": 60.0,
            "grace_period_s": 10,
            **settings,
        }
    )


@pytest.fixture(scope="session")
def make_config() -> Callable[..., ServerConfig]:
    return local_config


@pytest.fixture(scope="session")
def request_input() -> Callable[[str, np.ndarray[Any, Any]], triton_grpc.InferInput]:
    """Makes a gRPC input of an array."""
    types = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32", "object": "BYTES"}

    def build(name: str, array: np.ndarray[Any, Any]) -> triton_grpc.InferInput:
        item = triton_grpc.InferInput(name, list(array.shape), types[array.dtype.name])
        item.set_data_from_numpy(array)
        return item

    return build
