"""Live drawings: newest wins on the way there and back, and every sketch is accounted for."""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchbridge_client import (
    NEVER,
    AsyncClient,
    Client,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    SketchbridgeError,
)
from sketchbridge_client.async_live_drawing import AsyncLiveDrawing
from sketchbridge_client.live_drawing import LiveDrawing
from sketchbridge_client.testing import FakeServer

if TYPE_CHECKING:
    pass
from tests.client.easel import Easel, begin, rest_of, shade, sheet
from tests.client.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_drawing_is_left_running")


BAD: Any = np.zeros((4, 4))  # floats are refused before anything is sent


async def awaited_outcome_of(drawing: AsyncLiveDrawing) -> Any:
    try:
        picture = await anext(drawing, None)
    except SketchbridgeError as exc:
        return exc
    return None if picture is None else shade(picture)


def test_the_last_sketch_is_painted_last_and_every_sketch_is_accounted_for(way: Any, endpoints: Any) -> None:
    generator = np.random.default_rng(5)
    with way.connect(endpoints) as client, begin(client, "shoes") as drawing, ThreadPoolExecutor(1) as pool:
        taking = pool.submit(rest_of, drawing)
        for number in range(120):
            drawing.feed(sheet(number))
            time.sleep(float(generator.choice([0, 0, 0.002, 0.01])))
        drawing.finish()
        taken = taking.result()
        assert taken == sorted(set(taken))
        assert taken[-1] == 119
        assert shade(drawing.latest) == 119
        assert drawing.dropped + drawing.painted == 120
        assert drawing.failed == 0
        assert len(taken) <= drawing.painted


@settings(max_examples=40, deadline=None)
@given(
    sketches=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 0.001])), min_size=1, max_size=30),
    asynchronous=st.booleans(),
)
def test_whatever_is_fed_comes_in_order_and_is_painted_dropped_or_failed(
    sketches: list[tuple[bool, float]], asynchronous: bool
) -> None:
    server = FakeServer()
    server.answer("shoes", lambda file: file)

    async def draw_and_take() -> tuple[list[Any], Any]:
        async with AsyncClient(server) as client, client.live("shoes") as drawing:

            async def draw() -> None:
                for number, (good, pause_s) in enumerate(sketches):
                    drawing.feed(sheet(number) if good else BAD)
                    await asyncio.sleep(pause_s)
                drawing.finish()

            drawn = asyncio.create_task(draw())
            taken = []
            while (outcome := await awaited_outcome_of(drawing)) is not None:
                taken.append(outcome)
            await drawn
        return taken, drawing

    def draw_in_a_thread() -> tuple[list[Any], Any]:
        with Client(server) as client, client.live("shoes") as drawing, ThreadPoolExecutor(1) as pool:
            taking = pool.submit(rest_of, drawing)
            for number, (good, pause_s) in enumerate(sketches):
                drawing.feed(sheet(number) if good else BAD)
                time.sleep(pause_s)
            drawing.finish()
            return taking.result(), drawing

    taken, drawing = asyncio.run(draw_and_take()) if asynchronous else draw_in_a_thread()
    shades = [one for one in taken if isinstance(one, int)]
    assert shades == sorted(set(shades))
    assert all(sketches[number][0] for number in shades)
    if sketches[-1][0]:
        assert taken[-1] == len(sketches) - 1
    else:
        assert isinstance(taken[-1], InvalidArgument)
    assert drawing.dropped + drawing.painted + drawing.failed == len(sketches)
    assert len(taken) - len(shades) <= drawing.failed


def test_one_request_is_on_its_way_at_a_time_and_the_next_takes_the_newest_sketch(kind: Any, easel: Easel) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        wait_until(lambda: easel.came == [1])
        for number in (2, 3, 4):
            drawing.feed(sheet(number))
        assert (drawing.painted, drawing.dropped) == (0, 2)
        easel.let(2)
        drawing.finish()
        assert rest_of(drawing)[-1] == 4
        assert easel.came == [1, 4]
        assert (drawing.painted, drawing.dropped) == (2, 2)


def test_a_picture_that_nobody_took_is_replaced_by_a_newer_one(kind: Any, easel: Easel) -> None:
    easel.let(3)
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        assert drawing.latest is None
        for number in (1, 2):
            drawing.feed(sheet(number))
            wait_until(lambda number=number: drawing.painted == number)  # type: ignore[misc]
        assert shade(next(drawing)) == 2
        assert shade(drawing.latest) == 2
        drawing.feed(sheet(3))
        assert shade(next(drawing)) == 3  # not 2 again


