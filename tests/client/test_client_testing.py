"""The fake server: what it does for a test, and that it does what the real server does."""

from __future__ import annotations

import asyncio
import base64
import doctest
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sketchbridge_client
from sketchbridge_client import (
    NEVER,
    AccessDenied,
    AsyncClient,
    BatchFailed,
    Client,
    ConnectionFailed,
    Hedge,
    Inference,
    InvalidArgument,
    InvalidInput,
    ModelDetails,
    ModelKind,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    Picture,
    RequestTimeout,
    ResponseInvalid,
    Retry,
    Roundtrip,
    ServerError,
    SketchbridgeError,
    fake_models,
    testing,
)
from sketchbridge_client.testing import FakeServer
from sketchbridge_preprocess import options as real_options
from sketchbridge_preprocess.sketch import SKETCH_METHODS
from sketchbridge_server import TritonServer

Verb = Callable[[Any], Any]


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


PIXELS = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PNG = png_of(PIXELS)
FILES = np.array([[PNG], [PNG]], dtype=object)
SQUARES = np.zeros((2, 256, 256, 3), np.uint8)
WIDE = np.zeros((700, 1501, 3), np.uint8)


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(kind: Callable[..., Any], fake: FakeServer) -> Iterator[Client]:
    with kind(fake) as client:
        yield client


# What the fake and the real server do with the same call.


@pytest.fixture
def both(way: Any, server: TritonServer, fake: FakeServer) -> Iterator[tuple[Client, Client]]:
    """A client of the fake, and one of the real server with the models that are shipped."""
    with way.kind(fake) as of_the_fake, way.connect(server.endpoints) as of_the_real:
        yield of_the_fake, of_the_real


ANSWERED: dict[str, Verb] = {
    "models": lambda client: client.models(),
    "live": lambda client: client.live(),
    "ready": lambda client: (client.ready(), client.ready("shoes"), client.ready("shoez")),
    "paint": lambda client: client.paint(PNG),
    "paint, jpeg": lambda client: client.paint(PNG, model="cats", output_format="jpeg", quality=50, fit="crop"),
    "paint, webp": lambda client: client.paint(PNG, output_format="webp", normalise="off", fit="stretch"),
    "paint, base64": lambda client: client.paint(base64.encodebytes(PNG)),
    "paint, list": lambda client: client.paint([PNG] * 3),
    "sketch": lambda client: client.sketch(PNG),
    "sketch, large": lambda client: client.sketch(WIDE),
    "sketch, scaled": lambda client: client.sketch(PNG, max_side_px=17),
    "sketch, xdog": lambda client: client.sketch(PNG, method="xdog", sigma=2, slope=7.5),
    "sketch, one pixel": lambda client: client.sketch(np.zeros((1, 1, 3), np.uint8)),
    "roundtrip": lambda client: client.roundtrip(PNG, model="faces"),
    "infer, generator": lambda client: client.infer("shoes_generator", {"sketch": SQUARES}),
    "infer, generator's nonsense": lambda client: client.infer(
        "shoes_generator", {"sketch": SQUARES}, parameters={"nonsense": 1}
    ),
    "infer, files": lambda client: client.infer("shoes", {"sketch": FILES}, version="1"),
    "infer, base64": lambda client: client.infer("shoes", {"sketch": FILES}, parameters={"output_encoding": "base64"}),
    "infer, decode": lambda client: client.infer("decode", {"image_bytes": FILES}),
    "infer, one output": lambda client: client.infer("decode", {"image_bytes": FILES}, outputs=["sketch"]),
    "infer, encode": lambda client: client.infer("encode", {"image": SQUARES[:, :20, :30]}),
    "infer, sketch": lambda client: client.infer("sketch", {"photo": FILES}),
    "model": lambda client: [
        client.model(name) for name in ("shoes", "shoes_roundtrip", "shoes_generator", "sketch", "decode", "encode")
    ],
}
REFUSED: dict[str, Verb] = {
    "no picture": lambda client: client.paint(b"hello"),
    "half a picture": lambda client: client.paint(PNG[:-200]),
    "a header": lambda client: client.paint(PNG[:40]),
    "a GIF": lambda client: client.sketch(b"GIF89a" + bytes(20)),
    "one of a list": lambda client: client.paint([PNG, b"hello", PNG]),
    "an empty tensor": lambda client: client.infer("encode", {"image": SQUARES[:0]}),
    "an unknown painter": lambda client: client.paint(PNG, model="shoez"),
    "an unknown roundtrip": lambda client: client.roundtrip(PNG, model="shoez"),
    "an unknown version": lambda client: client.infer("shoes", {"sketch": FILES}, version="7"),
    "details of an unknown model": lambda client: client.model("shoez"),
    "details of an unknown version": lambda client: client.model("shoes", version="7"),
}
REFUSED_IN_THE_SAME_WORDS: dict[str, Verb] = {
    "an unknown option": lambda client: client.sketch(PNG, nonsense=1),
    "an unknown method": lambda client: client.sketch(PNG, method="charcoal"),
    "an unknown fit": lambda client: client.paint(PNG, fit="croop"),
    "an unknown format": lambda client: client.paint(PNG, output_format="gif"),
    "a number of another method": lambda client: client.sketch(PNG, method="canny", sigma=1.0),
    "a number that is none": lambda client: client.sketch(PNG, method="xdog", sigma="thick"),
    "a number out of range": lambda client: client.sketch(PNG, method="xdog", sigma=1000),
    "a quality out of range": lambda client: client.paint(PNG, quality=0),
    "a quality that is not whole": lambda client: client.paint(PNG, quality=2.5),
    "a quality that is a truth": lambda client: client.paint(PNG, quality=True),
    "a side out of range": lambda client: client.roundtrip(PNG, max_side_px=5),
    "a long value": lambda client: client.paint(PNG, fit="x" * 200),
    "another kind of model": lambda client: client.paint(PNG, model="decode"),
    "arrays for files": lambda client: client.infer("shoes", {"sketch": np.zeros((1, 1), np.uint8)}),
    "files for arrays": lambda client: client.paint(PNG, model="shoes_generator"),
    "another input": lambda client: client.infer("shoes", {"drawing": FILES}),
    "another output": lambda client: client.infer("shoes", {"sketch": FILES}, outputs=["picture"]),
    "another dtype": lambda client: client.infer("shoes_generator", {"sketch": SQUARES.astype(np.float32)}),
    "too large a batch": lambda client: client.infer("shoes_generator", {"sketch": np.zeros((9, 256, 256, 3), "u1")}),
    "statistics of an unknown model": lambda client: client.stats("shoez"),
}


