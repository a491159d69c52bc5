"""The U-Nets of Aladdin Persson and eriklindernoren, and what holds for the checkpoints of all torch families."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import FAMILIES, Choices, NormMode, Weights, find_family
from sketchbridge_export.families.layers import fold_norms
from sketchbridge_export.interface import GeneratorInterface
from tests.export.conftest import (
    BATCH,
    INSTANCE,
    INSTANCE_AFFINE,
    Pix2PixUNet,
    RenderXUNet,
    paint,
    randomise,
    use_own_statistics,
)
from tests.export.test_families import GRAY_PICTURES, PICTURES, assert_paints_the_same, exported
from tests.export.test_sequential import NETWORKS as PLAIN_NETWORKS
from tests.export.torch_networks import (
    AladdinGenerator,
    GeneratorUNet,
    GlobalGenerator,
    LatentGenerator,
    LocalEnhancer,
    PatchDiscriminator,
    ResnetGenerator,
)

# Each is recognised by the family named first, and by no other.
NETWORKS: list[tuple[str, nn.Module]] = [
    ("junyanz_unet", Pix2PixUNet(downs=8, ngf=2)),
    ("junyanz_unet", Pix2PixUNet(downs=7, ngf=2, norm=INSTANCE, channels=(1, 3))),
    ("junyanz_unet", Pix2PixUNet(downs=5, ngf=2, norm=INSTANCE_AFFINE)),
    ("junyanz_resnet", ResnetGenerator(ngf=2, blocks=9)),
    ("junyanz_resnet", ResnetGenerator(ngf=2, blocks=6, norm=INSTANCE, dropout=True)),
    ("junyanz_resnet", ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE, padding="zero")),
    ("junyanz_resnet", ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE, antialias=True)),
    ("junyanz_resnet", GlobalGenerator(ngf=2, downs=2, blocks=1, norm=BATCH)),
    ("pix2pixhd", GlobalGenerator(ngf=2, downs=1, blocks=1, norm=BATCH)),
    ("pix2pixhd", GlobalGenerator(ngf=2, downs=3, blocks=9, norm=INSTANCE)),
    ("pix2pixhd", GlobalGenerator(ngf=2, downs=4, blocks=9, norm=INSTANCE, channels=(36, 3))),
    ("pix2pixhd", LocalEnhancer(ngf=1, downs=2, blocks=1, enhancers=1, local_blocks=3, norm=INSTANCE)),
    ("pix2pixhd", LocalEnhancer(ngf=1, downs=3, blocks=1, enhancers=2, local_blocks=1, norm=BATCH)),
    ("aladdin_unet", AladdinGenerator(features=2)),
    ("eriklindernoren_unet", GeneratorUNet(width=2)),
    ("renderx_unet", RenderXUNet((2, 3, 4), 5)),
    *(("sequential", network) for network in PLAIN_NETWORKS.values()),
]


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_exactly_one_family_explains_a_checkpoint(name: str, network: nn.Module) -> None:
    weights = Weights(network.state_dict())
    assert [family for family, record in FAMILIES.items() if record.recognise(weights).matches] == [name]


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_a_tensor_more_or_less_is_never_overlooked(name: str, network: nn.Module) -> None:
    state = network.state_dict()
    with pytest.raises(FamilyUnknown):
        find_family(Weights(state | {"attention.gamma": torch.zeros(1)}))
    first = next(iter(state))
    with pytest.raises(FamilyUnknown):
        find_family(Weights({key: value for key, value in state.items() if key != first}))


@pytest.mark.parametrize(
    "network",
    [
        PatchDiscriminator(inputs=3, ndf=2),
        PatchDiscriminator(inputs=6, ndf=2),
        LatentGenerator(latent=64, ngf=2),
        GlobalGenerator(ngf=2, downs=4, blocks=0, norm=INSTANCE),
        ResnetGenerator(ngf=2, blocks=0),
    ],
)
def test_what_is_no_picture_to_picture_generator_is_explained_by_none(network: nn.Module) -> None:
    weights = Weights(network.state_dict())
    assert [family for family, record in FAMILIES.items() if record.recognise(weights).matches] == []


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_folding_norms_changes_no_pixel(name: str, network: nn.Module) -> None:
    weights = Weights(randomise(network).state_dict())
    module = FAMILIES[name].rebuild(weights, Choices()).module
    generator = FAMILIES[name].rebuild(weights, Choices())
    side = generator.native_size if "unet" in name else 64
    x = torch.rand(1, generator.input_channels, side, side) * 2 - 1
    torch.testing.assert_close(fold_norms(module)(x).detach(), module(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "network"), [NETWORKS[index] for index in (0, 3, 6, 8, 11, 13, 14, 15, 16)])
def test_a_simplifier_finds_nothing_to_do_in_the_graph(name: str, network: nn.Module, tmp_path: Path) -> None:
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim is not installed: pip install onnxslim")
    weights = Weights(randomise(network).state_dict())
    generator = FAMILIES[name].rebuild(weights, Choices())
    write_onnx(GeneratorInterface(generator, FAMILIES[name].convention).eval(), tmp_path / "model.onnx")
    written = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    simplified = [node.op_type for node in onnxslim.slim(onnx.load(tmp_path / "model.onnx")).graph.node]
    assert Counter(written) - Counter(simplified) == {}


@pytest.mark.parametrize("mode", ["running", "instance", None])
def test_aladdins_unet_is_rebuilt_and_normalises_with_running_statistics_by_default(mode: NormMode | None) -> None:
    network = randomise(AladdinGenerator(features=4, channels=(1, 3))).eval()
    weights = Weights(network.state_dict())
    generator = find_family(weights).rebuild(weights, Choices(norm=mode))
    oracle = use_own_statistics(network) if mode == "instance" else network
    x = torch.rand(1, 1, 256, 256) * 2 - 1
    expected = oracle(x).detach()
    assert expected.std() > 0.1, "a flat oracle proves nothing"
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=0)
    assert (generator.norm, generator.dropout) == (mode or "running", "off")


def test_eriklindernorens_unet_is_rebuilt() -> None:
    network = randomise(GeneratorUNet(width=4, channels=(3, 1))).eval()
    weights = Weights(network.state_dict())
    generator = find_family(weights).rebuild(weights, Choices())
    x = torch.rand(2, 3, 256, 256) * 2 - 1
    expected = network(x).detach()
    assert expected.std() > 0.1, "a flat oracle proves nothing"
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=0)
    assert (generator.norm, generator.dropout, generator.output_channels) == ("instance", "off", 1)
    with pytest.raises(OptionInvalid, match="no running statistics"):
        find_family(weights).rebuild(weights, Choices(norm="running"))


@pytest.mark.parametrize(
    ("network", "gray"),
    [
        pytest.param(AladdinGenerator(features=4), False, id="Aladdin"),
        pytest.param(GeneratorUNet(width=4, channels=(1, 3)), True, id="eriklindernoren"),
    ],
)
def test_a_unet_paints_what_its_checkpoint_paints(network: nn.Module, gray: bool, tmp_path: Path) -> None:
    randomise(network).eval()
    session = exported(network.state_dict(), tmp_path / "model.onnx")
    pictures = GRAY_PICTURES if gray else PICTURES[2:7]
    assert_paints_the_same(session, paint(network, pictures), pictures)


@pytest.mark.parametrize("network", [AladdinGenerator(features=2), GeneratorUNet(width=2)])
def test_a_unet_of_eight_levels_takes_multiples_of_256(network: nn.Module) -> None:
    weights = Weights(network.state_dict())
    family = find_family(weights)
    assert family.rebuild(weights, Choices(size=512)).native_size == 512
    with pytest.raises(OptionInvalid, match="multiples of 256 from 256"):
        family.rebuild(weights, Choices(size=128))


def test_other_norms_than_the_authors_are_refused() -> None:
    state = dict(GeneratorUNet(width=2).state_dict())
    for level in range(2, 8):
        state[f"down{level}.model.1.weight"] = torch.ones(len(state[f"down{level}.model.0.weight"]))
    with pytest.raises(FamilyUnknown, match="eriklindernoren_unet: its normalisations differ"):
        find_family(Weights(state))
    state = {key: value for key, value in AladdinGenerator(features=2).state_dict().items() if "running" not in key}
    with pytest.raises(FamilyUnknown, match="aladdin_unet: its normalisation is of kind 'instance, affine'"):
        find_family(Weights(state))


def test_every_network_of_the_table_is_of_a_family_that_says_what_it_assumes() -> None:
    for name in {name for name, _ in NETWORKS}:
        record = FAMILIES[name]
        assert all((record.recognised_by, record.exact, record.assumed, record.norm, record.dropout, record.source))
