"""Each change leaves a drawing of the same thing: some lines gone or moved, none from nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sketchbridge_preprocess import Size, canny, decode, draw_strokes, normalise_sketch
from sketchbridge_training import handwork
from sketchbridge_training.handwork import ink
from tests.training.conftest import draw_photo


def lines_of_photo() -> Any:
    """(120, 100) uint8: two outlines and a dozen specks."""
    strokes = canny(draw_photo(1)) == 0
    strokes[5:115:10, 5:12] = True
    return draw_strokes(strokes, line_width_px=1.9)


LINES = lines_of_photo()
CHANGES: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "details": handwork.leave_out_details,
    "gaps": handwork.leave_gaps,
    "region": handwork.leave_out_region,
    "wobble": lambda lines, random: handwork.wobble(lines, random, strength_px=2),
    "thick": lambda lines, random: handwork.draw_thick(lines, random, line_width_px=1.9),
    "change": lambda lines, random: handwork.change(lines, random, line_width_px=1.9),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_moves_or_takes_lines_and_adds_none_elsewhere(name: str) -> None:
    lines = LINES.copy()
    lines.flags.writeable = False
    near = cv2.dilate((lines < 128).astype(np.uint8), np.ones((25, 25), np.uint8))
    differ = 0
    for seed in range(12):
        changed = CHANGES[name](lines, np.random.default_rng(seed))
        assert changed.shape == lines.shape
        assert changed.dtype == np.uint8
        assert ink(changed) > 0.2 * ink(lines)
        assert (changed[near == 0] > 128).all()
        assert np.array_equal(changed, CHANGES[name](lines, np.random.default_rng(seed)))
        differ += not np.array_equal(changed, lines)
    assert differ > 3


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 80), (80, 3), (64, 64)])
def test_an_empty_sheet_of_any_shape_stays_empty(name: str, shape: tuple[int, int]) -> None:
    for seed in range(6):
        assert CHANGES[name](np.full(shape, 255, np.uint8), np.random.default_rng(seed)).min() == 255


def test_a_wobble_is_as_strong_as_asked() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    moved = handwork.wobble(ramp, np.random.default_rng(0), strength_px=2)[20:-20, 20:-20]
    assert 1 < (moved - ramp[20:-20, 20:-20].astype(float)).std() < 3


def test_a_mask_that_would_leave_next_to_nothing_is_not_used() -> None:
    corner = np.zeros(LINES.shape, np.bool_)
    corner[:4, :4] = True
    assert np.array_equal(handwork.erase_outside(LINES, corner), LINES)


def test_lines_close_together_run_into_one_under_a_thick_pen() -> None:
    lines = np.full((64, 64), 255, np.uint8)
    lines[20:44, 30] = lines[20:44, 33] = 0
    counts = {
        int(
            cv2.connectedComponents(
                (handwork.draw_thick(lines, np.random.default_rng(seed), line_width_px=1.9) < 128).astype(np.uint8)
            )[0]
        )
        - 1
        for seed in range(20)
    }
    assert 1 in counts


def test_the_short_way_to_redraw_gives_what_the_server_gives() -> None:
    import skimage.data  # noqa: PLC0415

    photo = decode((Path(skimage.data.__file__).parent / "chelsea.png").read_bytes())
    photo = np.asarray(cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    edges = canny(photo)
    served = normalise_sketch(edges, Size(256, 256)).astype(int)
    short = draw_strokes(edges == 0, line_width_px=1.9).astype(int)
    assert np.abs(served - short).mean() < 8
    assert abs((served < 128).mean() - (short < 128).mean()) < 0.005