def looks(result: Any) -> Any:
    """All of a result that the fake and the real server must have in common."""
    if isinstance(result, Picture):
        with Image.open(io.BytesIO(result.bytes)) as image:
            return (result.format, image.size, image.mode, result.model, result.model_version)
    if isinstance(result, Roundtrip):
        return looks(result.sketch), looks(result.photo)
    if isinstance(result, Inference):
        arrays = {name: (array.shape, array.dtype) for name, array in result.outputs.items()}
        return arrays, result.model, result.model_version
    if isinstance(result, list):
        return [looks(one) for one in result]
    if isinstance(result, ModelDetails):  # Triton tells of an ensemble's outputs in any order
        return replace(result, outputs=tuple(sorted(result.outputs, key=lambda output: output.name)))
    return result


def fails(verb: Verb, client: Client) -> SketchbridgeError:
    with pytest.raises(SketchbridgeError) as caught:
        verb(client)
    return caught.value


def kind_of(error: SketchbridgeError) -> Any:
    """All of an error that the fake and the real server must have in common."""
    if isinstance(error, BatchFailed):
        return {index: kind_of(one) for index, one in error.errors.items()}
    return type(error), error.status, error.model, getattr(error, "available", None), error.request_id is None


@pytest.mark.server
@pytest.mark.parametrize("verb", ANSWERED.values(), ids=ANSWERED)
def test_the_fake_answers_as_the_real_server(both: tuple[Client, Client], verb: Verb) -> None:
    of_the_fake, of_the_real = (looks(verb(client)) for client in both)
    assert of_the_fake == of_the_real


@pytest.mark.server
@pytest.mark.parametrize("verb", REFUSED.values(), ids=REFUSED)
def test_the_fake_refuses_as_the_real_server(both: tuple[Client, Client], verb: Verb) -> None:
    of_the_fake, of_the_real = (kind_of(fails(verb, client)) for client in both)
    assert of_the_fake == of_the_real


@pytest.mark.server
@pytest.mark.parametrize("verb", REFUSED_IN_THE_SAME_WORDS.values(), ids=REFUSED_IN_THE_SAME_WORDS)
def test_the_fake_refuses_in_the_words_of_the_real_server(both: tuple[Client, Client], verb: Verb) -> None:
    of_the_fake, of_the_real = (fails(verb, client) for client in both)
    assert kind_of(of_the_fake) == kind_of(of_the_real)
    assert str(of_the_fake) == str(of_the_real)


