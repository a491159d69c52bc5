"""The networks, held against the exporter's reading of the same family: two implementations, one picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sketchbridge_export.families import Choices, Weights, find_family
from sketchbridge_export.sources import load_checkpoint
from sketchbridge_training import OptionInvalid, PatchDiscriminator, UNetGenerator
from tests.export.conftest import Pix2PixUNet, randomise
from tests.training.conftest import TINY


@pytest.mark.parametrize(("levels", "side"), [(8, 256), (6, 64), (5, 96)])
def test_the_generator_keeps_the_shape_and_paints_in_range(levels: int, side: int) -> None:
    generator = UNetGenerator(ngf=2, levels=levels)
    painted = generator(torch.rand(2, 3, side, side) * 2 - 1)
    assert painted.shape == (2, 3, side, side)
    assert painted.abs().max() <= 1


def test_the_discriminator_judges_patches() -> None:
    pair = torch.rand(2, 3, 256, 256), torch.rand(2, 3, 256, 256)
    for spectral_norm in (False, True):
        verdicts, features = PatchDiscriminator(ndf=2, spectral_norm=spectral_norm)(*pair)
        assert verdicts.shape == (2, 1, 30, 30)
        assert [tuple(feature.shape) for feature in features] == [
            (2, 2, 128, 128),
            (2, 4, 64, 64),
            (2, 8, 32, 32),
            (2, 16, 31, 31),
        ]


def test_a_patch_is_70_pixels_wide() -> None:
    judge = PatchDiscriminator(ndf=2).eval()
    photo = torch.zeros(1, 3, 256, 256, requires_grad=True)
    judge(torch.zeros(1, 3, 256, 256), photo)[0][0, 0, 15, 15].backward()
    assert photo.grad is not None
    seen = photo.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [70, 70]


def test_spectral_norm_bounds_every_layer() -> None:
    judge = PatchDiscriminator(ndf=4, spectral_norm=True)
    pair = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    for _ in range(60):  # each takes one step of the power iteration
        judge(*pair)
    judge.eval()
    for module in judge.modules():
        if isinstance(module, torch.nn.Conv2d):
            largest = torch.linalg.matrix_norm(module.weight.flatten(1).detach(), ord=2)
            assert float(largest) == pytest.approx(1, abs=0.05)


def test_dropout_works_in_training_only() -> None:
    generator, sketch = UNetGenerator(ngf=2), torch.rand(2, 3, 256, 256)
    assert not torch.equal(generator(sketch), generator(sketch))
    generator.eval()
    assert torch.equal(generator(sketch), generator(sketch))


@pytest.mark.parametrize("levels", [5, 8])
def test_the_exporter_recognises_the_generator_and_rebuilds_one_that_paints_the_same(levels: int) -> None:
    generator = randomise(UNetGenerator(ngf=3, levels=levels), seed=1).eval()
    weights = Weights(generator.state_dict())
    family = find_family(weights)
    assert family.name == "junyanz_unet"
    rebuilt = family.rebuild(weights, Choices(norm="running"))
    assert (rebuilt.native_size, rebuilt.facts["ngf"]) == (2**levels, 3)
    sketch = torch.rand(2, 3, 2**levels, 2**levels) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.module(sketch), generator(sketch), atol=1e-5, rtol=1e-4)


def test_the_keys_are_those_of_the_common_layout_and_its_weights_paint_the_same_here() -> None:
    theirs = randomise(Pix2PixUNet(downs=8, ngf=2), seed=2).eval()
    ours = UNetGenerator(ngf=2).eval()
    ours.load_state_dict(theirs.state_dict())  # strict: no key more, no key less
    sketch = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(sketch), theirs(sketch), atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_a_run_is_read_by_the_exporter(run: Path) -> None:
    checkpoint = load_checkpoint(run / "checkpoint.pt")
    assert checkpoint.metadata == {"family": "junyanz_unet", "norm": "running", "step": 0, "steps": 5}
    UNetGenerator(ngf=TINY.ngf).load_state_dict(dict(checkpoint.weights.tensors))


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(OptionInvalid, match="`levels` is 4; it must be at least 5"):
        UNetGenerator(levels=4)
    with pytest.raises(OptionInvalid, match="`ndf` is 0"):
        PatchDiscriminator(ndf=0)
