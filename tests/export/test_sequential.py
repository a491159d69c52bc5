"""Plain nn.Sequential generators: rebuilt where numbers and shapes leave one reading, refused where they don't."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import FAMILIES, TANH_RANGE, UNIT_RANGE, Choices, NormMode, Weights, find_family
from tests.export.conftest import paint, randomise, use_own_statistics
from tests.export.test_families import PICTURES, assert_paints_the_same, exported
from tests.export.torch_networks import (
    EncoderDecoder,
    LatentGenerator,
    PatchDiscriminator,
    Plain,
    decoding_steps,
    encoding_steps,
)

FAMILY = FAMILIES["sequential"]
ENCODER, DECODER = (3, 4, 8, 8), (8, 8, 4, 3)


def filtering_steps() -> list[nn.Module]:
    steps: list[nn.Module] = [nn.Conv2d(1, 4, 9, padding=4), nn.BatchNorm2d(4), nn.ReLU()]
    return [*steps, nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 5, padding=2), nn.Tanh()]


def prelu_steps() -> list[nn.Module]:
    steps: list[nn.Module] = [nn.Conv2d(3, 4, 4, 2, 1), nn.PReLU(4), nn.Conv2d(4, 8, 4, 2, 1), nn.BatchNorm2d(8)]
    steps += [nn.PReLU(), nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.PReLU(), nn.BatchNorm2d(4)]
    steps += [nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()]
    for step in steps:
        if isinstance(step, nn.PReLU):
            nn.init.uniform_(step.weight, 0.05, 0.6)
    return steps


def steps_between(*middle: nn.Module) -> list[nn.Module]:
    """A generator whose two halvings have `middle` between them."""
    steps: list[nn.Module] = [nn.Conv2d(3, 4, 4, 2, 1), *middle, nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2)]
    return [*steps, *decoding_steps(8, 4, 3, norm=False)]


def refusal(network: nn.Module) -> str:
    weights = Weights(network.state_dict())
    with pytest.raises(FamilyUnknown):
        find_family(weights)
    return FAMILY.recognise(weights).why


def bottleneck_steps() -> list[nn.Module]:
    steps = [*encoding_steps(*ENCODER), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return [
        *steps,
        *decoding_steps(*DECODER),
    ]


NETWORKS = {
    "model.N": Plain("model", *encoding_steps(*ENCODER), *decoding_steps(*DECODER)),
    "main.N without norms": Plain("main", *encoding_steps(*ENCODER, norm=False), *decoding_steps(*DECODER, norm=False)),
    "layers.N with dropout": Plain("layers", *encoding_steps(*ENCODER), *decoding_steps(*DECODER, dropout=2)),
    "N alone": nn.Sequential(*encoding_steps(1, 4, 4), *decoding_steps(4, 4, 3)),
    "encoder.N and decoder.N": EncoderDecoder(encoding_steps(*ENCODER), decoding_steps(*DECODER)),
    "a decoder that begins with its ReLU": EncoderDecoder(
        encoding_steps(*ENCODER)[:-1], [nn.ReLU(), *decoding_steps(*DECODER)]
    ),
    "a convolution of stride 1 in the middle": Plain("model", *bottleneck_steps()),
    "kernels that keep the size": Plain("model", *filtering_steps()),
    "PReLU": Plain("model", *prelu_steps()),
    "activations before norms": Plain(
        "model",
        *(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()),
    ),
}


@pytest.mark.parametrize("mode", ["running", "instance"])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_reading_is_rebuilt(name: str, mode: NormMode) -> None:
    network = randomise(NETWORKS[name]).eval()
    weights = Weights(network.state_dict())
    assert find_family(weights) is FAMILY
    has_norm = any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    generator = FAMILY.rebuild(weights, Choices(norm=mode if has_norm else None))
    assert generator.norm == (mode if has_norm else "none")
    assert generator.dropout == ("off" if "dropout" in name else "none")
    oracle = network if mode == "running" else use_own_statistics(network)
    x = torch.rand(1, generator.input_channels, 64, 96) * 2 - 1
    expected = oracle(x).detach()
    assert expected.std() > 0.1, "a flat oracle proves nothing"
    torch.testing.assert_close(generator.module(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["layers.N with dropout", "encoder.N and decoder.N"])
def test_it_paints_what_its_checkpoint_paints(name: str, tmp_path: Path) -> None:
    network = randomise(NETWORKS[name]).eval()
    session = exported(network.state_dict(), tmp_path / "model.onnx")  # with running statistics, its default
    assert_paints_the_same(session, paint(network, PICTURES[2:7]), PICTURES[2:7])


def test_the_last_activation_is_the_callers_word() -> None:
    body = nn.Sequential(*encoding_steps(*ENCODER), *decoding_steps(*DECODER, last=nn.Identity()))
    randomise(body).eval()
    weights = Weights(body.state_dict())
    x = torch.rand(1, 3, 32, 32)
    sigmoid = FAMILY.rebuild(weights, Choices(activation="sigmoid"))
    none = FAMILY.rebuild(weights, Choices(activation="none"))
    default = FAMILY.rebuild(weights, Choices())
    torch.testing.assert_close(sigmoid.module(x), torch.sigmoid(body(x)).detach(), atol=1e-4, rtol=0)
    torch.testing.assert_close(none.module(x), body(x).detach(), atol=1e-4, rtol=0)
    torch.testing.assert_close(default.module(x), torch.tanh(body(x)).detach(), atol=1e-4, rtol=0)
    assert sigmoid.convention is not None
    assert none.convention is not None
    assert default.convention is not None
    assert (sigmoid.convention.input_range, sigmoid.convention.output_range) == (UNIT_RANGE, UNIT_RANGE)
    assert none.convention.output_range == default.convention.output_range == TANH_RANGE
    assert default.facts["activation"] == "tanh"


def test_what_is_taken_for_the_activations_is_told() -> None:
    said = {
        name: FAMILY.rebuild(Weights(NETWORKS[name].state_dict()), Choices()).facts["activations"]
        for name in ("model.N", "kernels that keep the size", "PReLU")
    }
    assert said == {
        "model.N": "taken for LeakyReLU 0.2 up to the last halving and ReLU after it",
        "kernels that keep the size": "taken for ReLU",
        "PReLU": "PReLU throughout",
    }
    assert "taken for LeakyReLU" in FAMILY.recognise(Weights(NETWORKS["model.N"].state_dict())).why


def test_dropout_of_unknown_place_and_rate_is_not_seeded() -> None:
    with pytest.raises(OptionInvalid, match="don't say how much"):
        FAMILY.rebuild(Weights(NETWORKS["layers.N with dropout"].state_dict()), Choices(dropout_seed=1))
    with pytest.raises(OptionInvalid, match="no dropout"):
        FAMILY.rebuild(Weights(NETWORKS["model.N"].state_dict()), Choices(dropout_seed=1))


def test_a_bottleneck_of_one_pixel_has_no_statistics_of_its_own() -> None:
    widths = (3, *[2] * 8)
    weights = Weights(Plain("model", *encoding_steps(*widths), *decoding_steps(*widths[::-1])).state_dict())
    running = FAMILY.rebuild(weights, Choices())
    assert running.module(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    with pytest.raises(OptionInvalid, match="multiples of 256 from 512"):
        FAMILY.rebuild(weights, Choices(norm="instance"))


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_discriminator_is_no_generator(inputs: int) -> None:
    assert "it may halve and never double: it looks like a discriminator" in refusal(
        PatchDiscriminator(inputs=inputs, ndf=4)
    )


def test_a_conditional_discriminator_is_no_generator() -> None:
    assert "takes 6 channels, not 1 or 3" in refusal(PatchDiscriminator(inputs=6, ndf=4))


def test_a_latent_vector_generator_is_no_generator_of_ours() -> None:
    assert "it looks like a generator that paints from a latent vector" in refusal(LatentGenerator(latent=100, ngf=4))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        pytest.param(
            Plain("model", *steps_between(nn.InstanceNorm2d(4), nn.LeakyReLU(0.2))),
            "lie 2 steps without weights",
            id="instance norm and an activation, or an activation and dropout",
        ),
        pytest.param(
            Plain("model", *steps_between(nn.BatchNorm2d(4), nn.ReLU(), nn.ReflectionPad2d(1))),
            "lie 2 steps without weights",
            id="an activation and padding, or dropout",
        ),
        pytest.param(Plain("model", *steps_between()), "there is no activation", id="a ModuleList"),
        pytest.param(Plain("model", *steps_between(nn.BatchNorm2d(4))), "there is no activation", id="norm alone"),
        pytest.param(
            Plain("model", *steps_between(nn.InstanceNorm2d(4, affine=True), nn.ReLU())),
            "may be instance or group normalisation",
            id="affine instance norm",
        ),
        pytest.param(
            Plain("model", *steps_between(nn.GroupNorm(2, 4), nn.ReLU())),
            "may be instance or group normalisation",
            id="group norm",
        ),
        pytest.param(
            Plain("model", nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), nn.ReLU(), nn.Conv2d(4, 3, 7, padding=3)),
            "first convolution is `model.1`",
            id="padding at the beginning",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1, output_padding=1)),
            "transposed 3 x 3 convolution, whose stride can't be told",
            id="3 x 3 transposed",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2)),
            "2 x 2 kernel, whose stride can't be told",
            id="2 x 2",
        ),
        pytest.param(
            Plain("model", *encoding_steps(3, 4, 8), *decoding_steps(8, 3)),
            "it has 3 convolutions of 4 x 4",
            id="paints at half the size",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 3, 1, 1)),
            "ends in one channel, as patch discriminators do",
            id="filters to one channel",
        ),
        pytest.param(
            Plain("model", *encoding_steps(3, 4, 8, 100), *decoding_steps(100, 8, 4, 3)),
            "from 8 to 100 channels in the middle",
            id="latent layer",
        ),
        pytest.param(
            Plain("model", *encoding_steps(3, 4, 4, 8), *decoding_steps(8, 8, 4, 3)),
            "may halve or double",
            id="square weights in a network that is not mirrored",
        ),
        pytest.param(
            EncoderDecoder(encoding_steps(*ENCODER, norm=False), decoding_steps(*DECODER)),
            "may or may not end the encoder",
            id="an encoder that ends in a convolution",
        ),
        pytest.param(
            Plain("model", *encoding_steps(*ENCODER), nn.Flatten(), nn.Linear(8, 8)),
            "fully connected layer",
            id="a classifier",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)),
            "there is a skip connection",
            id="a skip connection",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1)),
            "ends in 12 channels",
            id="a pixel shuffle at the end",
        ),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.BatchNorm2d(3)),
            "follows its last convolution",
            id="a norm at the end",
        ),
        pytest.param(nn.Sequential(nn.Conv2d(3, 3, 3)), "fewer than two", id="one filter"),
        pytest.param(
            Plain("model", nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU(), nn.Conv3d(8, 3, 3)),
            "which no step of a plain generator does",
            id="three dimensions",
        ),
        pytest.param(
            nn.ModuleDict({"front": nn.Sequential(nn.Conv2d(3, 4, 3)), "back": nn.Sequential(nn.Conv2d(4, 3, 3))}),
            "the lists back, front",
            id="lists of unknown order",
        ),
        pytest.param(
            Plain("model", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 3, 3)),
            "`model.0.0.weight` shows a structure",
            id="nested lists",
        ),
    ],
)
def test_two_readings_are_refused_with_the_reason(network: nn.Module, reason: str) -> None:
    assert reason in refusal(network)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.00.weight": torch.zeros(4, 3, 4, 4)}, "plain numbering"),
        ({"model.٣.weight": torch.zeros(4, 3, 4, 4)}, "plain numbering"),
        ({"model.0.weight": torch.zeros(0, 3, 4, 4)}, "holds nothing"),
        ({"model.0.bias": torch.zeros(5)}, "not one value for each of 4 channels"),
        ({"model.0.weight_orig": torch.zeros(4, 3, 4, 4)}, "plain numbering"),
        ({"model.3.running_var": torch.zeros(7)}, r"`model.3.running_var` is \(7,\)"),
        ({"model.3.weight": torch.zeros(7)}, "is for 7 channels, but 8 come to it"),
        ({"model.70.bias": torch.zeros(7)}, "`model.70.weight` is missing"),
    ],
)
def test_damaged_names_and_shapes_are_refused(change: dict[str, torch.Tensor], reason: str) -> None:
    state = dict(NETWORKS["model.N"].state_dict()) | change
    with pytest.raises(FamilyUnknown, match=reason):
        find_family(Weights(state))


def test_keras_tensors_are_left_to_other_families() -> None:
    weights = Weights(NETWORKS["model.N"].state_dict(), framework="keras")
    assert FAMILY.recognise(weights).why == "its tensors are laid out as keras has them"
