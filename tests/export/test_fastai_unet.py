"""fastai's DynamicUnet, rebuilt from its weights alone and compared with an independent definition of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import (
    FAMILIES,
    IMAGENET_RANGE,
    UNIT_RANGE,
    Choices,
    Generator,
    NormMode,
    Weights,
    find_family,
)
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import Pictures, randomise, use_own_statistics
from tests.export.fastai_networks import DynamicUnet, Kind

FAMILY = FAMILIES["fastai_unet"]
MEANS, DEVIATIONS = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
RESNET18 = Kind(blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), stem=64)


def build(kind: Kind) -> nn.Module:
    """The network with random weights and statistics, whose results have a deviation of about 1."""
    network = randomise(DynamicUnet(kind))
    picture = torch.randn(2, kind.channels[0], 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Spectral normalisation learns its vectors from passes in training mode, once each.
        network.train()
        for _ in range(20 if kind.norm == "spectral" or kind.self_attention else 0):
            network(picture)
        network.eval()
        if kind.norm in (None, "batch"):
            last = network.get_submodule(f"layers.{12 if kind.last_cross else 10}")
            spread = float(network(picture).std())
            for parameter in last.parameters():
                parameter.mul_(1 / spread)
    return network


def rebuild(network: nn.Module, **choices: Any) -> Generator:
    weights = Weights(network.state_dict())
    return find_family(weights).rebuild(weights, Choices(**choices))


@pytest.mark.parametrize(
    ("kind", "norm_kind"),
    [
        pytest.param(Kind(), "none", id="fastai's defaults"),
        pytest.param(RESNET18, "none", id="resnet18"),
        pytest.param(Kind(blocks=(2, 1, 3, 1)), "none", id="other block counts"),
        pytest.param(Kind(bottleneck=True, widths=(16, 24, 32, 40)), "none", id="bottlenecks"),
        pytest.param(Kind(channels=(1, 3)), "none", id="gray to colour"),
        pytest.param(Kind(channels=(3, 1), last_cross=False), "none", id="without last_cross"),
        pytest.param(Kind(norm="batch"), "batch", id="batch norm"),
        pytest.param(Kind(norm="batch", relu_first=True), "batch", id="batch norm after ReLU"),
        pytest.param(Kind(norm="instance"), "instance, affine", id="instance norm"),
        pytest.param(Kind(norm="instance", relu_first=True), "instance, affine", id="instance norm after ReLU"),
        pytest.param(Kind(norm="weight"), "none", id="weight norm"),
        pytest.param(Kind(norm="weight", modern=True), "none", id="weight norm as a parametrization"),
        pytest.param(Kind(norm="spectral"), "none", id="spectral norm"),
        pytest.param(Kind(norm="spectral", modern=True), "none", id="spectral norm as a parametrization"),
        pytest.param(Kind(self_attention=True), "none", id="self attention"),
        pytest.param(Kind(self_attention=True, norm="batch"), "batch", id="self attention after batch norm"),
        pytest.param(Kind(self_attention=True, norm="weight"), "none", id="self attention, weight norm"),
    ],
)
def test_a_rebuilt_network_computes_what_fastais_does(kind: Kind, norm_kind: str) -> None:
    network = build(kind)
    generator = rebuild(network)
    assert generator.facts["decoder_norm"] == norm_kind
    assert (generator.input_channels, generator.output_channels) == kind.channels
    for height, width in ((96, 160), (100, 132), (65, 47)):
        x = torch.randn(2, kind.channels[0], height, width, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = network(x)
        assert expected.shape == (2, kind.channels[1], height, width)
        assert expected.std() > 0.01
        torch.testing.assert_close(
            generator.module(x) / expected.std(), expected / expected.std(), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("kind", [Kind(), Kind(norm="batch"), Kind(norm="batch", relu_first=True)])
def test_with_each_pictures_own_statistics_it_computes_what_training_mode_does(kind: Kind) -> None:
    network = build(kind)
    oracle = use_own_statistics(network)
    module = rebuild(network, norm="instance").module
    x = torch.randn(2, 3, 96, 96)
    alone = torch.cat([oracle(picture[None]) for picture in x]).detach()
    assert (alone - network(x)).abs().max() > 0.1
    torch.testing.assert_close(module(x), alone, atol=1e-3, rtol=1e-3)


def paint(network: nn.Module, pictures: Pictures) -> Pictures:
    """Each picture alone, normalised as fastai does: (P, 256, 256, 3) uint8 RGB -> the same."""
    painted = []
    for picture in pictures:
        x = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - MEANS) / DEVIATIONS
        with torch.no_grad():
            y = network(x[None])[0] * DEVIATIONS + MEANS
        painted.append((y * 255).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8))
    return np.stack(painted)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param(Kind(blocks=(2, 2, 2, 2)), "running", id="fastai's defaults"),
        pytest.param(Kind(norm="weight", self_attention=True), "running", id="weight norm and self attention"),
        pytest.param(Kind(norm="batch", relu_first=True), "instance", id="each picture's statistics"),
    ],
)
def test_an_exported_network_paints_what_its_checkpoint_paints(kind: Kind, mode: NormMode, tmp_path: Path) -> None:
    network = build(kind)
    generator = rebuild(network, norm=mode)
    assert generator.convention is not None
    write_onnx(GeneratorInterface(generator, generator.convention).eval(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    pictures = shipped_pictures()[2:7]
    expected = paint(network if mode == "running" else use_own_statistics(network), pictures)
    assert expected.std() > 10, "a flat oracle proves nothing"
    for size in (1, 2, 5):
        painted = np.asarray(session.run(["photo"], {"sketch": pictures[:size]})[0])
        assert np.abs(painted.astype(int) - expected[:size].astype(int)).max() <= 1


def test_a_size_that_does_not_halve_evenly_exports_too(tmp_path: Path) -> None:
    network = build(Kind())
    generator = rebuild(network, size=200)
    assert generator.convention is not None
    write_onnx(GeneratorInterface(generator, generator.convention).eval(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    picture = shipped_pictures()[2:3]
    x = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255
    x = functional.interpolate((x - MEANS) / DEVIATIONS, size=(200, 200), mode="bilinear", align_corners=False)
    with torch.no_grad():
        y = functional.interpolate(network(x), size=(256, 256), mode="bilinear", align_corners=False)
    expected = ((y * DEVIATIONS + MEANS) * 255).round().clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(np.asarray(session.run(["photo"], {"sketch": picture})[0]).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("channels", "input_range", "output_range"),
    [((3, 3), IMAGENET_RANGE, IMAGENET_RANGE), ((3, 1), IMAGENET_RANGE, UNIT_RANGE), ((1, 3), UNIT_RANGE, UNIT_RANGE)],
)
def test_values_are_normalised_where_fastai_does(
    channels: tuple[int, int], input_range: object, output_range: object
) -> None:
    convention = rebuild(build(Kind(channels=channels))).convention
    assert convention is not None
    assert (convention.input_range, convention.output_range) == (input_range, output_range)


def test_sigmoid_is_a_y_range_from_0_to_1_and_tanh_is_refused() -> None:
    network = build(Kind())
    generator = rebuild(network, activation="sigmoid")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(generator.module(x), torch.sigmoid(network(x)).detach(), atol=1e-4, rtol=1e-4)
    assert generator.convention is not None
    assert generator.convention.output_range == UNIT_RANGE
    with pytest.raises(OptionInvalid, match=r"y_range=\(0, 1\)"):
        rebuild(network, activation="tanh")


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"size": 31}, "from 32"),
        ({"size": 40, "norm": "instance"}, "from 64"),
        ({"dropout_seed": 1}, "no dropout"),
    ],
)
def test_what_the_network_can_not_do_is_refused(choices: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionInvalid, match=complaint):
        rebuild(build(Kind()), **choices)


def test_names_and_shapes_are_enough_to_recognise_it() -> None:
    state = build(replace(RESNET18, norm="weight", self_attention=True)).state_dict()
    shadows = {key: torch.empty(value.shape, device="meta") for key, value in state.items()}
    recognition = FAMILY.recognise(Weights(shadows))
    assert recognition.matches
    assert recognition.why == "DynamicUnet around resnet18, decoder widths [512, 384, 256, 96], norm none"


def test_fastai_1_is_refused_with_the_reason() -> None:
    state = {
        key.replace(".shuf.0.", ".shuf.conv.").replace("layers.8.0.", "layers.8.conv."): value
        for key, value in build(Kind()).state_dict().items()
    }
    with pytest.raises(FamilyUnknown, match=r"looks like fastai 1's DynamicUnet .* save it as TorchScript or ONNX"):
        find_family(Weights(state), name="fastai_unet")


def test_another_encoder_is_refused_as_such() -> None:
    state = {
        key.replace("layers.0.4.0.conv1.", "layers.0.4.0.convpath.0.0."): value
        for key, value in build(Kind()).state_dict().items()
    }
    with pytest.raises(FamilyUnknown, match="its encoder isn't one of torchvision's ResNets"):
        find_family(Weights(state), name="fastai_unet")


def with_parts(**changed: torch.Tensor) -> Weights:
    """A network with weight norm and the given parts of the first middle convolution's weight."""
    state = build(Kind(norm="weight")).state_dict()
    return Weights({**state, **{f"layers.3.0.0.{name}": value for name, value in changed.items()}})


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (with_parts(weight_g=torch.zeros(3)), r"`layers.3.0.0.weight_g` is \(3,\), expected \(48, 1, 1, 1\)"),
        (with_parts(weight=torch.zeros(48, 24, 3, 3)), "can't be one of the parts of `layers.3.0.0.weight`"),
        (with_parts(weight_v=torch.zeros(48)), "can't be one of the parts of `layers.3.0.0.weight`"),
        (with_parts(weight_v=torch.zeros(48, 0, 3, 3)), "holds no values"),
        (with_parts(bias=torch.zeros(47)), r"`layers.3.0.0.bias` is \(47,\), expected \(48\)"),
    ],
)
def test_parts_that_do_not_make_a_weight_are_named(weights: Weights, complaint: str) -> None:
    with pytest.raises(FamilyUnknown, match=complaint):
        find_family(weights, name="fastai_unet")


def test_one_tensor_too_many_is_named() -> None:
    state = {**build(Kind()).state_dict(), "layers.13.weight": torch.zeros(2, 2)}
    with pytest.raises(FamilyUnknown, match=r"`layers.13.weight` \(2, 2\) and 0 more have no place"):
        find_family(Weights(state), name="fastai_unet")
