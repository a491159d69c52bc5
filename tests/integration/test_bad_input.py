"""What the real server says to what it can't take, and that it goes on serving."""

from __future__ import annotations

import http.client
import io
import json
import struct
import urllib.parse
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from sketchbridge_client import Client, InvalidArgument, InvalidInput
from sketchbridge_loadtest.hostile import HOSTILE_FILES, animated_gif, cmyk_jpeg
from sketchbridge_preprocess import decode
from sketchbridge_server import TritonServer
from tests.conftest import PHOTOS, SKETCHES
from tests.integration import in_process

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", [name for name, hostile in HOSTILE_FILES.items() if hostile.words])
def test_each_bad_file_gets_its_own_clear_error_and_the_next_call_is_answered(client: Client, name: str) -> None:
    hostile = HOSTILE_FILES[name]
    data = hostile.make()
    refusal = InvalidInput if data else InvalidArgument
    with pytest.raises(refusal, match=hostile.words):
        client.paint(data, model="shoes")
    with pytest.raises(refusal, match=hostile.words):
        client.sketch(data)
    assert client.paint(SKETCHES[0], model="shoes").array.shape == (256, 256, 3)


def test_empty_bytes_that_reach_the_server_are_refused_there_too(server: TritonServer) -> None:
    status, answer = post_binary(server, "sketch", b"")
    assert status == 400
    assert "empty: 0 bytes" in answer


def test_two_hundred_megabytes_are_refused_by_the_sdk_and_by_the_server(server: TritonServer, client: Client) -> None:
    zeros = bytes(200_000_000)
    with pytest.raises(InvalidArgument, match="200,000,000"):
        client.paint(zeros, model="shoes")
    status, answer = post_binary(server, "sketch", zeros)
    assert status == 400
    assert "200,000,000 bytes; at most 33,554,432" in answer
    assert client.sketch(PHOTOS[0]).array.ndim == 3


def test_a_cmyk_jpeg_is_taken_as_its_colours(client: Client) -> None:
    data = cmyk_jpeg()
    rgb = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data) - rgb).mean() < 6
    assert np.array_equal(client.sketch(data).array, in_process.draw(data))


def test_an_animated_gif_is_refused_with_what_to_send_instead(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"GIF, which is not read\. Send PNG, JPEG, WebP or BMP"):
        client.paint(animated_gif(), model="shoes")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"method": "pencil"}, "expected one of canny, laplacian, dodge, xdog"),
        ({"low_threshold": -5}, "`low_threshold` is -5"),
        ({"colour": "red"}, "no option `colour`"),
        ({"method": "dodge", "sigma": 1}, "`dodge` has no parameter `sigma`"),
        ({"quality": 0}, "`quality` is 0"),
    ],
)
def test_wrong_parameters_are_the_callers_fault_and_named(
    client: Client, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        client.sketch(PHOTOS[0], **parameters)


def post_binary(server: TritonServer, model: str, data: bytes) -> tuple[int, str]:
    """One request with a JSON head and binary tensors behind it (Triton's binary data extension), by plain HTTP."""
    tensor = struct.pack("<I", len(data)) + data
    tensors = [{"name": "photo", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensor)}}]
    head = json.dumps({"inputs": tensors}).encode()
    endpoint = urllib.parse.urlsplit(server.endpoints.http_url)
    connection = http.client.HTTPConnection(endpoint.hostname or "", endpoint.port, timeout=60)
    with closing(connection):
        headers = {"Inference-Header-Content-Length": str(len(head))}
        connection.request("POST", f"/v2/models/{model}/infer", head + tensor, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
