"""Every family, exported and compared with a network that was written without looking at the exporter's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import FAMILIES, Choices, NormMode, Weights, find_family
from sketchbridge_export.families.family import State
from sketchbridge_export.families.layers import fold_norms
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import (
    BATCH,
    INSTANCE,
    INSTANCE_AFFINE,
    NormFactory,
    Pictures,
    Pix2PixUNet,
    RenderXUNet,
    paint,
    randomise,
    use_own_statistics,
)


def exported(state: State, path: Path, norm: NormMode | None = None) -> onnxruntime.InferenceSession:
    family = find_family(Weights(state))
    write_onnx(GeneratorInterface(family.rebuild(Weights(state), Choices(norm=norm)), family.convention).eval(), path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, pictures: Pictures) -> Pictures:
    return np.asarray(session.run(["photo"], {"sketch": pictures})[0])


def assert_paints_the_same(session: onnxruntime.InferenceSession, expected: Pictures, pictures: Pictures) -> None:
    assert expected.std() > 10, "a flat oracle proves nothing"
    alone = np.concatenate([run(session, pictures[i : i + 1]) for i in range(len(pictures))])
    assert alone.dtype == np.uint8
    assert np.abs(alone.astype(int) - expected.astype(int)).max() <= 1
    for size in (2, 5):  # a picture must not depend on its company
        together = run(session, pictures[:size])
        assert np.abs(together.astype(int) - alone[:size].astype(int)).max() <= 1


PICTURES = shipped_pictures()
GRAY_PICTURES = np.repeat(PICTURES[:5, :, :, :1], 3, axis=3)


@pytest.mark.parametrize(
    ("downs", "norm", "channels", "mode"),
    [
        pytest.param(8, BATCH, (3, 3), "running", id="unet_256 batch norm, running statistics"),
        pytest.param(8, BATCH, (3, 3), None, id="unet_256 batch norm, each picture's statistics"),
        pytest.param(7, BATCH, (1, 3), "running", id="unet_128 gray to colour"),
        pytest.param(8, INSTANCE, (1, 1), None, id="unet_256 instance norm, gray to gray"),
        pytest.param(7, INSTANCE_AFFINE, (3, 1), "instance", id="unet_128 affine instance norm, colour to gray"),
    ],
)
def test_a_pix2pix_unet_paints_what_its_checkpoint_paints(
    downs: int, norm: NormFactory, channels: tuple[int, int], mode: NormMode | None, tmp_path: Path
) -> None:
    network = randomise(Pix2PixUNet(downs=downs, ngf=4, norm=norm, channels=channels)).eval()
    session = exported(network.state_dict(), tmp_path / "model.onnx", mode)
    if mode != "running":
        network = use_own_statistics(network)
    pictures = GRAY_PICTURES if channels[0] == 1 else PICTURES[2:7]
    assert_paints_the_same(session, paint(network, pictures, size=2**downs), pictures)


def test_a_renderx_unet_paints_what_its_checkpoint_paints_though_it_paints_254_pixels(tmp_path: Path) -> None:
    network = randomise(RenderXUNet((4, 6, 8, 10), 12)).eval()
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 254, 254)
    session = exported(network.state_dict(), tmp_path / "model.onnx")
    assert_paints_the_same(session, paint(network, PICTURES[2:7]), PICTURES[2:7])


def test_a_renderx_unet_that_leaves_its_bottleneck_no_pixel_is_refused() -> None:
    assert find_family(Weights(RenderXUNet((2,) * 6, 2).state_dict())).name == "renderx_unet"
    with pytest.raises(FamilyUnknown, match="it has 7 pooled stages; 256 pixels allow 6"):
        find_family(Weights(RenderXUNet((2,) * 7, 2).state_dict()))


def test_the_two_norm_modes_paint_different_pictures(small_unet: nn.Module) -> None:
    family = FAMILIES["junyanz_unet"]
    x = torch.linspace(-1, 1, 3 * 256 * 256).reshape(1, 3, 256, 256)
    running = family.rebuild(Weights(small_unet.state_dict()), Choices(norm="running")).module(x)
    instance = family.rebuild(Weights(small_unet.state_dict()), Choices(norm="instance")).module(x)
    assert (running - instance).abs().max() > 0.1


def test_statistics_left_over_from_old_instance_norms_are_ignored(small_unet: nn.Module) -> None:
    network = randomise(Pix2PixUNet(downs=8, ngf=4, norm=INSTANCE)).eval()
    old = dict(network.state_dict())
    for key in small_unet.state_dict():
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            old[key] = small_unet.state_dict()[key]
    family = find_family(Weights(old))
    x = torch.randn(1, 3, 256, 256)
    generator = family.rebuild(Weights(old), Choices())
    assert generator.norm == "instance"
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=0)
    with pytest.raises(OptionInvalid, match="no running statistics"):
        family.rebuild(Weights(old), Choices(norm="running"))


def test_a_network_without_normalisation_is_told_from_one_with_instance_norm() -> None:
    network = randomise(Pix2PixUNet(downs=5, ngf=4, norm=INSTANCE))
    state = dict(network.state_dict())
    inner_biases = [key for key in state if key.endswith("bias") and key != "model.model.3.bias"]
    for key in inner_biases:
        del state[key]
    generator = FAMILIES["junyanz_unet"].rebuild(Weights(state), Choices())
    assert (generator.norm, generator.facts["norm_kind"], generator.native_size) == ("none", "none", 32)
    with pytest.raises(OptionInvalid, match="without normalisation"):
        FAMILIES["junyanz_unet"].rebuild(Weights(state), Choices(norm="running"))


def test_depth_width_and_channels_are_read_from_the_weights() -> None:
    state = Pix2PixUNet(downs=9, ngf=2, channels=(1, 3)).state_dict()
    generator = FAMILIES["junyanz_unet"].rebuild(Weights(state), Choices())
    assert (generator.native_size, generator.input_channels, generator.output_channels) == (512, 1, 3)
    assert generator.facts == {
        "num_downs": 9,
        "ngf": 2,
        "widths": [2, 4, 8, 16, 16, 16, 16, 16, 16],
        "norm_kind": "batch",
    }


def test_folding_norms_changes_no_pixel_and_leaves_the_original_alone(small_unet: nn.Module) -> None:
    module = FAMILIES["junyanz_unet"].rebuild(Weights(small_unet.state_dict()), Choices(norm="running")).module
    folded = fold_norms(module)
    x = torch.randn(1, 3, 256, 256)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    torch.testing.assert_close(folded(x).detach(), module(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_family_claims_a_strangers_weights(name: str) -> None:
    recognition = FAMILIES[name].recognise(Weights({"layer1.0.conv1.weight": torch.zeros(64, 3, 7, 7)}))
    assert not recognition.matches
    assert "missing" in recognition.why


def test_one_tensor_too_many_is_named() -> None:
    state = dict(Pix2PixUNet(downs=5, ngf=2).state_dict()) | {"attention.weight": torch.zeros(2, 2)}
    with pytest.raises(FamilyUnknown, match=r"`attention.weight` \(2, 2\) and 0 more have no place"):
        find_family(Weights(state))


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    state = dict(Pix2PixUNet(downs=5, ngf=2).state_dict())
    state["model.model.0.weight"] = torch.zeros(2, 3, 3, 3)
    with pytest.raises(FamilyUnknown, match=r"`model.model.0.weight` is \(2, 3, 3, 3\), expected \(any, any, 4, 4\)"):
        find_family(Weights(state))


def test_a_family_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(OptionInvalid, match="junyanz_unet, junyanz_resnet"):
        find_family(Weights({}), name="dcgan")


def test_a_family_that_was_asked_for_gives_its_own_reason_alone() -> None:
    state = Pix2PixUNet(downs=5, ngf=2).state_dict()
    with pytest.raises(FamilyUnknown, match=r"^The checkpoint is no renderx_unet: .* Leave --family out") as caught:
        find_family(Weights(state), name="renderx_unet")
    assert "junyanz" not in str(caught.value)


def test_reasons_that_several_families_give_are_left_out() -> None:
    with pytest.raises(FamilyUnknown) as caught:
        find_family(Weights({"nobody.knows": torch.zeros(3, 3, 5, 5)}))
    assert "junyanz_unet: `model.model.0.weight` is missing" in str(caught.value)
    assert "keras_tutorial_unet" not in str(caught.value)  # it and two others say that this is no Keras file