@pytest.mark.server
def test_the_fake_counts_as_the_real_server(both: tuple[Client, Client]) -> None:
    def counts(client: Client) -> dict[str, NDArray[np.int64]]:
        return {one.name: np.array([one.requests, one.failures, one.inferences]) for one in client.stats()}

    def grown(client: Client) -> dict[str, list[int]]:
        before = counts(client)
        client.paint([PNG] * 3, model="cats")
        client.roundtrip(PNG, model="cats")
        client.infer("encode", {"image": SQUARES})
        for refused in (
            lambda client: client.sketch(b"hello"),
            lambda client: client.paint(b"hello"),
            lambda client: client.roundtrip(PNG, fit="x"),
            lambda client: client.infer("shoes", {"drawing": FILES}),
        ):
            fails(refused, client)
        return {name: (after - before[name]).tolist() for name, after in counts(client).items()}

    of_the_fake, of_the_real = (grown(client) for client in both)
    assert of_the_fake == of_the_real


def test_the_options_of_the_fake_are_those_of_the_server() -> None:
    assert real_options._CHOICES == fake_models.CHOICES
    assert real_options._WHOLE_NUMBERS == fake_models.WHOLE_NUMBERS
    ranges = {
        name: {key: (one.minimum, one.maximum) for key, one in method.parameters.items()}
        for name, method in SKETCH_METHODS.items()
    }
    assert ranges == fake_models.METHOD_NUMBERS


# What it does for a test.


def test_every_example_in_its_docstrings_is_true() -> None:
    parser = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    known = {**vars(testing), "drawing": PNG, "Image": Image}
    for example in parser.find(testing, globs=known):
        runner.run(example)
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=runner.tries)
    assert runner.tries > 15


def test_a_client_of_the_fake_is_a_client(fake: FakeServer) -> None:
    with fake.client() as client:
        assert type(client) is Client
        assert repr(client) == "Client('fake://sketchbridge')"
    with pytest.raises(InvalidArgument, match="is closed"):
        client.paint(PNG)

    async def use() -> None:
        async with fake.async_client() as client:
            assert type(client) is AsyncClient
            assert await client.ready()

    asyncio.run(use())
    assert repr(fake) == "FakeServer(18 models, 1 requests)"


def test_nothing_is_opened_started_or_waited_for(monkeypatch: pytest.MonkeyPatch, fake: FakeServer) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError

    with monkeypatch.context() as patched, fake.client() as client:
        patched.setattr(socket, "socket", refuse)
        patched.setattr(threading.Thread, "start", refuse)
        patched.setattr(threading.Event, "wait", refuse)
        patched.setattr(time, "sleep", refuse)
        fake.fail_next("UNAVAILABLE", times=5)
        assert client.paint(Image.fromarray(PIXELS)).timings.attempts == 6
        fake.fail_next(Overloaded)
        with pytest.raises(Overloaded):
            client.paint(PNG)


def test_asyncio_starts_no_thread_either(fake: FakeServer) -> None:
    async def threads() -> int:
        async with fake.async_client() as client:
            await client.paint(Image.fromarray(PIXELS))
            fake.fail_next(Overloaded)
            with pytest.raises(Overloaded):
                await client.paint(PNG)
            return threading.active_count()

    assert asyncio.run(threads()) == threading.active_count()


def test_a_painting_depends_on_the_pixels_and_the_model_alone(client: Client, fake: FakeServer) -> None:
    painted = client.paint(PNG).bytes
    assert client.paint(PIXELS).bytes == client.paint(Image.fromarray(PIXELS)).bytes == painted
    with FakeServer().client() as another:
        assert another.paint(PNG).bytes == painted
    assert client.paint(PNG, model="birds").bytes != painted
    changed = PIXELS.copy()
    changed[40, 40, 1] ^= 255
    assert client.paint(changed).bytes != painted


def test_a_drawing_on_transparent_paper_is_seen(client: Client) -> None:
    layers = np.zeros((2, 20, 20, 4), np.uint8)  # (N, H, W, RGBA), black ink
    layers[0, 5, :, 3] = layers[1, :, 5, 3] = 255
    lying, standing = (client.paint(Image.fromarray(layer)) for layer in layers)
    assert lying.bytes != standing.bytes


