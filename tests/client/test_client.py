"""The verbs against a real Triton, whose models send the picture back with notes on what reached them."""

from __future__ import annotations

import hashlib
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sketchbridge_client import (
    NEVER,
    BatchFailed,
    Client,
    InvalidArgument,
    InvalidInput,
    ModelKind,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    Picture,
    RequestTimeout,
    ResponseInvalid,
    ServerError,
    StepTimings,
)
from sketchbridge_server.config import Endpoints
from tests.client.grpc_serving import serving_grpc
from tests.client.waiting import wait_until

pytestmark = pytest.mark.server


def notes(picture: Picture) -> dict[str, Any]:
    """What the model wrote into its PNG: the parameters, request id and SHA-256 of the bytes as they reached it."""
    with Image.open(io.BytesIO(picture.bytes)) as image:
        image.load()
        info = {str(key): value for key, value in image.info.items()}
    return {**info, "parameters": json.loads(info["parameters"])}


def test_a_painting_comes_back_with_who_made_it(client: Client, png: bytes, drawing: NDArray[np.uint8]) -> None:
    photo = client.paint(png, model="shoes")
    np.testing.assert_array_equal(photo.array, drawing)
    assert (photo.format, photo.model, photo.model_version) == ("png", "shoes", "1")
    assert photo.elapsed_s > 0
    assert notes(photo)["request_id"] == photo.request_id


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "pillow", "array", "picture"])
def test_every_way_to_hold_a_picture_gives_the_same_painting(
    client: Client, tmp_path: Path, png: bytes, drawing: NDArray[np.uint8], kind: str
) -> None:
    (tmp_path / "a.png").write_bytes(png)
    sketch: Any = {
        "path": tmp_path / "a.png",
        "text path": str(tmp_path / "a.png"),
        "bytes": png,
        "pillow": Image.fromarray(drawing),
        "array": drawing,
        "picture": client.sketch(png),
    }[kind]
    np.testing.assert_array_equal(client.paint(sketch).array, drawing)


def test_the_bytes_of_a_file_reach_the_model_unchanged(client: Client, png: bytes) -> None:
    assert notes(client.paint(png))["sha256"] == hashlib.sha256(png).hexdigest()


def test_a_file_of_many_megabytes_goes_through(client: Client, png: bytes) -> None:
    large = png + bytes(8 * 1024 * 1024)  # what follows the end of a PNG is ignored
    assert notes(client.paint(large))["sha256"] == hashlib.sha256(large).hexdigest()


def test_parameters_reach_the_model_with_their_types(client: Client, png: bytes) -> None:
    painted = client.paint(png, fit="crop", normalise="off", quality=80)
    assert notes(painted)["parameters"] == {"fit": "crop", "normalise": "off", "quality": 80}
    sketched = client.sketch(png, method="xdog", sigma=0.8, k=2, invert=True, note="as drawn")
    assert notes(sketched)["parameters"] == {
        "method": "xdog",
        "sigma": 0.8,
        "k": 2,
        "invert": True,
        "note": "as drawn",
    }


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_answer_comes_in_the_format_asked_for(client: Client, png: bytes, output_format: Any) -> None:
    assert client.paint(png, output_format=output_format).format == output_format


def test_a_roundtrip_gives_the_drawing_and_the_photo(client: Client, png: bytes) -> None:
    both = client.roundtrip(png, model="shoes", method="dodge")
    assert both.sketch.model == both.photo.model == "shoes_roundtrip"
    assert both.sketch.request_id == both.photo.request_id
    assert notes(both.photo)["parameters"] == {"method": "dodge"}


def test_bytes_that_are_no_picture_are_the_callers_to_fix(client: Client) -> None:
    with pytest.raises(
        InvalidInput, match=r"`shoes` refused the request: This is no picture: 5 bytes came\."
    ) as caught:
        client.paint(b"hello")
    assert (caught.value.status, caught.value.model) == ("INVALID_ARGUMENT", "shoes")


def test_an_unknown_model_is_answered_with_those_of_the_kind(client: Client, png: bytes) -> None:
    with pytest.raises(ModelNotFound, match=r"no model `shoez`.*Did you mean `shoes`\?") as caught:
        client.paint(png, model="shoez")
    assert caught.value.available == ("birds", "busy", "fragile", "shoes")
    with pytest.raises(ModelNotFound) as caught:
        client.roundtrip(png, model="birds")
    assert caught.value.available == ("shoes_roundtrip",)


def test_a_model_of_another_kind_refuses_the_call(client: Client, png: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"unexpected inference (in|out)put"):
        client.paint(png, model="decode")


