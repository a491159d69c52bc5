"""Any pen on any paper: the same drawing must come out, whatever it was drawn with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchbridge_preprocess import InvalidOption, Size, find_strokes, normalise_sketch
from sketchbridge_preprocess.thinning import thin

TARGET = Size(256, 256)


def drawing(pen_px: int = 6, side: int = 512) -> Any:
    """A house with a round window, black pen on white paper."""
    paper = np.full((side, side), 255, np.uint8)
    s = side / 512

    def at(*points: tuple[int, int]) -> Any:
        return np.array([[(int(x * s), int(y * s)) for x, y in points]])

    cv2.polylines(
        paper, at((120, 420), (120, 220), (256, 100), (392, 220), (392, 420)), True, (0,), pen_px, cv2.LINE_AA
    )
    cv2.circle(paper, (int(256 * s), int(250 * s)), int(50 * s), (0,), pen_px, cv2.LINE_AA)
    return paper


def ballpoint_on_yellow(lines: Any) -> Any:
    ink = (255 - lines)[:, :, None] / 255.0
    return (np.array([250, 240, 180]) * (1 - ink) + np.array([40, 50, 160]) * ink).astype(np.uint8)


def photographed_page(lines: Any) -> Any:
    y, x = np.mgrid[: lines.shape[0], : lines.shape[1]] / lines.shape[0]
    lit = 0.45 + 0.5 * np.exp(-((x - 0.8) ** 2 + (y - 0.2) ** 2))
    noise = np.random.default_rng(0).normal(0, 3, lines.shape)
    return ((60 + lines * 0.75) * lit + noise).clip(0, 255).astype(np.uint8)


def chalk_on_board(lines: Any) -> Any:
    return (30 + (255 - lines) * 0.8).astype(np.uint8)


def faint_pencil(lines: Any) -> Any:
    noise = np.random.default_rng(1).normal(0, 1.5, lines.shape)
    return (255 - (255 - lines) * 0.25 + noise).clip(0, 255).astype(np.uint8)


PENS: dict[str, Callable[[Any], Any]] = {
    "white on black": lambda lines: 255 - lines,
    "ballpoint on yellow": ballpoint_on_yellow,
    "photographed page": photographed_page,
    "chalk on board": chalk_on_board,
    "faint pencil": faint_pencil,
}


def agreement(first: Any, second: Any, *, within_px: int = 2) -> float:
    """F1 of the inked pixels of two drawings, within a few pixels."""
    near: Any = np.ones((2 * within_px + 1, 2 * within_px + 1), np.uint8)
    a, b = ((image < 128).astype(np.uint8) for image in (first, second))
    precision = (a & cv2.dilate(b, near)).sum() / max(a.sum(), 1)
    recall = (b & cv2.dilate(a, near)).sum() / max(b.sum(), 1)
    return float(2 * precision * recall / max(precision + recall, 1e-9))


@pytest.mark.parametrize("pen", PENS)
def test_every_pen_on_every_paper_gives_the_same_lines(pen: str) -> None:
    reference = normalise_sketch(drawing(), TARGET)
    assert agreement(normalise_sketch(PENS[pen](drawing()), TARGET), reference) > 0.97


@pytest.mark.parametrize("pen_px", [1, 2, 4, 10, 18])
@pytest.mark.parametrize("side", [300, 512, 1600])
def test_every_width_of_pen_gives_the_same_width_of_line(pen_px: int, side: int) -> None:
    reference = normalise_sketch(drawing(), TARGET)
    result = normalise_sketch(drawing(pen_px, side), TARGET)
    assert agreement(result, reference) > 0.95
    assert (result < 128).sum() == pytest.approx((reference < 128).sum(), rel=0.12)


@pytest.mark.parametrize(("side", "pen_px"), [(512, 1), (700, 1), (1024, 2), (1600, 4)])
@pytest.mark.parametrize("slant", ["/", "\\", "-", "|"])
def test_a_straight_stroke_in_any_direction_survives(side: int, pen_px: int, slant: str) -> None:
    paper: Any = np.full((side, side), 255, np.uint8)
    low, high, middle = side // 5, side - side // 5, side // 2
    ends = {"/": ((low, high), (high, low)), "\\": ((low, low), (high, high))}
    ends |= {"-": ((low, middle), (high, middle)), "|": ((middle, low), (middle, high))}
    cv2.line(paper, *ends[slant], (0,), pen_px)
    assert (normalise_sketch(paper, TARGET) < 128).sum() > 250


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_thinning_loses_no_piece_of_any_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise: Any = cv2.GaussianBlur(random.standard_normal((60, 80)), (0, 0), random.uniform(0.6, 3))
    mask = (noise > noise.std()).astype(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    lines = thin(mask)
    assert len(np.unique(labels[lines == 1])) == count - 1
    assert cv2.connectedComponents(lines, connectivity=8)[0] == count


def test_line_width_darkness_and_polarity_are_as_asked() -> None:
    inked = [int((normalise_sketch(drawing(), TARGET, line_width_px=w) < 128).sum()) for w in (1.2, 2.4, 4.8)]
    assert inked[0] < 0.75 * inked[1] < 0.6 * inked[2]
    assert normalise_sketch(drawing(), TARGET, darkness=100).min() == 155
    light = normalise_sketch(drawing(), TARGET, polarity="light_on_dark")
    assert np.array_equal(255 - light, normalise_sketch(drawing(), TARGET))


def test_a_filled_shape_becomes_its_outline() -> None:
    filled = np.full((512, 512), 255, np.uint8)
    cv2.rectangle(filled, (150, 150), (360, 360), (0,), -1)
    result = normalise_sketch(filled, TARGET)
    assert result[128, 128] == 255
    assert (result[70:190, 70:190] < 128).sum() > 300


@pytest.mark.parametrize("level", [0, 128, 255])
def test_paper_without_ink_stays_empty(level: int) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (300, 400, 3))
    assert np.all(normalise_sketch((level + noise).clip(0, 255).astype(np.uint8), TARGET) == 255)


def test_normalising_twice_changes_little() -> None:
    once = normalise_sketch(drawing(), TARGET)
    assert agreement(normalise_sketch(once, TARGET), once, within_px=1) > 0.98


def test_specks_are_dropped_and_strokes_stay() -> None:
    dirty = drawing()
    for x, y in np.random.default_rng(0).integers(10, 500, (60, 2)):
        dirty[y : y + 2, x : x + 2] = 0
    assert agreement(normalise_sketch(dirty, TARGET), normalise_sketch(drawing(), TARGET)) > 0.97


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["letterbox", "crop", "stretch"]), st.booleans())
def test_any_picture_of_any_shape_gives_a_drawing_of_the_size_asked_for(
    width: int, height: int, mode: str, colour: bool
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3) if colour else (height, width), np.uint8)
    result = normalise_sketch(image, Size(48, 32), mode=mode)
    assert result.shape == (32, 48)
    assert result.dtype == np.uint8


def test_a_strip_of_one_pixel_height_is_taken_too() -> None:
    assert normalise_sketch(np.zeros((1, 20_000), np.uint8), TARGET).shape == (256, 256)


def test_thinning_keeps_every_stroke_in_one_piece_and_one_pixel_wide() -> None:
    strokes = find_strokes(drawing(14))
    lines = thin(strokes)
    assert cv2.connectedComponents(lines)[0] == cv2.connectedComponents(strokes)[0]
    blocks = cv2.filter2D(lines, cv2.CV_8U, np.ones((2, 2), np.float32), borderType=cv2.BORDER_CONSTANT)
    assert (np.asarray(blocks) == 4).mean() < 1e-4
    assert np.all(strokes[lines == 1] == 1)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InvalidOption, match="`line_width_px` is 0"):
        normalise_sketch(drawing(), TARGET, line_width_px=0)
    with pytest.raises(InvalidOption, match="dark_on_light, light_on_dark"):
        normalise_sketch(drawing(), TARGET, polarity="black")
