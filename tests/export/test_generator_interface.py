from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sketchbridge_export.errors import FamilyUnknown
from sketchbridge_export.families import IMAGENET_RANGE, TANH_CONVENTION, UNIT_RANGE, Convention, Generator
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity_pictures import shipped_pictures

PICTURES = torch.from_numpy(shipped_pictures()[6:])


class Recorder(nn.Module):
    """Gives back what it is fed, and remembers it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fed = x
        return x


def interface(
    convention: Convention = TANH_CONVENTION, *, channels: int = 3, size: int = 256
) -> tuple[GeneratorInterface, Recorder]:
    recorder = Recorder()
    return GeneratorInterface(Generator(recorder, channels, channels, size, "none", {}), convention), recorder


@pytest.mark.parametrize(
    "convention",
    [
        TANH_CONVENTION,
        replace(TANH_CONVENTION, input_range=UNIT_RANGE, output_range=UNIT_RANGE),
        replace(TANH_CONVENTION, channel_order="bgr"),
        Convention(IMAGENET_RANGE, IMAGENET_RANGE),
    ],
    ids=["tanh", "unit", "bgr", "imagenet"],
)
def test_every_grey_level_survives_a_network_that_changes_nothing(convention: Convention) -> None:
    wrapper, recorder = interface(convention)
    assert torch.equal(wrapper(PICTURES), PICTURES)
    assert recorder.fed.shape == (3, 3, 256, 256)
    assert recorder.fed.min() >= np.min(convention.input_range.low) - 1e-6
    assert recorder.fed.max() <= np.max(convention.input_range.high) + 1e-6


def test_white_is_one_and_black_is_minus_one_for_a_tanh_network() -> None:
    wrapper, recorder = interface()
    sketch = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    sketch[:, 128:] = 255
    wrapper(sketch)
    assert set(recorder.fed[0, :, :128].flatten().tolist()) == {-1.0}
    assert (recorder.fed[0, :, 128:] - 1.0).abs().max() < 1e-6


def test_a_bgr_network_is_fed_blue_first() -> None:
    wrapper, recorder = interface(replace(TANH_CONVENTION, channel_order="bgr"))
    sketch = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    sketch[..., 0] = 255  # red
    wrapper(sketch)
    assert recorder.fed[0, :, 0, 0].tolist() == pytest.approx([-1.0, -1.0, 1.0], abs=1e-6)


def test_a_network_of_light_lines_is_fed_the_negative() -> None:
    wrapper, recorder = interface(replace(TANH_CONVENTION, line_polarity="light-on-dark"))
    wrapper(torch.full((1, 256, 256, 3), 255, dtype=torch.uint8))
    assert (recorder.fed + 1.0).abs().max() < 1e-6


def test_a_gray_network_is_fed_exactly_pillows_gray_and_its_result_is_repeated() -> None:
    wrapper, _ = interface(channels=1)
    painted = wrapper(PICTURES).numpy()
    gray = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in PICTURES.numpy()])
    np.testing.assert_array_equal(painted, np.repeat(gray[..., None], 3, axis=3))


@pytest.mark.parametrize("size", [128, 254, 512])
def test_a_network_of_another_size_gets_its_size_and_the_result_comes_back_as_256(size: int) -> None:
    wrapper, recorder = interface(size=size)
    ramp = torch.arange(256, dtype=torch.uint8)[None, :, None, None].expand(2, 256, 256, 3)
    painted = wrapper(ramp)
    assert recorder.fed.shape == (2, 3, size, size)
    assert painted.shape == (2, 256, 256, 3)
    assert (painted.int() - ramp.int()).abs().max() <= 1


def test_values_beyond_the_range_are_clamped_and_halves_go_to_the_even_level() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            levels = torch.tensor([-40.0, 127.5, 300.0])
            return (levels / 127.5 - 1).reshape(1, 3, 1, 1).expand_as(x)

    wrapper = GeneratorInterface(Generator(Constant(), 3, 3, 256, "none", {}), TANH_CONVENTION)
    assert wrapper(PICTURES)[0, 0, 0].tolist() == [0, 128, 255]


def test_a_network_of_four_channels_is_refused() -> None:
    with pytest.raises(FamilyUnknown, match="input has 4 channels"):
        interface(channels=4)