def test_what_came_is_written_down(kind: Callable[..., Any], fake: FakeServer) -> None:
    with kind(fake, token="secret", headers={"X-Tenant": "a"}, timeout_s=20) as client:
        photo = client.paint(PNG, model="birds", fit="crop", timeout_s=5)
        client.infer("shoes_generator", {"sketch": SQUARES}, version="1")
    first, second = fake.requests
    assert (first.verb, first.model, first.parameters, first.timeout_s) == ("paint", "birds", {"fit": "crop"}, 5)
    assert first.pictures == [PNG]
    assert first.request_id == photo.request_id
    assert first.headers["authorization"] == "Bearer secret"
    assert first.headers["x-tenant"] == "a"
    assert "traceparent" in first.headers
    assert "secret" not in repr(fake.requests)
    assert (second.verb, second.version, second.timeout_s, second.pictures) == ("infer", "1", 20, [])
    np.testing.assert_array_equal(second.inputs["sketch"], SQUARES)


def test_what_is_asked_on_the_side_is_not_written_down(client: Client, fake: FakeServer) -> None:
    client.paint([PNG] * 20)
    assert [len(one.pictures) for one in fake.requests] == [8, 8, 4]
    fake.requests.clear()
    client.models()
    client.model("shoes")
    client.stats()
    client.ready()
    client.ready("shoes")
    client.live()
    assert [(one.verb, one.model) for one in fake.requests] == [
        ("models", ""),
        ("model", "shoes"),
        ("stats", ""),
        ("ready", ""),
        ("ready", "shoes"),
        ("live", ""),
    ]
    fake.requests.clear()
    with pytest.raises(ModelNotFound):
        client.paint(PNG, model="shoez")
    assert [one.verb for one in fake.requests] == ["paint"]


def test_a_code_fails_requests_which_are_sent_again(client: Client, fake: FakeServer) -> None:
    fake.fail_next("UNAVAILABLE", words="Socket closed", times=3)
    assert client.paint(PNG).timings.attempts == 4
    assert len(fake.requests) == 4
    fake.fail_next("INVALID_ARGUMENT", words="too blue")
    with pytest.raises(InvalidInput, match="`shoes` refused the request: too blue"):
        client.paint(PNG)


@pytest.mark.parametrize("words", ["", "too blue"])
@pytest.mark.parametrize("error", testing._SAID)
def test_an_error_fails_a_whole_call_with_that_error(
    client: Client, fake: FakeServer, error: type[SketchbridgeError], words: str
) -> None:
    fake.fail_next(error, words=words, times=2)
    for _ in range(2):
        with pytest.raises(error) as caught:
            client.paint(PNG)
        assert type(caught.value) is error
        assert caught.value.model == "shoes"
        assert words in str(caught.value) or error is RequestTimeout
    assert client.paint(PNG).timings.attempts == 1


@pytest.mark.parametrize("error", [Overloaded, InvalidInput])
def test_a_list_fails_as_a_list(client: Client, fake: FakeServer, error: type[SketchbridgeError]) -> None:
    fake.fail_next(error)
    with pytest.raises(BatchFailed) as caught:
        client.paint([PNG] * 10)
    assert {type(one) for one in caught.value.errors.values()} == {error}
    assert len(caught.value.errors) == 10


def test_one_chunk_of_a_list_may_fail(client: Client, fake: FakeServer) -> None:
    client.paint([PNG, PNG])
    fake.fail_next("INTERNAL")
    with pytest.raises(BatchFailed) as caught:
        client.paint([PNG] * 10)
    assert sorted(caught.value.errors) == list(range(8))


def test_only_the_model_that_is_named_fails(client: Client, fake: FakeServer) -> None:
    fake.fail_next(ServerError, model="birds", words="out of feathers")
    assert client.paint(PNG, model="shoes")
    with pytest.raises(ServerError, match="out of feathers"):
        client.paint(PNG, model="birds")


def test_a_model_that_is_gone_is_not_ready_and_the_others_are_named(client: Client, fake: FakeServer) -> None:
    fake.fail_next(ModelNotReady)
    assert not client.ready("shoes")
    fake.fail_next(ModelNotFound)
    with pytest.raises(ModelNotFound) as caught:
        client.paint(PNG)
    assert caught.value.available == ("birds", "cats", "faces", "flowers")


def test_questions_fail_too(client: Client, fake: FakeServer) -> None:
    fake.fail_next(AccessDenied)
    with pytest.raises(AccessDenied):
        client.models()
    fake.fail_next(ConnectionFailed)
    assert not client.ready()
    assert client.ready()


