"""Whatever the photo: a drawing of its size, never an empty sheet where there is something to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchbridge_preprocess import Size, canny, decode, normalise_sketch
from sketchbridge_training import draw
from sketchbridge_training.drawing import _METHODS
from tests.training.conftest import draw_photo


def disc(colour: tuple[int, int, int], ground: tuple[int, int, int], radius: int = 40) -> Any:
    photo = np.full((160, 160, 3), ground, np.uint8)
    cv2.circle(photo, (80, 80), radius, colour, -1, cv2.LINE_AA)
    return photo


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
THINGS_TO_SEE = {
    "dark on light": disc((40, 30, 60), WHITE),
    "light on dark": disc((200, 220, 240), BLACK),
    "pale on white": disc((243, 243, 243), WHITE),
    "nearly black on black": disc((14, 14, 14), BLACK),
    "two colours of one brightness": disc((168, 108, 128), (128, 128, 128)),
    "small": disc(BLACK, WHITE, radius=3),
    "noise": np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8),
    "several things": draw_photo(1),
}


@pytest.mark.parametrize("thing", THINGS_TO_SEE)
def test_what_can_be_seen_is_drawn(thing: str) -> None:
    photo = THINGS_TO_SEE[thing]
    for seed in range(8):
        lines = draw(photo, np.random.default_rng(seed))
        assert lines.shape == photo.shape[:2]
        assert lines.dtype == np.uint8
        assert (lines < 128).any()
        assert lines.max() > 250  # paper


def test_lines_lie_where_the_photos_edges_are() -> None:
    photo = disc((40, 30, 60), WHITE)
    y, x = np.mgrid[:160, :160]
    far_from_edge = np.abs(np.hypot(x - 79.5, y - 79.5) - 40) > 12
    for seed in range(10):
        assert (draw(photo, np.random.default_rng(seed))[far_from_edge] < 128).mean() < 0.01


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_photo_of_nothing_is_an_empty_sheet(level: int) -> None:
    for seed in range(5):
        lines = draw(np.full((96, 96, 3), level, np.uint8), np.random.default_rng(seed))
        assert lines.min() == 255


def test_the_same_random_state_draws_the_same_and_another_draws_another() -> None:
    photo = draw_photo(2)
    first, again, other = (draw(photo, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_photo_is_not_modified() -> None:
    photo = draw_photo(3)
    photo.flags.writeable = False
    for seed in range(10):
        draw(photo, np.random.default_rng(seed))


@pytest.mark.parametrize("method", _METHODS, ids=lambda method: method.__name__)
def test_every_method_draws_a_real_photo(method: Any) -> None:
    import skimage.data  # noqa: PLC0415

    photo = decode((Path(skimage.data.__file__).parent / "chelsea.png").read_bytes())
    lines = method(cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA), np.random.default_rng(0))
    assert (lines < 128).any()
    assert (lines > 200).mean() > 0.3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_any_photo_of_any_shape_is_drawn_at_its_size(width: int, height: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    photo = random.integers(0, 256, (height, width, 3), np.uint8)
    lines = draw(photo, random)
    assert lines.shape == (height, width)
    assert lines.dtype == np.uint8


def test_four_drawings_in_ten_are_what_the_server_draws() -> None:
    photo = draw_photo(4)
    served = normalise_sketch(canny(photo), Size(photo.shape[1], photo.shape[0]))
    differences = [np.abs(draw(photo, np.random.default_rng(seed)) - served.astype(int)).mean() for seed in range(120)]
    assert 0.1 < np.mean([difference == 0 for difference in differences]) < 0.3
    assert 0.3 < np.mean([difference < 2 for difference in differences]) < 0.6


def test_what_lies_outside_the_subject_is_not_drawn() -> None:
    photo = disc((40, 30, 60), WHITE, radius=30)
    cv2.rectangle(photo, (2, 2), (30, 30), BLACK, -1)
    subject = np.zeros((160, 160), np.bool_)
    subject[45:115, 45:115] = True
    for seed in range(20):
        lines = draw(photo, np.random.default_rng(seed), subject=subject)
        assert lines[:34, :34].min() > 128
        assert (lines[40:120, 40:120] < 128).any()