def test_an_error_is_raised_once_and_the_session_goes_on(kind: Any, scripted: Any, easel: Easel) -> None:
    infer = scripted.infer
    easel.let(2)
    with kind(easel.url, retry=NEVER) as client, begin(client, "shoes") as drawing:
        drawing.feed(BAD)
        with pytest.raises(InvalidArgument, match=r"`sketch` is .*float64"):
            next(drawing)
        drawing.feed(sheet(1))
        assert shade(next(drawing)) == 1
        scripted.fail(grpc.StatusCode.INVALID_ARGUMENT, "no such drawing")
        drawing.feed(sheet(2))
        with pytest.raises(InvalidInput, match="no such drawing"):
            next(drawing)
        scripted.infer = infer
        drawing.feed(sheet(3))
        assert shade(next(drawing)) == 3
        assert shade(drawing.latest) == 3
        assert (drawing.painted, drawing.failed, drawing.dropped) == (2, 2, 0)


def test_an_error_that_is_older_than_the_newest_picture_comes_before_it(kind: Any, easel: Easel) -> None:
    easel.let(9)
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        wait_until(lambda: drawing.painted == 1)
        for failed in (1, 2):
            drawing.feed(BAD)
            wait_until(lambda failed=failed: drawing.failed == failed)  # type: ignore[misc]
        drawing.feed(sheet(4))
        wait_until(lambda: drawing.painted == 2)
        drawing.finish()
        error, picture = rest_of(drawing)  # the newest of each
        assert isinstance(error, InvalidArgument)
        assert picture == 4


def test_what_a_token_function_raises_is_raised_where_the_pictures_are_taken(kind: Any, easel: Easel) -> None:
    def token() -> str:
        raise LookupError("no token today")

    with kind(easel.url, token=token) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        with pytest.raises(LookupError, match="no token today"):
            next(drawing)


def test_a_model_that_is_not_there_is_named_with_those_that_are(way: Any, endpoints: Any) -> None:
    with way.connect(endpoints) as client, begin(client, "shoos") as drawing:
        drawing.feed(sheet(1))
        with pytest.raises(ModelNotFound, match="`shoes`"):
            next(drawing)


def test_options_go_with_every_sketch(way: Any, endpoints: Any) -> None:
    with way.connect(endpoints) as client, begin(client, "birds", output_format="jpeg", bgr=True) as drawing:
        drawing.feed(np.full((8, 8, 3), (200, 100, 0), np.uint8))
        picture = next(drawing)
        assert (picture.model, picture.format) == ("birds", "jpeg")
        np.testing.assert_allclose(picture.array[4, 4], (0, 100, 200), atol=6)
        drawing.stroke([(3, 3)])  # the canvas is no array, and `bgr` is not said of it
        assert next(drawing).array.shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size_px": 0}, "size_px"),
        ({"size_px": 0.5}, "size_px"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"quality": []}, "quality"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(kind: Any, options: dict[str, Any], named: str) -> None:
    with kind() as client, pytest.raises(InvalidArgument, match=f"`{named}`"):
        begin(client, "shoes", **options)


def test_many_threads_may_feed(kind: Any, easel: Easel) -> None:
    easel.let(1000)
    with kind(easel.url) as client, begin(client, "shoes") as drawing, ThreadPoolExecutor(9) as pool:
        taking = pool.submit(rest_of, drawing)
        numbers = itertools.count()
        feeding = [pool.submit(lambda: [drawing.feed(sheet(next(numbers) % 250)) for _ in range(25)]) for _ in range(8)]
        for fed in feeding:
            fed.result()
        drawing.finish()
        taken = taking.result()
        assert taken[-1] == shade(drawing.latest)
        assert drawing.dropped + drawing.painted == 200


def test_asyncio_takes_pictures_while_the_same_loop_draws(endpoints: Any) -> None:
    async def draw() -> list[int]:
        async with AsyncClient(endpoints.grpc_url) as client:
            assert await client.live() is True
            async with client.live("shoes") as drawing:

                async def feed() -> None:
                    for number in range(40):
                        drawing.feed(sheet(number))
                        await asyncio.sleep(0.002)
                    drawing.finish()

                feeding = asyncio.create_task(feed())
                taken = [shade(picture) async for picture in drawing]
                await feeding
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "sketchbridge-live" not in names
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return taken

    taken = asyncio.run(draw())
    assert taken == sorted(set(taken))
    assert taken[-1] == 39


def test_a_cancelled_wait_for_a_picture_loses_nothing(easel: Easel) -> None:
    async def draw() -> int:
        async with AsyncClient(easel.url) as client, client.live("shoes") as drawing:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(drawing.__anext__(), 0.05)
            drawing.feed(sheet(5))
            easel.let(1)
            return shade(await drawing.__anext__())

    assert asyncio.run(draw()) == 5


def test_the_two_kinds_of_session_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(LiveDrawing) == names(AsyncLiveDrawing)
