"""Live drawings of either kind of client, and a scripted server that gives each sketch back once it is told to."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2

from sketchbridge_client import Client, SketchbridgeError
from sketchbridge_client.async_live_drawing import AsyncLiveDrawing
from tests.client.grpc_serving import painted_answer

if TYPE_CHECKING:
    from typing_extensions import Self


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
        return painted_answer(data[4:])
