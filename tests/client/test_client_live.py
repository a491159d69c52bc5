"""Live drawings: newest wins on the way there and back, and nothing is left running."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2

from sketchbridge_client import (
    NEVER,
    AsyncClient,
    Client,
    ConnectionFailed,
    Hedge,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    Retry,
    SketchbridgeError,
)
from sketchbridge_client.live_drawing import AsyncLiveDrawing, LiveDrawing
from sketchbridge_client.testing import FakeServer

if TYPE_CHECKING:
    from typing_extensions import Self

BAD: Any = np.zeros((4, 4))  # floats are refused before anything is sent


class AwaitedDrawing:
    """An AsyncLiveDrawing of an Awaited client, used as a LiveDrawing. All but waiting is called from this thread."""

    def __init__(self, client: Any, *args: Any, **options: Any) -> None:
        async def begin() -> AsyncLiveDrawing:
            drawing: AsyncLiveDrawing = client.inner.live(*args, **options)
            return drawing

        self._client = client
        self._inner: AsyncLiveDrawing = client._await(begin())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client._await(self._inner.close())

    def __iter__(self) -> AwaitedDrawing:
        return self

    def __next__(self) -> Any:
        picture = self._client._await(anext(self._inner, None))
        if picture is None:
            raise StopIteration
        return picture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def begin(client: Any, *args: Any, **options: Any) -> Any:
    """A live drawing of either kind of client."""
    return client.live(*args, **options) if isinstance(client, Client) else AwaitedDrawing(client, *args, **options)


def sheet(shade: int) -> NDArray[np.uint8]:
    """A drawing that can be told from others: (4, 4) uint8 gray."""
    return np.full((4, 4), shade, np.uint8)


def shade(picture: Any) -> int:
    return int(picture.array[0, 0, 0])


def outcome_of(drawing: Any) -> Any:
    """What is given next: the shade of a picture, or an error; None at the end."""
    try:
        picture = next(drawing, None)
    except SketchbridgeError as exc:
        return exc
    return None if picture is None else shade(picture)


def rest_of(drawing: Any) -> list[Any]:
    """What is still given, errors among it, until the iteration ends."""
    return list(iter(lambda: outcome_of(drawing), None))


async def awaited_outcome_of(drawing: AsyncLiveDrawing) -> Any:
    try:
        picture = await anext(drawing, None)
    except SketchbridgeError as exc:
        return exc
    return None if picture is None else shade(picture)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sketchbridge-live"]


class Easel:
    """Makes a scripted server give each picture back, once it is told to."""

    def __init__(self, scripted: Any) -> None:
        self.came: list[int] = []
        self.gate = threading.Semaphore(0)
        self.given_up = 0
        self.url = scripted.url
        scripted.infer = self._infer

    def let(self, count: int) -> None:
        self.gate.release(count)

    def _infer(self, request: Any, context: Any) -> Any:
        data = request.raw_input_contents[0]
        self.came.append(int(np.array(Image.open(io.BytesIO(data[4:])).convert("RGB"))[0, 0, 0]))
        while not self.gate.acquire(timeout=0.02):
            if not context.is_active():
                self.given_up += 1
                return service_pb2.ModelInferResponse()
        response = service_pb2.ModelInferResponse(model_name="shoes", model_version="1")
        response.outputs.add(name="photo", datatype="BYTES", shape=[1, 1])
        response.raw_output_contents.append(data)
        return response


@pytest.fixture
def easel(scripted: Any) -> Easel:
    return Easel(scripted)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    assert live_threads() == []


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


@pytest.mark.parametrize("several", [[sheet(1)], np.zeros((2, 4, 4, 3), np.uint8)], ids=["list", "four axes"])
def test_several_pictures_at_once_are_refused(kind: Any, easel: Easel, several: Any) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(several)
        with pytest.raises(InvalidArgument, match="feed each"):
            next(drawing)


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


def test_after_finish_the_iteration_ends_with_the_last_picture_and_no_more_is_taken(kind: Any, easel: Easel) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        drawing.finish()
        easel.let(1)
        assert [shade(picture) for picture in drawing] == [1]
        assert list(drawing) == []
        with pytest.raises(InvalidArgument, match="finished"):
            drawing.feed(sheet(2))
        with pytest.raises(InvalidArgument, match="finished"):
            drawing.stroke([(1, 1)])
        assert drawing.canvas.getextrema() == (255, 255)


def test_a_session_that_was_fed_nothing_ends_at_once(kind: Any, easel: Easel) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing:
        drawing.finish()
        assert list(drawing) == []
        assert drawing.latest is None


def test_close_gives_the_request_up_on_the_server_too(kind: Any, easel: Easel) -> None:
    with kind(easel.url, timeout_s=None) as client:
        with begin(client, "shoes") as drawing:
            drawing.feed(sheet(1))
            wait_until(lambda: easel.came == [1])
            drawing.feed(sheet(2))
        wait_until(lambda: easel.given_up == 1)
        assert (drawing.painted, drawing.dropped, drawing.failed) == (0, 2, 0)
        assert list(drawing) == []
        drawing.close()
        with pytest.raises(InvalidArgument, match="closed"):
            drawing.feed(sheet(3))
        easel.let(1)
        assert shade(client.paint(sheet(4))) == 4  # the client is as well as before


def test_close_ends_an_iteration_that_waits(kind: Any, easel: Easel) -> None:
    with kind(easel.url) as client, begin(client, "shoes") as drawing, ThreadPoolExecutor(1) as pool:
        taking = pool.submit(list, drawing)
        drawing.close()
        assert taking.result() == []


def test_close_does_not_wait_for_a_server_that_never_answers(way: Any, silent_port: int) -> None:
    url = f"{'http://' if way.protocol == 'http' else ''}127.0.0.1:{silent_port}"
    with way.kind(url, timeout_s=None) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        wait_until(lambda: drawing._session._on_its_way is not None)
        time.sleep(0.1)  # on its way, most likely; the test holds either way
        drawing.close()
        assert (drawing.painted, drawing.dropped) == (0, 1)


def test_close_does_not_wait_out_the_pause_between_tries(kind: Any, easel: Easel, scripted: Any) -> None:
    scripted.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "come back later")
    retry = Retry(first_pause_s=3600, longest_pause_s=3600, give_up_s=9000)
    with kind(easel.url, timeout_s=None, retry=retry) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        time.sleep(0.3)  # in the pause, most likely; the test holds either way
        drawing.close()
        assert drawing.dropped == 1


def test_close_gives_up_both_copies_of_a_hedged_request(kind: Any, easel: Easel) -> None:
    with (
        kind(easel.url, timeout_s=None, hedge=Hedge(after_s=0.01)) as client,
        begin(client, "shoes") as drawing,
    ):
        drawing.feed(sheet(1))
        wait_until(lambda: easel.came == [1, 1])
        drawing.close()
        wait_until(lambda: easel.given_up == 2)


def test_closing_the_client_ends_the_request_with_an_error(kind: Any, easel: Easel) -> None:
    with kind(easel.url, timeout_s=None) as client, begin(client, "shoes") as drawing:
        drawing.feed(sheet(1))
        wait_until(lambda: easel.came == [1])
        client.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            next(drawing)
        drawing.feed(sheet(2))
        with pytest.raises(InvalidArgument, match="closed"):
            next(drawing)


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


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_drawing_that_is_dropped_leaves_no_thread(easel: Easel, busy: bool) -> None:
    drawing = Client(easel.url, timeout_s=None).live("shoes")  # which keeps its client
    if busy:
        drawing.feed(sheet(1))
        wait_until(lambda: easel.came == [1])
    (thread,) = live_threads()
    gone = weakref.ref(drawing)
    del drawing
    gc.collect()
    assert gone() is None
    thread.join()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_drawing_that_is_dropped_leaves_no_task(easel: Easel, busy: bool) -> None:
    async def draw() -> None:
        async with AsyncClient(easel.url, timeout_s=None) as client:
            drawing = client.live("shoes")
            if busy:
                drawing.feed(sheet(1))
                await asyncio.to_thread(wait_until, lambda: easel.came == [1])
            (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "sketchbridge-live")
            del drawing
            gc.collect()
            await asyncio.wait([task])

    asyncio.run(draw())


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


def test_a_loop_that_ends_early_ends_the_iteration(easel: Easel) -> None:
    kept: list[AsyncLiveDrawing] = []

    async def leave() -> None:
        kept.append(AsyncClient(easel.url).live("shoes"))
        await asyncio.sleep(0)

    asyncio.run(leave())
    with pytest.raises(InvalidArgument, match="closed"):
        kept[0].feed(sheet(1))


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


def test_the_two_kinds_of_session_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(LiveDrawing) == names(AsyncLiveDrawing)
