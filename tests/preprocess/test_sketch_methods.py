"""Photo to sketch, filters and encoding."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from sketchbridge_preprocess import (
    OUTPUT_FORMATS,
    SKETCH_METHODS,
    THRESHOLD_METHODS,
    Image,
    InvalidImage,
    InvalidOption,
    Size,
    canny,
    decode,
    denoise,
    dodge,
    encode,
    fit,
    laplacian,
    normalise_sketch,
    sharpen,
    sketch,
    threshold,
    xdog,
)
from sketchbridge_preprocess.filters import blur, to_gray

FUNCTIONS: list[Callable[[Image], object]] = [
    canny,
    laplacian,
    dodge,
    xdog,
    denoise,
    sharpen,
    threshold,
    encode,
    lambda image: fit(image, Size(8, 8)),
    lambda image: normalise_sketch(image, Size(32, 32)),
]


def disc(background: int = 230, inside: int = 60) -> Any:
    image = np.full((96, 128, 3), background, np.uint8)
    cv2.circle(image, (64, 48), 30, (inside, inside, inside), -1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint16", "float32", "float64", "complex64", "object"])
def test_every_other_dtype_is_refused_by_name(function: Callable[[Image], object], dtype: str) -> None:
    with pytest.raises(InvalidImage, match=f"{dtype}; expected .*uint8"):
        function(np.zeros((4, 4), dtype))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0, 3), (4,), (4, 4, 2), (4, 4, 4), (1, 4, 4, 3)])
def test_every_other_shape_is_refused(function: Callable[[Image], object], shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImage, match="expected"):
        function(np.zeros(shape, np.uint8))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(SKETCH_METHODS)), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_a_sketch_has_the_size_of_its_photo_and_leaves_it_alone(
    method: str, width: int, height: int, colour: bool
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3) if colour else (height, width), np.uint8)
    before = photo.copy()
    drawn = sketch(photo, method=method)
    assert drawn.shape == (height, width)
    assert drawn.dtype == np.uint8
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("method", sorted(SKETCH_METHODS))
def test_an_even_surface_gives_empty_paper(method: str) -> None:
    assert np.all(sketch(np.full((40, 40, 3), 180, np.uint8), method=method) > 250)


@pytest.mark.parametrize("method", sorted(SKETCH_METHODS))
def test_ink_lies_where_the_edge_of_a_disc_is(method: str) -> None:
    drawn = sketch(disc(), method=method)
    y, x = np.nonzero(drawn < drawn.min() / 2 + 100)
    radius = np.hypot(x - 64, y - 48)
    assert len(radius) > 60
    assert np.median(radius) == pytest.approx(30, abs=3)


@pytest.mark.parametrize("method", sorted(SKETCH_METHODS))
def test_the_table_of_parameters_is_what_the_function_takes(method: str) -> None:
    signature = inspect.signature(SKETCH_METHODS[method].draw).parameters
    taken = {name: one.default for name, one in signature.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert taken == {name: one.default for name, one in SKETCH_METHODS[method].parameters.items()}


@pytest.mark.parametrize("method", sorted(SKETCH_METHODS))
def test_every_parameter_is_held_to_its_range_and_does_something(method: str) -> None:
    fading = np.interp(np.arange(128), [40, 92], [1, 0])[None, :, None]  # edges of every strength
    photo = (180 + (cv2.GaussianBlur(disc(180, 0), (0, 0), 1).astype(float) - 180) * fading).astype(np.uint8)
    usual = sketch(photo, method=method)
    for name, one in SKETCH_METHODS[method].parameters.items():
        for value in (one.minimum - 1, one.maximum + 1, float("nan")):
            with pytest.raises(InvalidOption, match=f"`{name}` is"):
                sketch(photo, method=method, **{name: value})
        middle = (one.minimum + one.maximum) / 2
        tried = {"low_threshold": [0, 140], "high_threshold": [60, 400]}.get(name, [one.minimum, middle])
        assert any(not np.array_equal(sketch(photo, method=method, **{name: value}), usual) for value in tried), name


def test_thresholds_follow_the_picture_so_that_a_faint_one_is_drawn_like_a_plain_one() -> None:
    soft = cv2.GaussianBlur(disc(230, 30), (0, 0), 3)
    texture = np.random.default_rng(2).normal(0, 1, soft.shape)
    plain = soft + 0.2 * cv2.GaussianBlur(texture, (0, 0), 4)
    drawn = [canny((110 + (plain - 110) * contrast).astype(np.uint8)) == 0 for contrast in (1.0, 0.5, 0.25)]
    y, x = np.nonzero(drawn[0])
    assert np.median(np.hypot(x - 64, y - 48)) == pytest.approx(30, abs=2)
    for fainter in drawn[1:]:
        assert (fainter & drawn[0]).sum() > 0.6 * drawn[0].sum()
        assert fainter.sum() == pytest.approx(drawn[0].sum(), rel=0.5)


def test_one_threshold_given_decides_the_other() -> None:
    photo = cv2.GaussianBlur(disc(), (0, 0), 2)
    assert np.array_equal(canny(photo, high_threshold=20), canny(photo, high_threshold=20, low_threshold=8))
    lines = canny(photo, low_threshold=1900)  # above what the picture would say
    assert np.array_equal(lines, canny(photo, low_threshold=1900, high_threshold=1900))


def test_gradients_are_those_of_opencvs_own_canny() -> None:
    photo = cv2.GaussianBlur(disc(), (0, 0), 2)
    for low, high in ((10, 40), (50, 150)):
        theirs = 255 - cv2.Canny(to_gray(photo), low, high, L2gradient=True)
        assert np.array_equal(canny(photo, low_threshold=low, high_threshold=high, blur_sigma=0), theirs)


def test_unknown_methods_and_parameters_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidOption, match="canny, laplacian, dodge, xdog"):
        sketch(disc(), method="pencil")
    with pytest.raises(InvalidOption, match="`dodge` has no parameter `sigma`; it has blur_sigma"):
        sketch(disc(), method="dodge", sigma=1)
    with pytest.raises(InvalidOption, match="the low one can't be higher"):
        canny(disc(), low_threshold=200, high_threshold=100)


def test_denoise_brings_a_noisy_surface_nearer_to_the_clean_one() -> None:
    clean = disc()
    noisy = (clean + np.random.default_rng(0).normal(0, 8, clean.shape)).clip(0, 255).astype(np.uint8)
    for image, truth in ((noisy, clean), (noisy[:, :, 0].copy(), clean[:, :, 0])):
        better = denoise(image, strength=10)
        assert np.abs(better.astype(int) - truth).mean() < 0.5 * np.abs(image.astype(int) - truth).mean()


def test_sharpen_steepens_an_edge_and_zero_amount_changes_nothing() -> None:
    soft = cv2.GaussianBlur(disc(), (0, 0), 2)
    assert np.array_equal(sharpen(soft, amount=0), soft)
    assert (
        np.abs(np.diff(sharpen(soft)[48, :, 0].astype(int))).max() > np.abs(np.diff(soft[48, :, 0].astype(int))).max()
    )


@pytest.mark.parametrize("method", THRESHOLD_METHODS)
def test_threshold_gives_two_tones_that_part_the_disc_from_its_ground(method: str) -> None:
    two_tone = threshold(disc(), method=method)
    assert set(np.unique(two_tone)) == {0, 255}
    assert two_tone[48, 36] == 0
    assert two_tone[4, 4] == 255


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (17, 31), (17, 31, 3), (1, 500, 3)])
def test_what_is_encoded_pillow_can_read(output_format: str, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    image: Any = cv2.GaussianBlur(noise, (0, 0), 3).reshape(shape)
    data = encode(image, output_format=output_format, quality=95)
    theirs = Pillow.open(io.BytesIO(data))
    assert (theirs.format or "").lower() == output_format
    rgb = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2)
    difference = np.abs(np.asarray(theirs.convert("RGB")).astype(int) - rgb)
    assert difference.max() == 0 if output_format == "png" else difference.mean() < 8
    assert np.array_equal(decode(data).shape, rgb.shape)


@pytest.mark.parametrize("sigma", [8.5, 20, 60])
def test_a_wide_blur_is_nearly_the_exact_one(sigma: float) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8)
    photo[:, 150:] //= 3
    exact = cv2.GaussianBlur(photo, (0, 0), sigma).astype(int)
    assert np.abs(blur(photo, sigma) - exact).max() <= 3


@pytest.mark.parametrize("quality", [90.5, True, "90", None])
def test_a_quality_that_is_no_whole_number_is_refused(quality: Any) -> None:
    with pytest.raises(InvalidOption, match="expected a whole number"):
        encode(disc(), quality=quality)


def test_even_windows_are_refused_instead_of_changed() -> None:
    with pytest.raises(InvalidOption, match="expected an odd number"):
        denoise(disc(), patch_size_px=4)
    with pytest.raises(InvalidOption, match="expected an odd number"):
        threshold(disc(), method="adaptive", block_size_px=30)


def test_lower_quality_is_smaller_and_wrong_quality_is_refused() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    for output_format in ("jpeg", "webp"):
        sizes = [len(encode(image, output_format=output_format, quality=q)) for q in (10, 50, 95)]
        assert sizes == sorted(sizes)
    with pytest.raises(InvalidOption, match="`quality` is 0"):
        encode(image, quality=0)
    with pytest.raises(InvalidOption, match="png, jpeg, webp"):
        encode(image, output_format="gif")
    with pytest.raises(InvalidImage, match="Ask for PNG"):
        encode(np.zeros((1, 20_000), np.uint8), output_format="webp")