@pytest.mark.parametrize("fault", ["INTERNAL", "UNKNOWN", "ALREADY_EXISTS", "UNSUPPORTED"])
def test_a_fault_of_the_model_is_a_server_error(way: Any, client: Client, png: bytes, fault: str) -> None:
    with pytest.raises(ServerError, match="as asked") as caught:
        client.sketch(png, raise_error=fault)
    told_as_400 = way.protocol == "http" and fault in {"UNKNOWN", "ALREADY_EXISTS"}  # as is what the caller got wrong
    assert type(caught.value) is (InvalidInput if told_as_400 else ServerError)


def test_an_answer_that_is_no_picture_is_not_passed_on(client: Client, png: bytes) -> None:
    with pytest.raises(ResponseInvalid, match="is no PNG, JPEG, WEBP file"):
        client.sketch(png, answer_text="no picture")


def test_a_full_queue_is_overload(way: Any, endpoints: Endpoints, png: bytes) -> None:
    def paint(_: int) -> Exception | None:
        try:
            client.paint(png, model="busy")
        except Overloaded as exc:
            return exc
        return None

    with way.connect(endpoints, retry=NEVER) as client, ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(paint, range(6)))
    overloaded = [outcome for outcome in outcomes if outcome]
    assert overloaded
    assert len(overloaded) < 6
    assert "Exceeds maximum queue size. Try again later." in str(overloaded[0])


def test_a_model_whose_process_died_is_not_ready(client: Client, png: bytes) -> None:
    with pytest.raises(ModelNotReady, match="is not healthy"):
        client.paint(png, model="fragile", timeout_s=2)
    assert client.paint(png).format == "png"  # the others go on


def test_a_timeout_has_three_states(way: Any, endpoints: Endpoints, png: bytes) -> None:
    with way.connect(endpoints, timeout_s=0.1) as client:
        with pytest.raises(RequestTimeout, match=r"within 0\.1 s"):
            client.sketch(png, sleep_s=0.3)
        assert client.sketch(png, sleep_s=0.2, timeout_s=None).format == "png"
        assert client.sketch(png, sleep_s=0.2, timeout_s=20).format == "png"
    with way.connect(endpoints) as patient, pytest.raises(RequestTimeout, match=r"within 0\.2 s"):
        patient.sketch(png, sleep_s=0.4, timeout_s=0.2)


def test_threads_may_share_a_client(client: Client) -> None:
    def paint(shade: int) -> bool:
        array = np.full((8, 8, 3), shade, np.uint8)
        return bool((client.paint(array).array == shade).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(paint, range(40)))


def test_models_are_listed_by_name_with_what_they_are_for(client: Client) -> None:
    kinds = {model.name: model.kind for model in client.models()}
    assert list(kinds) == sorted(kinds)
    assert kinds == {
        "birds": ModelKind.PAINTER,
        "busy": ModelKind.PAINTER,
        "decode": ModelKind.BUILDING_BLOCK,
        "encode": ModelKind.BUILDING_BLOCK,
        "fragile": ModelKind.PAINTER,
        "shoes": ModelKind.PAINTER,
        "shoes_generator": ModelKind.GENERATOR,
        "shoes_roundtrip": ModelKind.ROUNDTRIP,
        "sketch": ModelKind.SKETCHER,
        "weather": ModelKind.UNKNOWN,
    }
    assert all(model.ready and model.versions == ("1",) and not model.reason for model in client.models())


def test_the_server_and_each_model_say_whether_they_are_ready(client: Client) -> None:
    assert client.live()
    assert client.ready()
    assert client.ready("shoes")
    assert not client.ready("shoez")


