from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from sketchbridge_export.artefacts.half_precision import half_precision_graph
from sketchbridge_export.artefacts.int8_qdq import convolution_names, quantised_graph
from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families import TANH_CONVENTION, Choices, Generator, NormMode, Weights, find_family
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import structural_similarity
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import Pictures, Pix2PixUNet, randomise

PICTURES = shipped_pictures()


def write(network: nn.Module, path: Path, norm: NormMode = "running") -> Path:
    state = network.state_dict()
    family = find_family(Weights(state))
    write_onnx(GeneratorInterface(family.rebuild(Weights(state), Choices(norm=norm)), family.convention).eval(), path)
    return path


def run(model: onnx.ModelProto, pictures: Pictures) -> Pictures:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["photo"], {"sketch": pictures})[0])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(randomise(Pix2PixUNet(downs=8, ngf=4)), tmp_path_factory.mktemp("small") / "model.onnx")


@pytest.fixture(scope="module")
def quantised(small: Path) -> onnx.ModelProto:
    return quantised_graph(small, calibration=PICTURES)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("norm", ["running", "instance"])
@pytest.mark.parametrize("channels", [(3, 3), (1, 1)])
def test_it_paints_nearly_the_same_pictures_and_in_float16_too(
    norm: NormMode, channels: tuple[int, int], tmp_path: Path
) -> None:
    path = write(randomise(Pix2PixUNet(downs=8, ngf=4, channels=channels)), tmp_path / "model.onnx", norm)
    expected = run(onnx.load(path), PICTURES)
    assert expected.std() > 10, "a flat oracle proves nothing"
    model = quantised_graph(path, calibration=PICTURES[::2])
    for graph in (model, half_precision_graph(model)):
        painted = run(graph, PICTURES)
        assert (painted != expected).any(), "nothing was quantised"
        assert min(structural_similarity(a, b) for a, b in zip(painted, expected, strict=True)) >= 0.98


def test_every_convolution_gets_eight_bits_as_tensorrt_takes_them(quantised: onnx.ModelProto) -> None:
    values, producers = constants(quantised), {node.output[0]: node for node in quantised.graph.node}
    convolutions = [node for node in quantised.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 16
    for node in convolutions:
        activation, weights = producers[node.input[0]], producers[node.input[1]]
        assert producers[activation.input[0]].op_type == "QuantizeLinear"
        integers = values[weights.input[0]]
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() == 127
        channels = integers.shape[0 if node.op_type == "Conv" else 1]
        assert values[weights.input[1]].shape == (channels,)
        assert values[activation.input[1]].shape == ()
        for quantiser in (activation, weights):
            scale, zero = values[quantiser.input[1]], values[quantiser.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert (scale == scale.astype(np.float16)).all(), "it would change when the network is put into float16"
        assert all(values[name].dtype == np.float32 for name in node.input[2:]), "biases stay as they are"


def test_nothing_but_what_goes_into_a_convolution_is_quantised(quantised: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in quantised.graph.node if any(name.endswith("_dequantised") for name in node.input)}
    assert kinds == {"Conv", "ConvTranspose"}


def test_a_channels_weights_come_back_within_half_a_step(small: Path, quantised: onnx.ModelProto) -> None:
    original, values = constants(onnx.load(small)), constants(quantised)
    dequantisers = [node for node in quantised.graph.node if node.input[0] in values]
    for node in dequantisers:
        name, axis = node.output[0].removesuffix("_dequantised"), node.attribute[0].i
        scale = values[node.input[1]].reshape([-1 if index == axis else 1 for index in range(4)])
        assert (np.abs(values[node.input[0]] * scale - original[name]) <= scale * 0.5001).all()


def test_the_range_of_an_activation_is_what_the_pictures_show(quantised: onnx.ModelProto) -> None:
    first = next(node for node in quantised.graph.node if node.op_type == "QuantizeLinear")
    scale = constants(quantised)[first.input[1]]
    assert scale == pytest.approx(1 / 127, rel=1e-3)  # a drawing lies in [-1, 1]
    assert scale >= 1 / 127


def test_kept_convolutions_stay_as_they_are(small: Path) -> None:
    names = convolution_names(onnx.load(small))
    model = quantised_graph(small, calibration=PICTURES[:1], keep=names[:3])
    plain = [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants(model)]
    assert plain == list(names[:3])
    with pytest.raises(OptionInvalid, match="no convolution 'other' to keep; there are: node_"):
        quantised_graph(small, calibration=PICTURES[:1], keep=["other"])
    with pytest.raises(OptionInvalid, match="No convolution is left"):
        quantised_graph(small, calibration=PICTURES[:1], keep=names)


class Odd(nn.Module):
    """Convolutions in groups, a channel of zeros, and an activation that is always zero."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, padding=1, groups=3)
        self.up = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=2)
        self.last = nn.Conv2d(6, 3, 3, padding=1)
        self.dead = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.grouped.weight[0] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last(self.up(self.grouped(x)))
        return torch.tanh(y + self.dead(torch.relu(x - 5.0)))


def test_groups_and_channels_of_zeros_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(5)
    path = tmp_path / "model.onnx"
    write_onnx(GeneratorInterface(Generator(Odd(), 3, 3, 256, "none", {}), TANH_CONVENTION).eval(), path)
    model = quantised_graph(path, calibration=PICTURES[:3])
    assert all(np.isfinite(value).all() for name, value in constants(model).items() if name.endswith("_scale"))
    assert structural_similarity(run(model, PICTURES[:1])[0], run(onnx.load(path), PICTURES[:1])[0]) >= 0.98


@pytest.mark.parametrize(
    "pictures",
    [PICTURES[:0], PICTURES[0], PICTURES.astype(np.float32), PICTURES[:, :128]],
    ids=["none", "no batch", "float32", "another size"],
)
def test_pictures_of_another_kind_are_refused(small: Path, pictures: Pictures) -> None:
    with pytest.raises(OptionInvalid, match=r"expected \(P, 256, 256, 3\) uint8"):
        quantised_graph(small, calibration=pictures)
