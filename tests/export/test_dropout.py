"""Dropout with a seed: the masks lie where the reference drops, and are the same for every picture."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.families import Choices, Generator, Weights, find_family
from sketchbridge_export.families.layers import FixedDropout
from sketchbridge_export.interface import GeneratorInterface
from tests.export.conftest import Pix2PixUNet, paint, randomise
from tests.export.test_families import PICTURES, assert_paints_the_same
from tests.export.torch_networks import AladdinGenerator, GeneratorUNet, ResnetGenerator

NETWORKS = {
    "unet_256": Pix2PixUNet(downs=8, ngf=4),
    "unet_128": Pix2PixUNet(downs=7, ngf=2),
    "the smallest U-Net, which has no level to drop in": Pix2PixUNet(downs=5, ngf=2, dropout=True),
    "resnet with dropout": ResnetGenerator(ngf=2, blocks=3, dropout=True),
    "resnet with dropout and zero padding": ResnetGenerator(ngf=2, blocks=2, dropout=True, padding="zero"),
    "Aladdin": AladdinGenerator(features=4),
    "eriklindernoren": GeneratorUNet(width=4),
}
DROPPING = [name for name in NETWORKS if "no level" not in name]


class GivenDropout(nn.Module):
    """Multiplies by the next of the given (1, C, H, W) masks, and by 2 what it keeps."""

    def __init__(self, masks: Iterator[torch.Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = next(self.masks)
        assert mask.shape[1:] == x.shape[1:], "a mask of another shape would be stretched"
        return torch.where(mask, 2 * x, torch.zeros(()))


def rebuilt(name: str, seed: int | None) -> Generator:
    weights = Weights(randomise(NETWORKS[name]).state_dict())
    return find_family(weights).rebuild(weights, Choices(norm="instance", dropout_seed=seed))


def masks_in_order(generator: Generator) -> list[torch.Tensor]:
    """The masks as they come up while it paints."""
    masks: list[torch.Tensor] = []
    drops = [part for part in generator.module.modules() if isinstance(part, FixedDropout)]
    hooks = [drop.register_forward_hook(lambda part, *_: masks.append(part.mask)) for drop in drops]
    generator.module(torch.zeros(1, 3, generator.native_size, generator.native_size))
    for hook in hooks:
        hook.remove()
    return masks


def dropping_with(network: nn.Module, masks: list[torch.Tensor]) -> nn.Module:
    """A copy of the reference that paints in training mode, as its authors do, but drops by the given masks."""
    network = copy.deepcopy(network).train()
    remaining = iter(masks)
    for parent in list(network.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Dropout):
                setattr(parent, name, GivenDropout(remaining))
    return network


@pytest.mark.parametrize("name", DROPPING)
def test_masks_lie_where_the_reference_drops(name: str) -> None:
    generator = rebuilt(name, 7)
    assert generator.dropout == "seed 7"
    masks = masks_in_order(generator)
    assert masks
    x = torch.rand(1, 3, generator.native_size, generator.native_size) * 2 - 1
    with torch.no_grad():
        expected = dropping_with(NETWORKS[name], masks)(x)  # would run out of masks if it dropped more often
        assert expected.std() > 0.05, "a flat oracle proves nothing"
        torch.testing.assert_close(generator.module(x), expected, atol=2e-4, rtol=0)
        assert (rebuilt(name, None).module(x) - expected).abs().max() > 0.05
    remaining = iter(masks)
    oracle = dropping_with(NETWORKS[name], [])
    for part in oracle.modules():
        if isinstance(part, GivenDropout):
            part.masks = remaining
    with torch.no_grad():
        oracle(x)
    assert next(remaining, None) is None, "it dropped less often"


@pytest.mark.parametrize("name", DROPPING)
def test_masks_keep_about_half_and_differ_from_each_other(name: str) -> None:
    masks = masks_in_order(rebuilt(name, 3))
    kept = torch.cat([mask.flatten() for mask in masks]).float().mean()
    assert 0.4 < kept < 0.6
    for index, mask in enumerate(masks):
        assert not any(torch.equal(mask, other) for other in masks[index + 1 :])


def test_a_unet_of_five_levels_has_no_level_that_drops() -> None:
    name = "the smallest U-Net, which has no level to drop in"
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(rebuilt(name, 1).module(x), rebuilt(name, None).module(x), atol=0, rtol=0)


@pytest.mark.parametrize("name", DROPPING)
def test_the_noise_is_the_same_for_every_picture_and_in_any_company(name: str) -> None:
    generator = rebuilt(name, 7)
    pictures = torch.rand(3, 3, generator.native_size, generator.native_size) * 2 - 1
    together = generator.module(pictures)
    for index in range(3):
        torch.testing.assert_close(generator.module(pictures[index : index + 1])[0], together[index], atol=1e-4, rtol=0)
    torch.testing.assert_close(generator.module(pictures[:1].repeat(2, 1, 1, 1))[1], together[0], atol=1e-4, rtol=0)


def test_the_same_seed_paints_the_same_and_another_seed_another_picture() -> None:
    x = torch.rand(1, 3, 256, 256) * 2 - 1
    first, again, other = (rebuilt("unet_256", seed).module(x) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.05


def test_the_mask_survives_the_export(tmp_path: Path) -> None:
    weights = Weights(randomise(NETWORKS["unet_256"]).state_dict())
    family = find_family(weights)
    sessions = []
    for seed in (7, 8):
        generator = family.rebuild(weights, Choices(dropout_seed=seed))
        path = tmp_path / f"{seed}.onnx"
        write_onnx(GeneratorInterface(generator, family.convention).eval(), path)
        sessions.append(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
    pictures = PICTURES[2:7]
    masks = masks_in_order(rebuilt("unet_256", 7))
    oracle = dropping_with(NETWORKS["unet_256"], masks * len(pictures))
    assert_paints_the_same(sessions[0], paint(oracle, pictures), pictures)
    painted = [np.asarray(session.run(["photo"], {"sketch": pictures})[0], np.int16) for session in sessions]
    assert np.abs(painted[0] - painted[1]).max() > 5
