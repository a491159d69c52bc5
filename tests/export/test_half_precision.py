from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from sketchbridge_export.artefacts.half_precision import half_precision_graph, network_nodes, plain_weights
from sketchbridge_export.artefacts.onnx import Weights as Stored
from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families import TANH_CONVENTION, Choices, Generator, NormMode, Weights, find_family
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import structural_similarity
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import Pictures, Pix2PixUNet, RenderXUNet, randomise

PICTURES = shipped_pictures()
STATISTICS = {"InstanceNormalization", "ReduceMean", "AveragePool", "GlobalAveragePool"}


def graph_of(
    network: nn.Module, path: Path, *, norm: NormMode | None = None, weights: Stored = "fp32"
) -> onnx.ModelProto:
    state = network.state_dict()
    family = find_family(Weights(state))
    interface = GeneratorInterface(family.rebuild(Weights(state), Choices(norm=norm)), family.convention).eval()
    write_onnx(interface, path, weights=weights)
    return onnx.load(path)


def bare_graph_of(network: nn.Module, path: Path) -> onnx.ModelProto:
    write_onnx(GeneratorInterface(Generator(network, 3, 3, 256, "none", {}), TANH_CONVENTION).eval(), path)
    return onnx.load(path)


def run(model: onnx.ModelProto, pictures: Pictures) -> Pictures:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["photo"], {"sketch": pictures})[0])


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize(
    ("network", "norm"),
    [
        pytest.param(Pix2PixUNet(downs=8, ngf=4), "running", id="batch statistics folded away"),
        pytest.param(Pix2PixUNet(downs=8, ngf=4), "instance", id="statistics of each picture"),
        pytest.param(Pix2PixUNet(downs=7, ngf=4, channels=(1, 1)), "instance", id="gray, resized"),
        pytest.param(RenderXUNet((4, 4, 8, 8, 8, 8), 8), "running", id="pooling"),
    ],
)
def test_it_paints_the_same_pictures(network: nn.Module, norm: NormMode, tmp_path: Path) -> None:
    model = graph_of(randomise(network), tmp_path / "model.onnx", norm=norm)
    expected = run(model, PICTURES)
    assert expected.std() > 10, "a flat oracle proves nothing"
    half = half_precision_graph(model)
    painted = run(half, PICTURES)
    assert (painted != expected).any(), "nothing was computed in float16"
    assert min(structural_similarity(a, b) for a, b in zip(painted, expected, strict=True)) >= 0.995
    assert structural_similarity(run(half, PICTURES[3:4])[0], painted[3]) > 0.9999


def test_convolutions_are_float16_and_statistics_and_the_interface_float32(tmp_path: Path) -> None:
    network = randomise(Pix2PixUNet(downs=7, ngf=4, channels=(1, 1)))
    model = half_precision_graph(graph_of(network, tmp_path / "model.onnx", norm="instance"))
    types = types_of(model)
    nodes = model.graph.node
    inside = network_nodes(nodes)
    made = {
        (node.op_type, types[node.output[0]]) for index, node in enumerate(nodes) if index in inside and node.output[0]
    }
    assert {kind for kind, element in made if element == TensorProto.FLOAT} == {"InstanceNormalization", "Cast"}
    assert {"Conv", "ConvTranspose", "Relu", "LeakyRelu", "Concat"} <= {
        kind for kind, element in made if element == TensorProto.FLOAT16
    }
    outside = [node for index, node in enumerate(nodes) if index not in inside]
    assert {"Mul", "Add", "Floor", "Resize", "Tanh", "Round"} <= {node.op_type for node in outside}
    halves = [node.op_type for node in outside if types[node.output[0]] == TensorProto.FLOAT16]
    assert set(halves) == {"Cast"}
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert weights == {TensorProto.FLOAT16}


def test_no_tensor_is_cast_twice_in_one_direction(tmp_path: Path) -> None:
    model = half_precision_graph(graph_of(randomise(Pix2PixUNet(downs=8, ngf=4)), tmp_path / "model.onnx"))
    sources = [node.input[0] for node in model.graph.node if node.op_type == "Cast"]
    assert len(sources) == len(set(sources))


def test_the_given_graph_stays_as_it_is(tmp_path: Path) -> None:
    model = graph_of(randomise(Pix2PixUNet(downs=8, ngf=2)), tmp_path / "model.onnx")
    before = model.SerializeToString()
    half_precision_graph(model)
    assert model.SerializeToString() == before


def test_weights_that_are_stored_as_float16_come_back_exactly(tmp_path: Path) -> None:
    network = randomise(Pix2PixUNet(downs=8, ngf=8))
    stored = graph_of(network, tmp_path / "stored.onnx", weights="fp16")
    assert any(node.op_type == "Cast" and node.input[0].endswith("_fp16") for node in stored.graph.node)
    plain = plain_weights(stored)
    assert {tensor.data_type for tensor in plain.graph.initializer if len(tensor.dims) == 4} == {TensorProto.FLOAT}
    assert (run(plain, PICTURES[:2]) == run(stored, PICTURES[:2])).all()
    half = half_precision_graph(stored)
    assert sum(node.op_type == "Cast" for node in half.graph.node) < 40, "a cast a weight is left"
    onnx.checker.check_model(half, full_check=True)


class Residual(nn.Module):
    """What goes into its first convolution is wanted again behind the last one, and in between by both precisions."""

    def __init__(self, largest: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8)
        self.second = nn.Conv2d(8, 3, 3, padding=1)
        with torch.no_grad():
            self.first.weight[0, 0, 0, 0] = largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return torch.tanh(x + self.second(self.norm(y) + y.mean((2, 3), keepdim=True) + torch.relu(y)))


def test_tensors_that_both_precisions_want_are_cast_where_they_meet(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = bare_graph_of(Residual(), tmp_path / "model.onnx")
    half = half_precision_graph(model)
    types = types_of(half)
    for node in half.graph.node:
        if node.op_type in STATISTICS:
            assert types[node.output[0]] == TensorProto.FLOAT
    assert structural_similarity(run(half, PICTURES[:1])[0], run(model, PICTURES[:1])[0]) >= 0.995


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"holds 1e\+05; float16 ends at 65504"):
        half_precision_graph(bare_graph_of(Residual(1e5), tmp_path / "model.onnx"))


def test_a_graph_without_a_convolution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="has no convolution"):
        half_precision_graph(bare_graph_of(nn.Tanh(), tmp_path / "model.onnx"))


def test_control_flow_is_refused(tmp_path: Path) -> None:
    model = bare_graph_of(nn.Conv2d(3, 3, 1), tmp_path / "model.onnx")
    inside = onnx.helper.make_graph([], "inside", [], [])
    branch = onnx.helper.make_node("If", ["yes"], [], "node_if", then_branch=inside, else_branch=inside)
    model.graph.node.append(branch)
    with pytest.raises(OptionInvalid, match=r"`node_if` \(If\) has a graph inside"):
        half_precision_graph(model)
