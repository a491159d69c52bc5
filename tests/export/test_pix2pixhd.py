"""pix2pixHD's generators, rebuilt and compared with networks written apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import FAMILIES, Choices, NormMode, Weights, find_family
from sketchbridge_export.interface import GeneratorInterface
from tests.export.conftest import BATCH, INSTANCE, INSTANCE_AFFINE, NormFactory, paint, randomise, use_own_statistics
from tests.export.test_families import GRAY_PICTURES, PICTURES, assert_paints_the_same, exported
from tests.export.torch_networks import GlobalGenerator, LocalEnhancer

FAMILY = FAMILIES["pix2pixhd"]


def assert_rebuilt(network: nn.Module, mode: NormMode | None = None) -> None:
    weights = Weights(randomise(network).eval().state_dict())
    assert find_family(weights) is FAMILY
    generator = FAMILY.rebuild(weights, Choices(norm=mode))
    x = torch.rand(1, generator.input_channels, 64, 96) * 2 - 1
    oracle = network if mode == "running" else use_own_statistics(network)
    expected = oracle(x).detach()
    assert expected.std() > 0.1, "a flat oracle proves nothing"
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("downs", [1, 3, 4])
@pytest.mark.parametrize(
    ("norm", "mode"), [(INSTANCE, None), (INSTANCE_AFFINE, None), (BATCH, None), (BATCH, "running")]
)
def test_a_global_generator_is_rebuilt(downs: int, norm: NormFactory, mode: NormMode | None) -> None:
    assert_rebuilt(GlobalGenerator(ngf=2, downs=downs, blocks=2, norm=norm), mode)


@pytest.mark.parametrize(("enhancers", "downs"), [(1, 2), (1, 3), (2, 2), (3, 1)])
@pytest.mark.parametrize(("norm", "mode"), [(INSTANCE, None), (BATCH, "running")])
def test_local_enhancers_are_rebuilt(enhancers: int, downs: int, norm: NormFactory, mode: NormMode | None) -> None:
    network = LocalEnhancer(ngf=2, downs=downs, blocks=1, enhancers=enhancers, local_blocks=2, norm=norm)
    assert_rebuilt(network, mode)


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        pytest.param(GlobalGenerator(ngf=4, downs=4, blocks=3, norm=INSTANCE), 3, id="global"),
        pytest.param(
            LocalEnhancer(ngf=2, downs=3, blocks=2, enhancers=1, local_blocks=3, norm=INSTANCE, channels=(1, 3)),
            1,
            id="local",
        ),
    ],
)
def test_it_paints_what_its_checkpoint_paints(network: nn.Module, channels: int, tmp_path: Path) -> None:
    randomise(network).eval()
    session = exported(network.state_dict(), tmp_path / "model.onnx")
    pictures = GRAY_PICTURES if channels == 1 else PICTURES[2:7]
    if channels == 1:
        # The oracle looks for its channels in its first parameter; here that is the global part's first convolution.
        assert next(iter(network.parameters())).shape[1] == 1
    assert_paints_the_same(session, paint(network, pictures), pictures)


def test_what_was_read_is_told() -> None:
    network = LocalEnhancer(ngf=2, downs=3, blocks=4, enhancers=1, local_blocks=3, norm=INSTANCE, channels=(36, 3))
    weights = Weights(network.state_dict())
    generator = FAMILY.rebuild(weights, Choices())
    assert generator.facts == {
        "halvings": 3,
        "blocks": 4,
        "ngf": 2,
        "input_channels": 36,
        "norm_kind": "instance",
        "enhancers": 1,
        "enhancer_blocks": [3],
    }
    assert "LocalEnhancer with 1 enhancers, 3 halvings, 4 blocks, ngf 2, 36 input channels" in (
        FAMILY.recognise(weights).why
    )
    with pytest.raises(FamilyUnknown, match="input has 36 channels"):
        GeneratorInterface(generator, FAMILY.convention)


def test_with_two_halvings_it_is_the_same_network_as_cyclegans() -> None:
    network = randomise(GlobalGenerator(ngf=2, downs=2, blocks=2, norm=INSTANCE)).eval()
    weights = Weights(network.state_dict())
    family = find_family(weights)
    assert family.name == "junyanz_resnet"
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(family.rebuild(weights, Choices()).module(x), network(x).detach(), atol=1e-4, rtol=0)


def test_its_feature_encoder_is_no_generator() -> None:
    with pytest.raises(FamilyUnknown, match=r"pix2pixhd: .*no residual block follows"):
        find_family(Weights(GlobalGenerator(ngf=2, downs=4, blocks=0, norm=INSTANCE).state_dict()))


def test_sizes_are_multiples_of_what_it_halves() -> None:
    weights = Weights(LocalEnhancer(ngf=1, downs=3, blocks=1, enhancers=1, local_blocks=1, norm=INSTANCE).state_dict())
    assert FAMILY.rebuild(weights, Choices(size=48)).native_size == 48
    with pytest.raises(OptionInvalid, match="multiples of 16 from 32"):
        FAMILY.rebuild(weights, Choices(size=40))


def test_dropout_is_refused() -> None:
    weights = Weights(GlobalGenerator(ngf=1, downs=1, blocks=1, norm=INSTANCE).state_dict())
    with pytest.raises(OptionInvalid, match="no dropout"):
        FAMILY.rebuild(weights, Choices(dropout_seed=0))


def test_a_convolution_without_a_bias_is_refused() -> None:
    state = dict(GlobalGenerator(ngf=1, downs=3, blocks=1, norm=INSTANCE).state_dict())
    del state["model.4.bias"]
    with pytest.raises(FamilyUnknown, match="pix2pixhd: a convolution without a bias"):
        find_family(Weights(state))
