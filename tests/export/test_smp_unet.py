"""segmentation_models_pytorch's own networks, rebuilt from their weights alone."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import (
    FAMILIES,
    TANH_RANGE,
    UNIT_RANGE,
    Activation,
    Choices,
    NormMode,
    Weights,
    find_family,
)
from sketchbridge_export.families.family import State
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import paint, randomise, use_own_statistics

FAMILY = FAMILIES["smp_unet"]
NARROW = (16, 12, 8, 8, 4)
ATTENTIVE = {"decoder_attention_type": "scse", "decoder_channels": (32, 32, 16, 16, 16)}  # it divides widths by 16


@pytest.fixture(scope="session")
def smp() -> ModuleType:
    """segmentation_models_pytorch. Nothing here ever asks it for pretrained weights.

    It needs torchvision, which declares two operators of its compiled part while it is imported. Where that part was
    built for another torch than the one installed, they don't exist and the import fails, though ResNets need none of
    them. They are declared here then, without an implementation, and the import is tried again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about their own imports
        try:
            try:
                importlib.import_module("torchvision")
            except RuntimeError as exc:
                if "operator torchvision::" not in str(exc):
                    raise
                for operator in ("nms", "qnms"):
                    torch.library.define(
                        f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    )
                for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                    del sys.modules[name]  # what the failed import left behind
            return importlib.import_module("segmentation_models_pytorch")
        except (ImportError, OSError, RuntimeError) as exc:
            pytest.skip(f"segmentation_models_pytorch can't be imported here: {exc}")


def build(smp: ModuleType, encoder: str = "resnet18", **options: Any) -> nn.Module:
    """A Unet with random weights and statistics, whose results spread over about [-1, 1] before the activation."""
    options = {"decoder_channels": NARROW, "classes": 3, **options}
    network: nn.Module = randomise(smp.Unet(encoder, encoder_weights=None, **options)).eval()
    head = network.get_submodule("segmentation_head.0")
    spread = []
    handle = head.register_forward_hook(lambda _, __, output: spread.append(float(output.std())))
    channels = network.get_parameter("encoder.conv1.weight").shape[1]
    with torch.no_grad():
        network(torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(1)))
        for parameter in head.parameters():
            parameter.mul_(1 / (2 * spread[0]))
    handle.remove()
    return network


def rebuilt(state: State, **choices: Any) -> nn.Module:
    return FAMILY.rebuild(Weights(state), Choices(**choices)).module


@pytest.mark.parametrize(
    ("options", "title"),
    [
        pytest.param({}, "resnet18", id="defaults, narrow"),
        pytest.param({"encoder": "resnet34", "in_channels": 1, "classes": 1}, "resnet34", id="resnet34, gray to gray"),
        pytest.param({"encoder": "resnet50"}, "resnet50", id="resnet50"),
        pytest.param({"encoder": "resnext50_32x4d", "in_channels": 1}, "resnext50_32x4d", id="resnext50"),
        pytest.param({"decoder_channels": (256, 128, 64, 32, 16)}, "resnet18", id="the library's widths"),
        pytest.param({"decoder_use_norm": False}, "resnet18", id="decoder without normalisation"),
        pytest.param(
            {"decoder_use_norm": {"type": "instancenorm", "affine": True}},
            "resnet18",
            id="decoder with instance normalisation",
        ),
        pytest.param(ATTENTIVE, "resnet18", id="scse attention"),
        pytest.param({"encoder_depth": 4, "decoder_channels": NARROW[:4]}, "resnet18", id="depth 4"),
        pytest.param(
            {**ATTENTIVE, "encoder_depth": 3, "decoder_channels": (32, 32, 16)},
            "resnet18",
            id="depth 3 with attention",
        ),
    ],
)
def test_a_rebuilt_network_computes_what_the_librarys_own_does(
    smp: ModuleType, options: dict[str, Any], title: str
) -> None:
    network = build(smp, **options)
    state = network.state_dict()
    generator = find_family(Weights(state)).rebuild(Weights(state), Choices(activation="none"))
    x = torch.randn(2, generator.input_channels, 96, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(x)
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=1e-4)
    assert generator.facts["encoder"] == title
    assert generator.output_channels == expected.shape[1]


@pytest.mark.parametrize(
    ("activation", "output_range"), [("tanh", TANH_RANGE), ("sigmoid", UNIT_RANGE), ("none", TANH_RANGE)]
)
def test_the_last_activation_is_chosen_and_the_output_range_follows(
    smp: ModuleType, activation: Activation, output_range: object
) -> None:
    network = build(smp, activation=None if activation == "none" else activation)
    generator = FAMILY.rebuild(Weights(network.state_dict()), Choices(activation=activation))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=1e-4)
    assert generator.convention is not None
    assert (generator.convention.input_range, generator.convention.output_range) == (TANH_RANGE, output_range)
    assert generator.facts["activation"] == activation


def test_it_ends_in_tanh_and_takes_running_statistics_unless_asked_otherwise(smp: ModuleType) -> None:
    network = build(smp, activation="tanh")
    generator = FAMILY.rebuild(Weights(network.state_dict()), Choices())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=1e-4)
    assert (generator.norm, generator.native_size, generator.dropout) == ("running", 256, "none")


