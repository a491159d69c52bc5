"""What is no generator is told so by name. Names and shapes were written down by hand, after well-known networks'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sketchbridge_export.errors import FamilyUnknown
from sketchbridge_export.families import FAMILIES, Weights, find_family
from sketchbridge_export.lookalikes import looks_like
from tests.export.conftest import INSTANCE, Pix2PixUNet, RenderXUNet


def weights(**shapes: tuple[int, ...]) -> Weights:
    return Weights({name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()})


def named(*names: str) -> Weights:
    return Weights({name: torch.zeros(2, 2, 1, 1) for name in names})


class Held(nn.Module):
    """A Sequential under a name, as most code has it."""

    def __init__(self, name: str, *steps: nn.Module) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*steps))


PATCH_DISCRIMINATOR = Held(
    "model",
    nn.Conv2d(6, 8, 4, 2, 1),
    nn.LeakyReLU(0.2),
    nn.Conv2d(8, 16, 4, 2, 1, bias=False),
    nn.BatchNorm2d(16),
    nn.LeakyReLU(0.2),
    nn.Conv2d(16, 1, 4, 1, 1),
)
DCGAN = Held(
    "main",
    nn.ConvTranspose2d(100, 64, 4, 1, 0, bias=False),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False),
)
RESNET = weights(
    conv1__weight=(64, 3, 7, 7),
    bn1__weight=(64,),
    layer1__0__conv1__weight=(64, 64, 3, 3),
    layer1__0__conv2__weight=(64, 64, 3, 3),
    fc__weight=(1000, 512),
    fc__bias=(1000,),
)
VGG = weights(
    features__0__weight=(64, 3, 3, 3),
    features__2__weight=(64, 64, 3, 3),
    classifier__0__weight=(4096, 25088),
    classifier__6__weight=(1000, 4096),
)


@pytest.mark.parametrize(
    ("stranger", "sentence"),
    [
        (Weights(PATCH_DISCRIMINATOR.state_dict()), "PatchGAN discriminator (`model.5.weight` gives one channel)"),
        (named("scale0_layer0.0.weight", "scale1_layer0.0.weight"), "multi-scale discriminator"),
        (named("layer0.0.weight", "layer2.0.weight"), "multi-scale discriminator"),
        (named("discriminator.conv.weight"), "a discriminator"),
        (Weights(DCGAN.state_dict()), "paints from random numbers (`main.0.weight` takes 100 values)"),
        (
            weights(l1__weight=(8192, 100), l1__bias=(8192,), conv__weight=(3, 64, 3, 3)),
            "paints from random numbers (`l1.weight` takes 100 values)",
        ),
        (named("mapping.fc0.weight", "synthesis.b4.conv1.weight"), "a StyleGAN generator"),
        (named("style.1.weight", "convs.0.conv.modulation.weight"), "a StyleGAN generator"),
        (RESNET, "a ResNet classifier (`fc.weight` gives 1000 numbers)"),
        (VGG, "a VGG or AlexNet classifier"),
        (named("cls_token", "patch_embed.proj.weight"), "a vision transformer"),
        (named("model.diffusion_model.input_blocks.0.0.weight"), "the U-Net of a diffusion model"),
        (named("time_embedding.linear_1.weight", "conv_in.weight"), "the U-Net of a diffusion model"),
        (named("controlnet_cond_embedding.conv_in.weight", "time_embedding.linear_1.weight"), "a ControlNet"),
        (named("lora_unet_down_blocks_0.lora_down.weight"), "a LoRA"),
        (named("encoder.conv_in.weight", "quant_conv.weight"), "a variational autoencoder"),
        (named("RRDB_trunk.0.RDB1.conv1.weight", "upconv1.weight"), "a super-resolution network"),
        (named("body.0.rdb1.conv1.weight", "conv_up1.weight"), "a super-resolution network"),
        (named("model.22.cv2.0.0.conv.weight", "model.22.dfl.conv.weight"), "an object detector"),
        (named("model.embed_tokens.weight", "lm_head.weight"), "a language model"),
        (named("inc.double_conv.0.weight", "up1.up.weight", "outc.conv.weight"), "a U-Net that labels pixels"),
        (named("G_A.model.1.weight", "G_B.model.1.weight"), "both directions in one"),
    ],
)
def test_a_well_known_network_is_told_by_its_name(stranger: Weights, sentence: str) -> None:
    found = looks_like(stranger)
    assert found is not None
    assert found.startswith("It looks like ")
    assert found.endswith(".")
    assert sentence in found
    assert "generator" in found or "export it to ONNX" in found


@pytest.mark.parametrize(
    "weights_",
    [
        Weights(Pix2PixUNet(downs=5, ngf=4).state_dict()),
        Weights(Pix2PixUNet(downs=8, ngf=32, norm=INSTANCE).state_dict()),
        Weights(RenderXUNet((4, 6), 4).state_dict()),
        named("a.weight", "b.weight"),
        Weights({}),
    ],
)
def test_generators_and_what_nobody_knows_look_like_nothing_else(weights_: Weights) -> None:
    assert looks_like(weights_) is None


def test_a_sentence_reads_as_one() -> None:
    assert looks_like(named("time_embedding.linear_1.weight")) == (
        "It looks like the U-Net of a diffusion model (`time_embedding.linear_1.weight`), which paints in many steps: "
        "what is needed is a generator that turns a sketch into a photo at once."
    )


def test_the_refusal_says_what_it_looks_like_in_place_of_the_families_reasons() -> None:
    with pytest.raises(FamilyUnknown, match=r"no known generator has\. It looks like a ResNet classifier ") as caught:
        find_family(RESNET)
    assert "junyanz_unet:" not in str(caught.value)


@pytest.mark.parametrize("stranger", [PATCH_DISCRIMINATOR, DCGAN])
def test_no_family_takes_a_discriminator_or_a_gan_of_random_numbers(stranger: nn.Module) -> None:
    answers = [family.recognise(Weights(stranger.state_dict())) for family in FAMILIES.values()]
    assert not any(answer.matches for answer in answers), answers
