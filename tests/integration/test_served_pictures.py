"""Every picture the server gives is the picture the same steps give in one process."""

from __future__ import annotations

import base64
import io
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from PIL import Image as Pillow

from sketchbridge_client import Client, InvalidInput, ModelKind
from sketchbridge_preprocess import SKETCH_METHODS, decode, encode
from sketchbridge_server import TritonServer
from tests.conftest import PHOTOS, SKETCHES
from tests.integration import in_process

pytestmark = pytest.mark.server


@pytest.mark.parametrize("method", sorted(SKETCH_METHODS))
def test_a_served_sketch_is_the_sketch_bit_for_bit(client: Client, photo: Path, method: str) -> None:
    assert np.array_equal(client.sketch(photo, method=method).array, in_process.draw(photo.read_bytes(), method=method))


def test_a_served_painting_is_the_painting_within_one_grey_level(client: Client, drawing: Path) -> None:
    served = client.paint(drawing, model="shoes").array
    assert in_process.largest_difference(served, in_process.paint("shoes", drawing.read_bytes())) <= 1


def test_a_round_trip_is_a_sketch_and_then_a_painting(client: Client, photo: Path) -> None:
    both = client.roundtrip(photo, model="shoes")
    data = photo.read_bytes()
    assert np.array_equal(both.sketch.array, in_process.draw(data))
    assert in_process.largest_difference(both.photo.array, in_process.repaint("shoes", data)) <= 1


def test_a_painting_depends_on_the_drawing(client: Client) -> None:
    paintings = [client.paint(path, model="shoes").array.astype(int) for path in SKETCHES]
    for first, second in itertools.pairwise(paintings):
        assert np.abs(first - second).mean() > 3


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "canny", "low_threshold": 10, "high_threshold": 60.5, "blur_sigma": 2},
        {"method": "xdog", "sigma": 2.0, "epsilon": 0.4},
        {"method": "dodge", "blur_sigma": 20},
        {"method": "laplacian", "max_side_px": 200},
    ],
    ids=lambda parameters: str(parameters["method"]),
)
def test_parameters_of_a_method_reach_it(client: Client, parameters: dict[str, Any]) -> None:
    data = PHOTOS[1].read_bytes()
    served = client.sketch(data, **parameters).array
    assert np.array_equal(served, in_process.draw(data, **parameters))
    assert not np.array_equal(served, client.sketch(data, method=parameters["method"]).array)


@pytest.mark.parametrize("parameters", [{"fit": "crop"}, {"fit": "stretch"}, {"normalise": "off"}], ids=str)
def test_parameters_of_an_ensemble_reach_its_steps(client: Client, parameters: dict[str, Any]) -> None:
    data = SKETCHES[3].read_bytes()
    served = client.paint(data, model="shoes", **parameters).array
    assert in_process.largest_difference(served, in_process.paint("shoes", data, **parameters)) <= 1
    assert not np.array_equal(served, client.paint(data, model="shoes").array)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_an_ensemble_answers_in_the_format_asked_for(client: Client, output_format: Any) -> None:
    answer = client.paint(SKETCHES[0], model="shoes", output_format=output_format, quality=80)
    assert (Pillow.open(io.BytesIO(answer.bytes)).format or "").lower() == answer.format == output_format


def test_models_are_listed_by_what_they_do(client: Client) -> None:
    kinds = {model.name: model.kind for model in client.models()}
    assert kinds["shoes"] is ModelKind.PAINTER
    assert kinds["shoes_roundtrip"] is ModelKind.ROUNDTRIP
    assert kinds["sketch"] is ModelKind.SKETCHER
    assert kinds["shoes_generator"] is ModelKind.GENERATOR
    assert kinds["decode"] is ModelKind.BUILDING_BLOCK
    assert all(model.ready for model in client.models())


def infer(server: TritonServer, model: str, name: str, tensor: Any, output: str, **options: Any) -> Any:
    """One raw request, by the library that everybody has."""
    with tritonclient.grpc.InferenceServerClient(server.endpoints.grpc_url) as raw:
        datatype = "BYTES" if tensor.dtype == object else "UINT8"
        picture = tritonclient.grpc.InferInput(name, list(tensor.shape), datatype)
        picture.set_data_from_numpy(tensor)
        return raw.infer(model, [picture], **options).as_numpy(output)


def test_a_batch_is_answered_in_order_as_if_each_came_alone(server: TritonServer, client: Client) -> None:
    files = np.array([path.read_bytes() for path in SKETCHES], dtype=object)[:, None]
    together = infer(server, "shoes", "sketch", files, "photo")
    for path, data in zip(SKETCHES, together[:, 0], strict=True):
        alone = client.paint(path, model="shoes").array
        assert in_process.largest_difference(decode(data), alone) <= 1


def test_a_generator_takes_raw_arrays(server: TritonServer) -> None:
    sketches = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    painted = infer(server, "shoes_generator", "sketch", sketches, "photo")
    for sketch, photo in zip(sketches, painted, strict=True):
        assert in_process.largest_difference(photo, in_process.generate("shoes", sketch)) <= 1


def test_building_blocks_work_alone(server: TritonServer) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 30, 70, 3), np.uint8)
    encoded = infer(server, "encode", "image", image, "image_bytes")
    assert np.array_equal(decode(encoded[0, 0]), image[0])
    decoded = infer(server, "decode", "image_bytes", encoded, "image")
    assert decoded.shape == (1, 256, 256, 3)


def test_base64_goes_in_and_out(server: TritonServer, client: Client) -> None:
    text = np.array([[base64.b64encode(SKETCHES[0].read_bytes())]], dtype=object)
    answer = infer(server, "shoes", "sketch", text, "photo", parameters={"output_encoding": "base64"})
    photo = base64.b64decode(answer[0, 0], validate=True)
    assert in_process.largest_difference(decode(photo), client.paint(SKETCHES[0], model="shoes").array) <= 1


def test_many_callers_at_once_each_get_their_own_picture_and_one_bad_one_fails_alone(client: Client) -> None:
    expected = {path: client.paint(path, model="shoes").array for path in SKETCHES}
    calls: list[Path | bytes] = [*SKETCHES, b"not a picture", *SKETCHES, SKETCHES[0].read_bytes()[:500], *SKETCHES]

    def call(sketch: Path | bytes) -> Any:
        try:
            return client.paint(sketch, model="shoes").array
        except InvalidInput as exc:
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(call, calls))
    for sketch, answer in zip(calls, answers, strict=True):
        if isinstance(sketch, Path):
            assert in_process.largest_difference(answer, expected[sketch]) <= 1
        else:
            assert isinstance(answer, InvalidInput)


def test_a_bad_picture_in_one_batch_is_named_by_its_place(server: TritonServer) -> None:
    good = encode(np.full((20, 20, 3), 255, np.uint8))
    batch = np.array([good, good, b"oops, no picture here"], dtype=object)[:, None]
    with pytest.raises(tritonclient.grpc.InferenceServerException, match=r"Picture 2 of 3 \(from 0\): This is text"):
        infer(server, "shoes", "sketch", batch, "photo")
