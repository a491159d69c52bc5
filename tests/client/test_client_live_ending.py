"""How live drawings end: finished, closed, dropped, or with their client or loop; nothing is left running."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from sketchbridge_client import AsyncClient, Client, ConnectionFailed, Hedge, InvalidArgument, Retry
from sketchbridge_client.async_live_drawing import AsyncLiveDrawing

if TYPE_CHECKING:
    pass
from tests.client.easel import Easel, begin, live_threads, shade, sheet
from tests.client.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_drawing_is_left_running")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


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


def test_a_loop_that_ends_early_ends_the_iteration(easel: Easel) -> None:
    kept: list[AsyncLiveDrawing] = []

    async def leave() -> None:
        kept.append(AsyncClient(easel.url).live("shoes"))
        await asyncio.sleep(0)

    asyncio.run(leave())
    with pytest.raises(InvalidArgument, match="closed"):
        kept[0].feed(sheet(1))