@pytest.mark.parametrize(
    "failure", ["OK", "unavailable", 14, ResponseInvalid, BatchFailed, InvalidArgument, SketchbridgeError, ValueError]
)
def test_what_cannot_be_injected_is_refused(fake: FakeServer, failure: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`failure` is .*; expected one of the errors ConnectionFailed"):
        fake.fail_next(failure)


@pytest.mark.parametrize("times", [0, -1, 1.5, True])
def test_a_failure_happens_at_least_once(fake: FakeServer, times: Any) -> None:
    with pytest.raises(InvalidArgument, match="`times` is"):
        fake.fail_next("INTERNAL", times=times)


def test_a_client_tries_again_by_its_own_policy(kind: Callable[..., Any], fake: FakeServer) -> None:
    fake.fail_next("UNAVAILABLE", times=2)
    with kind(fake, retry=NEVER) as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                client.paint(PNG)
        assert client.paint(PNG)
    fake.fail_next("UNAVAILABLE", times=2)
    with kind(fake, retry=Retry(first_contact_s=0)) as client:
        with pytest.raises(ConnectionFailed):  # it has never been reached
            client.paint(PNG)
        assert not client.live()
        assert client.live()
        fake.fail_next("UNAVAILABLE", times=2)
        assert client.paint(PNG).timings.attempts == 3


@pytest.mark.timeout(30)
@pytest.mark.parametrize("timeout_s", [600, None])
def test_a_server_that_is_down_is_given_up_at_once(client: Client, fake: FakeServer, timeout_s: float | None) -> None:
    fake.stop()
    with pytest.raises(ConnectionFailed, match="Nothing answers at fake://sketchbridge"):
        client.paint(PNG, timeout_s=timeout_s)
    assert not client.live()
    assert not client.ready()
    assert fake.requests == []
    fake.start()
    assert client.live()
    assert client.paint(PNG, timeout_s=timeout_s).timings.attempts == 1


def test_a_call_after_a_long_outage_is_tried_again_as_ever(client: Client, fake: FakeServer) -> None:
    fake.fail_next(Overloaded)
    with pytest.raises(Overloaded):  # which takes all that the retry budget had
        client.paint(PNG)
    fake.fail_next("UNAVAILABLE", times=5)
    assert client.paint(PNG).timings.attempts == 6


def test_a_model_answers_what_it_is_told(client: Client, fake: FakeServer) -> None:
    red, blue = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    fake.answer("shoes", red)
    np.testing.assert_array_equal(client.paint(PNG).array, np.asarray(red))
    np.testing.assert_array_equal(client.roundtrip(PNG).photo.array, np.asarray(red))
    assert client.infer("shoes_generator", {"sketch": SQUARES})["photo"][0, 128, 128].tolist() == [255, 0, 0]
    seen = []

    def paint(drawing: bytes) -> Image.Image:
        seen.append(drawing)
        return blue

    fake.answer("shoes", paint)
    np.testing.assert_array_equal(client.paint(PNG).array, np.asarray(blue))
    assert seen == [PNG]
    fake.answer("sketch", red)
    assert client.sketch(PNG).array[0, 0].tolist() == [255, 0, 0]
    assert client.roundtrip(PNG).sketch.bytes == seen[-1]


def test_an_answer_that_is_no_picture_is_not_passed_on(client: Client, fake: FakeServer) -> None:
    fake.answer("shoes", b"no picture")
    with pytest.raises(ResponseInvalid, match="is no PNG, JPEG, WEBP file"):
        client.paint(PNG)


def test_what_an_answer_raises_reaches_the_test(client: Client, fake: FakeServer) -> None:
    def paint(_: bytes) -> bytes:
        raise ZeroDivisionError

    fake.answer("shoes", paint)
    with pytest.raises(ZeroDivisionError):
        client.paint(PNG)


@pytest.mark.parametrize("model", ["shoez", "shoes_roundtrip", "shoes_generator", "decode"])
def test_only_painters_and_sketch_are_told_what_to_answer(fake: FakeServer, model: str) -> None:
    with pytest.raises(InvalidArgument, match=f"`{model}` is no painter of this server"):
        fake.answer(model, PNG)


def test_models_come_and_go(client: Client, fake: FakeServer) -> None:
    fake.add_model("dogs")
    assert client.paint(PNG, model="dogs").model == "dogs"
    kinds = {model.name: model.kind for model in client.models() if model.name.startswith("dogs")}
    assert kinds == {
        "dogs": ModelKind.PAINTER,
        "dogs_generator": ModelKind.GENERATOR,
        "dogs_roundtrip": ModelKind.ROUNDTRIP,
    }
    fake.remove_model("dogs")
    fake.remove_model("decode")
    assert len(client.models()) == 17
    with pytest.raises(ModelNotFound):
        client.roundtrip(PNG, model="dogs")
    with pytest.raises(InvalidArgument, match="There is no model `dogs`"):
        fake.remove_model("dogs")
    with pytest.raises(InvalidArgument, match="There is a model `sketch` already"):
        fake.add_model("sketch")
    with pytest.raises(InvalidArgument, match="There is a model `shoes` already"):
        fake.add_model("shoes")


def test_a_server_may_have_other_painters(kind: Callable[..., Any]) -> None:
    with kind(FakeServer(painters=["dogs"])) as client:
        names = [model.name for model in client.models()]
    assert names == ["decode", "dogs", "dogs_generator", "dogs_roundtrip", "encode", "sketch"]


def test_a_slow_model_takes_no_time_of_the_test(client: Client, fake: FakeServer) -> None:
    fake.delay(100)
    fake.delay(2, model="birds")
    assert client.paint(PNG, model="birds", timeout_s=3)
    with pytest.raises(RequestTimeout, match="within 3 s"):
        client.paint(PNG, model="cats", timeout_s=3)
    assert client.paint(PNG, timeout_s=None)
    fake.fail_next("ABORTED", times=5)
    with pytest.raises(SketchbridgeError, match="It was tried 6 times"):  # and the pauses left too little for the last
        client.paint(PNG, timeout_s=100.000001)
    fake.delay(None)
    assert client.paint(PNG, model="cats", timeout_s=0.001)
    with pytest.raises(InvalidArgument):
        fake.delay(-1)


def test_a_slow_model_that_is_reached_at_the_second_try_takes_too_long(client: Client, fake: FakeServer) -> None:
    fake.delay(100)
    fake.fail_next("ABORTED")
    with pytest.raises(RequestTimeout, match=r"within 60 s.* It was tried 2 times"):
        client.paint(PNG, timeout_s=60)
    assert [request.timeout_s for request in fake.requests] == [60, 60]  # as it was given


def test_a_call_within_a_call_has_its_own_time(fake: FakeServer) -> None:
    fake.delay(5.3)
    with fake.client(timeout_s=6) as outer, fake.client(timeout_s=5.7) as inner:
        fake.answer("shoes", lambda drawing: inner.paint(drawing, model="birds").bytes)
        assert outer.paint(PNG)
    assert [(request.model, request.timeout_s) for request in fake.requests] == [("shoes", 6), ("birds", 5.7)]


def test_a_new_client_bears_as_many_failures_as_its_time_allows(client: Client, fake: FakeServer) -> None:
    fake.fail_next("UNAVAILABLE", times=20)  # pauses of 16 s or so
    assert client.paint(PNG, timeout_s=60).timings.attempts == 21


def test_a_hedge_changes_nothing(kind: Callable[..., Any], fake: FakeServer) -> None:
    with kind(fake, hedge=Hedge(after_s=0.01)) as client:
        assert client.paint(PNG)
    assert len(fake.requests) == 1


def test_threads_may_share_a_server(fake: FakeServer) -> None:
    fake.fail_next("UNAVAILABLE", times=20)
    with fake.client() as shared, ThreadPoolExecutor(8) as pool:
        painted = [
            picture.bytes
            for picture in pool.map(lambda shade: shared.paint(np.full((8, 8), shade, np.uint8)), range(60))
        ]
    assert len(set(painted)) == 60
    assert len(fake.requests) == 80


def test_tasks_may_share_a_client(fake: FakeServer) -> None:
    async def paint() -> list[Picture]:
        async with fake.async_client() as client:
            return await asyncio.gather(*(client.paint(np.full((8, 8), shade, np.uint8)) for shade in range(30)))

    fake.fail_next("UNAVAILABLE", times=20)
    assert len({picture.bytes for picture in asyncio.run(paint())}) == 30
    assert len(fake.requests) == 50


def test_a_task_can_be_cancelled(fake: FakeServer) -> None:
    async def cancel() -> None:
        async with fake.async_client() as client:
            task = asyncio.ensure_future(client.paint(PNG))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.paint(PNG)

    asyncio.run(cancel())
    assert len(fake.requests) == 1


def test_the_module_offers_what_it_says() -> None:
    assert set(testing.__all__) == {"FakeRequest", "FakeServer"}
    assert "FakeServer" not in sketchbridge_client.__all__  # a test asks for it by its module
