"""ResNet generators of pytorch-CycleGAN-and-pix2pix and CUT, rebuilt and compared with networks written apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import FAMILIES, Choices, NormMode, Weights, find_family
from tests.export.conftest import BATCH, INSTANCE, INSTANCE_AFFINE, NormFactory, paint, randomise, use_own_statistics
from tests.export.test_families import GRAY_PICTURES, PICTURES, assert_paints_the_same, exported
from tests.export.torch_networks import NO_NORM, ResnetGenerator

FAMILY = FAMILIES["junyanz_resnet"]


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(
    ("norm", "kind", "mode"),
    [
        pytest.param(BATCH, "batch", "running", id="batch norm, running statistics"),
        pytest.param(BATCH, "batch", None, id="batch norm, each picture's statistics"),
        pytest.param(INSTANCE, "instance", None, id="instance norm"),
        pytest.param(INSTANCE_AFFINE, "instance, affine", "instance", id="affine instance norm"),
        pytest.param(NO_NORM, "none", None, id="no norm"),
    ],
)
def test_every_numbering_of_the_blocks_is_rebuilt(
    padding: str, dropout: bool, norm: NormFactory, kind: str, mode: NormMode | None
) -> None:
    network = randomise(ResnetGenerator(ngf=4, blocks=2, norm=norm, dropout=dropout, padding=padding)).eval()
    weights = Weights(network.state_dict())
    assert find_family(weights) is FAMILY
    generator = FAMILY.rebuild(weights, Choices(norm=mode))
    assert generator.facts == {
        "blocks": 2,
        "ngf": 4,
        "norm_kind": kind,
        "block_padding": "zeros" if padding == "zero" else "reflect",
        "antialiased": "no",
    }
    assert generator.norm == ("none" if kind == "none" else mode or "instance")
    assert generator.dropout == ("off" if dropout else "none")
    if mode != "running":
        network = use_own_statistics(network)
    x = torch.rand(1, 3, 48, 40) * 2 - 1
    expected = network(x).detach()
    assert expected.std() > 0.1, "a flat oracle proves nothing"
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("network", "mode", "channels"),
    [
        pytest.param(ResnetGenerator(ngf=4, blocks=6, norm=BATCH), "running", (3, 3), id="resnet_6blocks"),
        pytest.param(ResnetGenerator(ngf=4, blocks=9, norm=INSTANCE), None, (3, 3), id="resnet_9blocks of CycleGAN"),
        pytest.param(
            ResnetGenerator(ngf=4, blocks=2, norm=INSTANCE, antialias=True, channels=(1, 1)), None, (1, 1), id="CUT"
        ),
    ],
)
def test_it_paints_what_its_checkpoint_paints(
    network: ResnetGenerator, mode: NormMode | None, channels: tuple[int, int], tmp_path: Path
) -> None:
    randomise(network).eval()
    session = exported(network.state_dict(), tmp_path / "model.onnx", mode)
    pictures = GRAY_PICTURES if channels[0] == 1 else PICTURES[2:7]
    assert_paints_the_same(session, paint(network, pictures), pictures)


def test_the_filters_that_are_used_are_the_stored_ones() -> None:
    network = randomise(ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE, antialias=True)).eval()
    for name, values in network.named_buffers():
        if name.endswith("filt"):
            values.copy_(torch.rand(values.shape) / 4)
    generator = FAMILY.rebuild(Weights(network.state_dict()), Choices())
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=0)
    assert generator.facts["antialiased"] == "yes"


def test_only_one_side_may_be_antialiased() -> None:
    plain = ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE).model
    blurring = ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE, antialias=True).model
    network = ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE)
    network.model = torch.nn.Sequential(*list(plain)[:11], *list(blurring)[13:])  # halves plainly, doubles blurring
    randomise(network).eval()
    generator = find_family(Weights(network.state_dict())).rebuild(Weights(network.state_dict()), Choices())
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=0)


def test_statistics_left_over_from_old_instance_norms_are_ignored() -> None:
    network = randomise(ResnetGenerator(ngf=2, blocks=1, norm=INSTANCE)).eval()
    left_over = {
        key: value
        for key, value in randomise(ResnetGenerator(ngf=2, blocks=1, norm=BATCH)).state_dict().items()
        if key.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    old = dict(network.state_dict()) | left_over
    generator = FAMILY.rebuild(Weights(old), Choices())
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert generator.norm == "instance"
    torch.testing.assert_close(generator.module(x), network(x).detach(), atol=1e-4, rtol=0)
    with pytest.raises(OptionInvalid, match="no running statistics"):
        FAMILY.rebuild(Weights(old), Choices(norm="running"))


def test_its_size_is_free_within_reason() -> None:
    weights = Weights(ResnetGenerator(ngf=2, blocks=1).state_dict())
    assert FAMILY.rebuild(weights, Choices()).native_size == 256
    assert FAMILY.rebuild(weights, Choices(size=512)).native_size == 512
    for size in (254, 8, 4096):
        with pytest.raises(OptionInvalid, match="multiples of 4 from 16 to 1024"):
            FAMILY.rebuild(weights, Choices(size=size))


def test_dropout_is_refused_where_the_numbering_shows_none() -> None:
    with pytest.raises(OptionInvalid, match="no dropout"):
        FAMILY.rebuild(Weights(ResnetGenerator(ngf=2, blocks=1).state_dict()), Choices(dropout_seed=1))


def test_another_last_activation_is_refused() -> None:
    with pytest.raises(OptionInvalid, match="end in 'tanh'"):
        FAMILY.rebuild(Weights(ResnetGenerator(ngf=2, blocks=1).state_dict()), Choices(activation="sigmoid"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.10.conv_block.3.weight": torch.zeros(8, 8, 3, 3)}, r"convolutions at \[1, 3, 5\]"),
        ({"model.4.weight": torch.zeros(4, 2, 5, 5)}, r"`model.4.weight` is \(4, 2, 5, 5\)"),
        ({"model.10.attention.weight": torch.zeros(2, 2)}, "no place"),
        ({"model.1.weight": torch.zeros(0, 3, 7, 7)}, "holds nothing"),
        ({"model.4.bias": torch.zeros(4)}, "some of its convolutions have a bias"),
    ],
)
def test_a_network_that_differs_is_refused_with_the_difference(change: dict[str, torch.Tensor], reason: str) -> None:
    state = dict(ResnetGenerator(ngf=2, blocks=1).state_dict()) | change
    with pytest.raises(FamilyUnknown, match=f"junyanz_resnet(:| because) [^;]*{reason}"):
        find_family(Weights(state))