def test_a_client_made_before_its_server_finds_it_once_it_is_up(closed_port: int) -> None:
    class Live(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ServerLive(self, *_: Any) -> Any:  # noqa: N802  gRPC's name
            return service_pb2.ServerLiveResponse(live=True)

    url = f"127.0.0.1:{closed_port}"
    with Client(url) as client:
        assert not client.live()
        with serving_grpc(Live(), workers=1, address=url):
            wait_until(client.live, within_s=20)


def test_a_list_is_sent_in_batches_and_comes_back_in_its_order(client: Client) -> None:
    shades = list(range(0, 200, 10))
    painted = client.paint([np.full((8, 8), shade, np.uint8) for shade in shades])
    assert [int(one.array[0, 0, 0]) for one in painted] == shades
    assert [notes(one)["batch"] for one in painted] == ["8"] * 16 + ["4"] * 4  # the model's max_batch_size is 8


def test_an_array_of_four_axes_is_a_batch_and_an_empty_list_is_one_too(client: Client) -> None:
    batch = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal([one.array for one in client.sketch(batch)], batch)
    assert client.paint([]) == []
    (both,) = client.roundtrip([batch[0]])
    np.testing.assert_array_equal(both.photo.array, batch[0])


def test_one_bad_picture_of_a_batch_is_reported_alone(client: Client, png: bytes) -> None:
    with pytest.raises(BatchFailed) as caught:
        client.paint([png, b"no picture", png, np.zeros((2, 2), np.float64), png])
    assert sorted(caught.value.errors) == [1, 3]
    assert type(caught.value.errors[1]) is InvalidInput
    assert type(caught.value.errors[3]) is InvalidArgument
    assert [one is None for one in caught.value.results] == [False, True, False, True, False]


def test_bgr_arrays_arrive_as_rgb(client: Client, drawing: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(client.paint(drawing[:, :, ::-1], bgr=True).array, drawing)


def test_any_model_takes_arrays_and_gives_arrays(client: Client, png: bytes, drawing: NDArray[np.uint8]) -> None:
    answer = client.infer("shoes", {"sketch": np.array([[png]], dtype=object)}, parameters={"quality": 3})
    assert (answer.model, answer.model_version, list(answer.outputs)) == ("shoes", "1", ["photo", "timings"])
    with Image.open(io.BytesIO(answer["photo"].item())) as image:
        assert json.loads(str(image.info["parameters"])) == {"quality": 3}
        np.testing.assert_array_equal(np.array(image), drawing)
    with pytest.raises(KeyError, match="there are \\['photo', 'timings'\\]"):
        answer["foto"]


def test_a_model_tells_what_it_takes_and_gives(client: Client) -> None:
    details = client.model("shoes")
    assert (details.name, details.versions, details.kind, details.ready) == ("shoes", ("1",), ModelKind.PAINTER, True)
    assert details.max_batch_size == 8
    assert [(one.name, one.datatype, one.shape) for one in details.inputs] == [("sketch", "BYTES", (-1, 1))]
    assert [one.name for one in details.outputs] == ["photo", "timings"]
    with pytest.raises(ModelNotFound, match=r"Did you mean `shoes`\?"):
        client.model("shoez")


def test_what_the_server_has_counted_grows_with_each_call(client: Client, png: bytes) -> None:
    (before,) = client.stats("birds")
    client.paint([png, png, png], model="birds")
    (after,) = client.stats("birds")
    while after.requests == before.requests:  # Triton answers first and counts then
        (after,) = client.stats("birds")
    assert (after.name, after.version) == ("birds", "1")
    assert after.requests == before.requests + 1
    assert after.inferences == before.inferences + 3
    assert after.total_s > 0
    assert {one.name for one in client.stats()} >= {"birds", "shoes", "sketch"}


def test_timings_say_how_long_it_took_and_how_often_it_was_sent(client: Client, png: bytes) -> None:
    timings = client.sketch(png, sleep_s=0.2).timings
    assert timings.attempts == 1
    assert timings.total_s > 0.2
    assert 0 <= timings.client_s < timings.total_s
    assert timings.steps == (StepTimings("decode", None, 0.0001), StepTimings("encode", 0.00002, 0.2))
    assert math.isclose(sum((timings.client_s, timings.network_s, timings.queue_s, timings.compute_s)), timings.total_s)


def test_arrays_have_the_timings_of_the_steps_too(client: Client, png: bytes) -> None:
    answer = client.infer("shoes", {"sketch": np.array([[png]], dtype=object)}, outputs=["photo", "timings"])
    assert [step.model for step in answer.timings.steps] == ["decode", "encode"]


def test_a_model_that_tells_no_timings_paints_all_the_same_and_is_asked_for_them_once(
    client: Client, png: bytes
) -> None:
    assert [client.paint(png, model="birds").timings.attempts for _ in range(3)] == [2, 1, 1]
    assert client.paint(png, model="birds").timings.steps == ()
    assert client.paint(png, model="shoes").timings.steps  # others are asked still


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "7", '[{"model": "a"}]', '[{"model": 1, "queue_us": 0, "compute_us": 0}]']
)
def test_timings_that_cannot_be_read_do_not_take_the_picture_with_them(client: Client, png: bytes, text: str) -> None:
    photo = client.sketch(png, timings_text=text)
    assert (photo.pil.size, photo.timings.steps) == ((64, 48), ())
