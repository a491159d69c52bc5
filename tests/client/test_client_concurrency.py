"""Many callers at once, and what is left when they are done: against a real Triton."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sketchbridge_client import AsyncClient, Client, ConnectionFailed, Picture
from sketchbridge_client.conversation import Servers
from sketchbridge_loadtest.fault_proxy import FaultProxy, HalfOpen, Side
from sketchbridge_server.config import Endpoints

pytestmark = pytest.mark.server

THREADS, TASKS = 64, 1000
SOON_S = 30.0
"""How long a test waits for what should come at once."""


def square(number: int) -> bytes:
    """A small PNG of one colour, another one for each number below 2**24."""
    colour = (number >> 16 & 255, number >> 8 & 255, number & 255)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, format="png")
    return buffer.getvalue()


def number_of(picture: Picture) -> int:
    red, green, blue = picture.array[0, 0].tolist()
    return int(red << 16 | green << 8 | blue)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, endpoints: Endpoints) -> str:
    return endpoints.grpc_url if request.param == "grpc" else endpoints.http_url


def servers_of(client: Any) -> Servers:
    servers: Servers = getattr(client, "inner", client)._core.servers
    return servers


def threads_of_clients() -> Counter[str]:
    return Counter(thread.name for thread in threading.enumerate() if thread.name.startswith("sketchbridge"))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a list of names is all it takes


def wait_until(true: Callable[[], bool], what: str) -> None:
    pause = threading.Event()
    for _ in range(int(SOON_S / 0.02)):
        if true():
            return
        gc.collect()
        pause.wait(0.02)
    pytest.fail(f"{what}, after {SOON_S:g} s still: {threads_of_clients()}, {open_files()} files.")


def test_threads_that_share_a_client_get_their_own_answers_in_their_own_order(url: str) -> None:
    def paint(thread: int) -> list[int]:
        return [number_of(client.paint(square(thread * 100 + call))) for call in range(4)]

    with Client(url) as client, ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(paint, range(THREADS))) == [[n * 100 + call for call in range(4)] for n in range(THREADS)]
        assert not any(servers_of(client).on_its_way)


def test_tasks_that_share_a_client_get_their_own_answers(url: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(url, timeout_s=120) as client:
            painted = await asyncio.gather(*(client.paint(square(number)) for number in range(TASKS)))
            assert [number_of(picture) for picture in painted] == list(range(TASKS))
            assert not any(servers_of(client).on_its_way)
            # This one and the patrol; HTTP may have some that end.
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) < 10
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_the_first_calls_of_many_threads_start_one_patrol(url: str) -> None:
    with Client(url) as client, ThreadPoolExecutor(THREADS) as pool:
        begin = threading.Barrier(THREADS)

        def call(_: int) -> bool:
            begin.wait(SOON_S)
            return client.live()

        assert all(pool.map(call, range(THREADS)))
        assert threads_of_clients()["sketchbridge-patrol"] == 1
    assert not threads_of_clients()


def test_the_same_load_again_takes_no_more_files_threads_or_objects(way: Any, endpoints: Endpoints) -> None:
    def load() -> None:
        with way.connect(endpoints) as client, ThreadPoolExecutor(16) as pool:
            for picture in pool.map(lambda number: client.paint(square(number)), range(48)):
                assert picture.format == "png"

    def objects() -> Counter[str]:
        gc.collect()
        return Counter(
            kind.__qualname__
            for kind in map(type, gc.get_objects())
            if str(kind.__module__).startswith(("sketchbridge_client", "asyncio", "_asyncio", "aiohttp", "grpc"))
        )

    load()
    files, threads, kinds = open_files(), threading.active_count(), objects()
    for _ in range(2):
        load()
    wait_until(lambda: open_files() <= files, f"there were {files} files")
    wait_until(lambda: threading.active_count() <= threads, f"there were {threads} threads")
    wait_until(lambda: not objects() - kinds, f"there were {kinds} objects")


def test_large_pictures_leave_no_memory_behind(way: Any, endpoints: Endpoints) -> None:
    megabyte = square(7) + bytes(1024 * 1024)  # what follows the end of a PNG is ignored

    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    with way.connect(endpoints) as client, ThreadPoolExecutor(8) as pool:

        def load() -> None:
            assert all(picture.format == "png" for picture in pool.map(client.paint, [megabyte] * 40))
            gc.collect()

        load()
        before = resident_mib()
        for _ in range(3):
            load()
        assert resident_mib() - before < 60  # half of what was sent


def test_closing_during_many_calls_ends_them_all(way: Any, endpoints: Endpoints) -> None:
    with FaultProxy(way.url(endpoints).removeprefix("http://")) as proxy:
        url = proxy.url if way.protocol == "grpc" else f"http://{proxy.url}"
        with way.kind(url, timeout_s=None) as client, ThreadPoolExecutor(THREADS) as pool:
            client.paint(square(1))
            proxy.inject(HalfOpen(Side.SERVER))  # what is asked is done, and nobody hears of it
            calls = [pool.submit(client.paint, square(number)) for number in range(THREADS)]
            wait_until(lambda: len(servers_of(client).on_its_way[0]) == THREADS, "not all calls are on their way")
            client.close()
            errors = [call.exception(SOON_S) for call in calls]
        assert {type(error) for error in errors} == {ConnectionFailed}
        assert all("was closed during the call" in str(error) for error in errors)
        assert not any(servers_of(client).on_its_way)
    assert not threads_of_clients()


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_client_that_is_dropped_unclosed_leaves_no_thread_and_no_connection(url: str, *, in_a_cycle: bool) -> None:
    with Client(url) as warm:
        warm.paint(square(1))
    files = open_files()
    client = Client(url)
    client.paint(square(1))
    assert threads_of_clients()
    if in_a_cycle:
        client.itself = client  # type: ignore[attr-defined]
    del client
    wait_until(lambda: not threads_of_clients(), "threads are left")
    wait_until(lambda: open_files() <= files, f"there were {files} files")


def test_200_clients_leave_nothing_behind(way: Any, endpoints: Endpoints) -> None:
    with way.connect(endpoints) as client:
        client.live()
    files, threads = open_files(), threading.active_count()
    for number in range(200):
        with way.connect(endpoints) as client:
            if number % 5 == 0:
                client.live()
    wait_until(lambda: open_files() <= files, f"there were {files} files")
    wait_until(lambda: threading.active_count() <= threads, f"there were {threads} threads")


def test_an_asyncio_client_in_another_loop_says_so(url: str) -> None:
    client = AsyncClient(url)

    async def live() -> bool:
        return await client.live()

    async def live_then_close() -> str:
        first = await client.live()
        assert first
        loop = asyncio.new_event_loop()
        try:
            await asyncio.to_thread(loop.run_until_complete, live())
        except Exception as exc:  # noqa: BLE001  looked at below
            return str(exc)
        finally:
            loop.close()
            await client.close()
        return ""

    assert "another event loop" in asyncio.run(live_then_close())


# In a process of its own, so that a child that hangs does not take the suite with it

FORK = """
    import io, os, signal, sys, threading
    from PIL import Image
    from sketchbridge_client import NEVER, Client

    client = Client(sys.argv[1], retry=NEVER, timeout_s=20)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, format="png")
    png = buffer.getvalue()
    servers, driver = client._core.servers, client._driver

    def paint():
        assert client.paint(png).array[0, 0].tolist() == [255, 0, 0]

    def in_child(work):
        signal.alarm(40)  # a child that hangs dies, and the parent sees it
        try:
            work()
        except BaseException as exc:
            print("child:", repr(exc), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def fork(work):
        child = os.fork()
        if child == 0:
            in_child(work)
        assert os.waitpid(child, 0)[1] == 0

    paint()
"""


def run(script: str, url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK) + textwrap.dedent(script), url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr


def test_a_forked_child_and_its_parent_both_go_on_with_a_client_that_threads_are_using(url: str) -> None:
    run(
        """
        stopped, errors, calls = threading.Event(), [], []

        def go_on():
            while not stopped.wait(0.005):
                try:
                    paint()
                    calls.append(1)
                except BaseException as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=go_on, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()

        def work():
            assert not any(servers.on_its_way)
            for _ in range(3):
                paint()
            assert driver._patrolling.is_alive()
            client.close()

        for _ in range(5):
            fork(work)
        fork(lambda: fork(work))  # a grandchild
        before = len(calls)
        while len(calls) < before + 8 and not errors:
            stopped.wait(0.01)
        stopped.set()
        for thread in threads:
            thread.join()
        assert not errors, errors
        paint()
        client.close()
        assert not [one.name for one in threading.enumerate() if one.name.startswith("sketchbridge")]
        print("well")
        """,
        url,
    )


def test_a_forked_child_and_its_parent_send_other_ids(url: str) -> None:
    run(
        """
        read, write = os.pipe()
        fork(lambda: os.write(write, client.paint(png).request_id.encode()))
        assert os.read(read, 32).decode() != client.paint(png).request_id
        print("well")
        """,
        url,
    )


@pytest.mark.server
def test_locks_that_were_held_at_the_fork_do_not_hold_the_child_up(url: str) -> None:
    run(
        """
        def work():
            paint()
            client.close()

        with servers._budget._lock, servers.balancer._lock, driver._starting, driver._stopping._cond:
            held = [one for way in driver._transports for one in vars(way).values() if hasattr(one, "acquire")]
            assert held
            for lock in held:
                lock.acquire()
            servers.on_its_way[0][12345] = 0.0
            fork(work)
            for lock in held:
                lock.release()
        print("well")
        """,
        url,
    )


def test_a_client_crosses_into_the_processes_of_a_forking_pool(url: str) -> None:
    run(
        """
        import multiprocessing

        def square(number):
            signal.alarm(40)
            paint()
            return number * number

        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(square, range(8)) == [number * number for number in range(8)]
        paint()
        client.close()
        print("well")
        """,
        url,
    )