@pytest.mark.parametrize("mode", ["running", "instance"])
def test_an_exported_network_paints_what_its_checkpoint_paints(smp: ModuleType, mode: NormMode, tmp_path: Path) -> None:
    network = build(smp, activation="tanh")
    generator = FAMILY.rebuild(Weights(network.state_dict()), Choices(norm=mode))
    assert generator.convention is not None
    write_onnx(GeneratorInterface(generator, generator.convention).eval(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    pictures = shipped_pictures()[2:7]
    expected = paint(network if mode == "running" else use_own_statistics(network), pictures)
    assert expected.std() > 10, "a flat oracle proves nothing"
    for size in (1, 2, 5):
        painted = np.asarray(session.run(["photo"], {"sketch": pictures[:size]})[0])
        assert np.abs(painted.astype(int) - expected[:size].astype(int)).max() <= 1


@pytest.mark.parametrize(
    "architecture",
    [
        "UnetPlusPlus",
        "MAnet",
        "Linknet",
        "FPN",
        "UPerNet",
        "PSPNet",
        "PAN",
        "DeepLabV3",
        "DeepLabV3Plus",
        "Segformer",
    ],
)
def test_the_librarys_other_networks_are_refused_by_name(smp: ModuleType, architecture: str) -> None:
    state = getattr(smp, architecture)("resnet18", encoder_weights=None).state_dict()
    with pytest.raises(FamilyUnknown, match=f"segmentation_models_pytorch's {architecture}; of its networks only Unet"):
        find_family(Weights(state), name="smp_unet")


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "tu-resnet18", "se_resnet50", "vgg11_bn"])
def test_an_encoder_that_is_no_resnet_of_torchvisions_is_refused_as_such(smp: ModuleType, encoder: str) -> None:
    state = smp.Unet(encoder, encoder_weights=None).state_dict()
    with pytest.raises(FamilyUnknown, match="its encoder isn't one of torchvision's ResNets"):
        find_family(Weights(state), name="smp_unet")


def test_a_classification_head_has_no_place(smp: ModuleType) -> None:
    state = build(smp, aux_params={"classes": 2}).state_dict()
    with pytest.raises(FamilyUnknown, match=r"`classification_head.3.bias` \(2,\) and 1 more have no place"):
        find_family(Weights(state), name="smp_unet")


def test_a_decoder_with_neither_biases_nor_normalisation_is_refused(smp: ModuleType) -> None:
    state = {key: value for key, value in build(smp).state_dict().items() if not re.match(r"decoder\..*conv\d\.1", key)}
    recognition = FAMILY.recognise(Weights(state))
    assert not recognition.matches
    assert "neither a bias nor a normalisation" in recognition.why


def test_a_decoder_that_counts_no_batches_is_taken_for_inplace_abn(smp: ModuleType) -> None:
    state = build(smp).state_dict()
    for key in [key for key in state if key.startswith("decoder.") and key.endswith("num_batches_tracked")]:
        del state[key]
    recognition = FAMILY.recognise(Weights(state))
    assert not recognition.matches
    assert "InPlaceABN" in recognition.why
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    assert FAMILY.recognise(Weights(state)).matches, "weights that lost all counters are as good as any"


def test_names_and_shapes_are_enough_to_recognise_it(smp: ModuleType) -> None:
    state = build(smp, "resnet34", **ATTENTIVE).state_dict()
    shadows = {key: torch.empty(value.shape, device="meta") for key, value in state.items()}
    recognition = FAMILY.recognise(Weights(shadows))
    assert recognition.matches
    assert recognition.why == (
        "U-Net with a resnet34 encoder, decoder widths [32, 32, 16, 16, 16], decoder norm batch, scse attention"
    )


def test_a_tensor_of_another_shape_or_without_values_is_named(smp: ModuleType) -> None:
    state = build(smp).state_dict()
    wrong = {**state, "decoder.blocks.1.conv1.0.weight": torch.zeros(12, 99, 3, 3)}
    assert (
        "`decoder.blocks.1.conv1.0.weight` is (12, 99, 3, 3), expected (any, 144, 3, 3)"
        in FAMILY.recognise(Weights(wrong)).why
    )
    empty = {**state, "encoder.layer1.0.conv1.weight": torch.zeros(0, 64, 3, 3)}
    assert "holds no values" in FAMILY.recognise(Weights(empty)).why


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"size": 200}, "multiples of 32 from 32"),
        ({"size": 32, "norm": "instance"}, "multiples of 32 from 64"),
        ({"dropout_seed": 1}, "no dropout"),
    ],
)
def test_what_the_network_can_not_do_is_refused(smp: ModuleType, choices: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionInvalid, match=complaint):
        rebuilt(build(smp).state_dict(), **choices)


def test_the_smallest_size_paints_with_either_statistics(smp: ModuleType) -> None:
    network = build(smp)
    smallest: tuple[tuple[int, NormMode], ...] = ((32, "running"), (64, "instance"))
    for size, mode in smallest:
        generator = FAMILY.rebuild(Weights(network.state_dict()), Choices(size=size, norm=mode, activation="none"))
        assert generator.native_size == size
        oracle = network if mode == "running" else use_own_statistics(network)
        x = torch.randn(1, 3, size, size)
        torch.testing.assert_close(generator.module(x), oracle(x).detach(), atol=1e-3, rtol=1e-3)
