"""Bringing pictures to a size and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchbridge_preprocess import FIT_MODES, InvalidImage, InvalidOption, Size, fit, place, unfit

sides = st.integers(1, 300)


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(FIT_MODES), st.booleans())
def test_fit_gives_the_size_asked_for_and_unfit_the_size_that_came(
    width: int, height: int, to_width: int, to_height: int, mode: str, colour: bool
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3) if colour else (height, width), np.uint8)
    before = image.copy()
    fitted = fit(image, Size(to_width, to_height), mode=mode)
    assert fitted.image.shape[:2] == (to_height, to_width)
    assert not np.shares_memory(fitted.image, image)
    assert unfit(fitted.image, fitted.placement).shape == image.shape
    assert np.array_equal(image, before)


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.sampled_from(FIT_MODES))
def test_an_even_surface_stays_even_but_for_the_padding(width: int, height: int, mode: str) -> None:
    image = np.full((height, width), 77, np.uint8)
    fitted = fit(image, Size(64, 64), mode=mode, fill=200)
    assert set(np.unique(fitted.image)) <= {77, 200}
    if mode != "letterbox":
        assert np.all(fitted.image == 77)


def test_a_round_trip_keeps_the_picture() -> None:
    y, x = np.mgrid[:120, :200]
    image = (128 + 60 * np.sin(x / 20) + 60 * np.cos(y / 15)).clip(0, 255).astype(np.uint8)
    for mode in ("letterbox", "stretch"):
        fitted = fit(image, Size(256, 256), mode=mode)
        assert np.abs(unfit(fitted.image, fitted.placement).astype(int) - image).mean() < 1


def test_letterbox_says_where_a_source_pixel_went() -> None:
    image = np.zeros((100, 50), np.uint8)
    image[80:84, 20:24] = 255
    fitted = fit(image, Size(200, 200), fill=0)
    where = fitted.placement
    assert (where.scaled, where.left, where.top) == (Size(100, 200), 50, 0)
    ys, xs = np.nonzero(fitted.image > 200)
    assert xs.mean() == pytest.approx(22 * 2 + where.left - 0.5, abs=0.6)
    assert ys.mean() == pytest.approx(82 * 2 + where.top - 0.5, abs=0.6)


def test_a_crop_is_centred_and_its_inverse_fills_what_was_cut() -> None:
    image = np.zeros((100, 300), np.uint8)
    image[:, 100:200] = 90
    fitted = fit(image, Size(50, 50), mode="crop")
    assert np.all(fitted.image == 90)
    back = unfit(fitted.image, fitted.placement, fill=7)
    assert np.all(back[:, 100:200] == 90)
    assert np.all(back[:, :100] == 7)
    assert np.all(back[:, 200:] == 7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (3, 2_000)])
@pytest.mark.parametrize("mode", FIT_MODES)
def test_extreme_shapes_are_taken(shape: tuple[int, int], mode: str) -> None:
    fitted = fit(np.full(shape, 50, np.uint8), Size(256, 256), mode=mode)
    assert fitted.image.shape == (256, 256)
    assert unfit(fitted.image, fitted.placement).shape == shape


def test_stretching_one_way_while_shrinking_the_other_keeps_thin_lines() -> None:
    image = np.full((4000, 200), 255, np.uint8)
    image[100::320] = image[101::320] = image[102::320] = 0
    rows = fit(image, Size(256, 256), mode="stretch").image.mean(axis=1)
    assert (rows < 254).sum() >= 13


def test_wrong_calls_are_refused_with_the_way_out() -> None:
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(InvalidOption, match="expected one of letterbox, crop, stretch"):
        place(Size(4, 4), Size(8, 8), mode="squash")
    with pytest.raises(InvalidOption, match="at least 1"):
        Size(0, 8)
    with pytest.raises(InvalidOption, match="`fill` is 256"):
        fit(image, Size(8, 8), fill=256)
    with pytest.raises(InvalidImage, match="Resize it to the canvas"):
        unfit(image, fit(image, Size(8, 8)).placement)
