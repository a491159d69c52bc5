"""What can be fed to a live drawing: a sketch of any form, as it was when it was fed; and strokes on its own canvas."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client import Client, InvalidArgument

if TYPE_CHECKING:
    pass
from tests.client.easel import Easel, begin, rest_of, sheet
from tests.client.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_drawing_is_left_running")


Changeable = tuple[Any, Callable[[], Any]]
"""A sketch, and what its owner does to it later."""


SOURCES: dict[str, Callable[[NDArray[np.uint8]], Changeable]] = {}


def source(make: Callable[[NDArray[np.uint8]], Changeable]) -> None:
    SOURCES[make.__name__] = make


def _file(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@source
def array(pixels: NDArray[np.uint8]) -> Changeable:
    return pixels, lambda: pixels.fill(9)


@source
def part_of_an_array(pixels: NDArray[np.uint8]) -> Changeable:
    return pixels[:2, ::-1], lambda: pixels.fill(9)


@source
def image(pixels: NDArray[np.uint8]) -> Changeable:
    opened = Image.fromarray(pixels)
    return opened, lambda: opened.paste(9, (0, 0, 4, 4))


@source
def opened_image(pixels: NDArray[np.uint8]) -> Changeable:
    opened = Image.open(io.BytesIO(_file(pixels)))
    return opened, opened.close


@source
def changeable_bytes(pixels: NDArray[np.uint8]) -> Changeable:
    data = bytearray(_file(pixels))
    return data, data.clear


@source
def view(pixels: NDArray[np.uint8]) -> Changeable:
    data = bytearray(_file(pixels))
    return memoryview(data), lambda: data.__setitem__(slice(0, 9), bytes(9))


@source
def buffer(pixels: NDArray[np.uint8]) -> Changeable:
    opened = io.BytesIO(_file(pixels))
    return opened, opened.close


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_done_to_a_sketch_after_it_was_fed_does_not_change_what_is_sent(
    kind: Any, easel: Easel, name: str
) -> None:
    sketch, change = SOURCES[name](sheet(77))
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        wait_until(lambda: easel.came == [1])
        drawing.feed(sketch)
        change()
        easel.let(2)
        drawing.finish()
        assert rest_of(drawing)[-1] == 77


def test_a_photo_is_turned_upright_as_paint_does(kind: Any, easel: Easel) -> None:
    easel.let(2)
    pixels = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    for form in ("jpeg", "tiff", "png"):
        exif = Image.Exif()
        exif[274] = 6  # turned by 90 degrees
        turned = io.BytesIO()
        Image.fromarray(pixels).save(turned, form, exif=exif)
        with kind(easel.url) as client, begin(client, "shoes") as drawing:
            easel.let(2)
            drawing.feed(Image.open(io.BytesIO(turned.getvalue())))
            fed = next(drawing)
            painted = client.paint(Image.open(io.BytesIO(turned.getvalue())))
            assert fed.array.shape == (6, 4, 3)
            np.testing.assert_array_equal(fed.array, painted.array)


@pytest.mark.parametrize("several", [[sheet(1)], np.zeros((2, 4, 4, 3), np.uint8)], ids=["list", "four axes"])
def test_several_pictures_at_once_are_refused(kind: Any, easel: Easel, several: Any) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(several)
        with pytest.raises(InvalidArgument, match="feed each"):
            next(drawing)


# Strokes


def test_strokes_are_black_on_white_and_are_fed(way: Any, endpoints: Any) -> None:
    with way.connect(endpoints) as client, begin(client, "shoes", size_px=64) as drawing:
        drawing.stroke([(10, 20), (50, 20)], width_px=4)
        painted = next(drawing).array
        assert painted.shape == (64, 64, 3)
        assert painted[20, 10:51].max() == 0
        black = painted[:, :, 0] == 0
        assert set(np.flatnonzero(black[:, 30]).tolist()) in ({18, 19, 20, 21}, {19, 20, 21, 22})
        assert painted[black].max() == 0
        assert painted[~black].min() == 255
        np.testing.assert_array_equal(np.asarray(drawing.canvas), painted[:, :, 0])


@pytest.mark.parametrize("width_px", [1, 2, 3, 8, 0.4])
def test_a_single_point_is_a_dot_as_wide_as_the_pen(easel: Easel, width_px: float) -> None:
    easel.let(1)
    with Client(easel.url) as client, client.live("shoes", size_px=32) as drawing:
        drawing.stroke(np.array([(16, 16)]), width_px=width_px)
        inked = np.argwhere(np.asarray(drawing.canvas) == 0)
        assert (np.ptp(inked, axis=0) + 1).tolist() == [max(1, round(width_px))] * 2
        assert abs(inked.mean() - 16) <= 0.5


def test_undo_takes_off_the_last_stroke_and_clear_takes_off_all(kind: Any, easel: Easel) -> None:
    easel.let(99)
    with kind(easel.url) as client, begin(client, "shoes", size_px=32) as drawing:
        drawing.undo()  # nothing to undo, and nothing is fed
        drawing.stroke([(0, 0), (31, 31)])
        one = np.asarray(drawing.canvas)
        drawing.stroke([(31, 0), (0, 31)])
        assert (np.asarray(drawing.canvas) != one).any()
        drawing.undo()
        np.testing.assert_array_equal(np.asarray(drawing.canvas), one)
        drawing.clear()
        assert drawing.canvas.getextrema() == (255, 255)
        drawing.undo()
        assert drawing.canvas.getextrema() == (255, 255)
        drawing.finish()
        assert rest_of(drawing)[-1] == 255
        assert drawing.painted + drawing.dropped == 4


def test_the_canvas_that_is_given_out_is_a_copy(easel: Easel) -> None:
    with Client(easel.url) as client, client.live("shoes", size_px=8) as drawing:
        drawing.canvas.paste(0, (0, 0, 8, 8))
        assert drawing.canvas.getextrema() == (255, 255)


@pytest.mark.parametrize(
    ("points", "width_px", "named"),
    [
        ([], 4, "points"),
        ([(1, 2, 3)], 4, "points"),
        ((1, 2), 4, "points"),
        ([(1, float("nan"))], 4, "points"),
        ([(10**400, 1)], 4, "points"),
        ([(1, 2)], 10**400, "width_px"),
        ([(1, 1e30)], 4, "points"),
        ([("a", 1)], 4, "points"),
        ([(1, 2), (3,)], 4, "points"),
        ([(1, 1)], 0, "width_px"),
        ([(1, 1)], float("nan"), "width_px"),
        ([(1, 1)], True, "width_px"),
        ([(1, 1)], "4", "width_px"),
    ],
)
def test_a_stroke_that_cannot_be_drawn_is_refused_at_once(easel: Easel, points: Any, width_px: Any, named: str) -> None:
    with Client(easel.url) as client, client.live("shoes") as drawing:
        with pytest.raises(InvalidArgument, match=f"`{named}`"):
            drawing.stroke(points, width_px=width_px)
        assert drawing.canvas.getextrema() == (255, 255)
        drawing.finish()
        assert list(drawing) == []


def test_a_stroke_may_leave_the_canvas(easel: Easel) -> None:
    with Client(easel.url) as client, client.live("shoes", size_px=32) as drawing:
        drawing.stroke([(-50, 16), (90, 16)], width_px=1)
        drawing.stroke([(1e5, -1e5), (16, 1e5)])
        assert np.asarray(drawing.canvas)[16].max() == 0
