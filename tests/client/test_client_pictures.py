from __future__ import annotations

import base64
import io
import math
import pickle
import stat
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.formats import FORMATS, OutputFormat, format_of_bytes
from sketchbridge_client.pictures import Picture, Roundtrip
from sketchbridge_client.timings import Timings

TIMINGS = Timings(total_s=0.25, client_s=0.05, attempts=1)
SECONDS = st.floats(0, 1e6)


def picture(data: bytes, output_format: OutputFormat = "png") -> Picture:
    return Picture(data, output_format, model="shoes", model_version="1", request_id="abc", timings=TIMINGS)


def encoded(array: NDArray[np.uint8], output_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=output_format)
    return buffer.getvalue()


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_each_format_is_known_by_what_pillow_writes(drawing: NDArray[np.uint8], known: object) -> None:
    assert format_of_bytes(encoded(drawing, known.name)) is known  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [b"", b"BM", b"RIFF", b"RIFF\0\0\0\0WAVE", b"GIF89a", b"\x89PNG", b"\xff\xd8"])
def test_anything_else_is_of_no_format(data: bytes) -> None:
    assert format_of_bytes(data) is None


def test_the_array_is_rgb_as_it_was(png: bytes, drawing: NDArray[np.uint8]) -> None:
    array = picture(png).array
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, drawing)


def test_the_array_belongs_to_the_caller(png: bytes, drawing: NDArray[np.uint8]) -> None:
    made = picture(png)
    made.array[:] = 0
    np.testing.assert_array_equal(made.array, drawing)


def test_a_gray_png_has_three_channels_too(drawing: NDArray[np.uint8]) -> None:
    gray = drawing[:, :, 0]
    np.testing.assert_array_equal(picture(encoded(gray, "png")).array, np.stack([gray] * 3, axis=2))


def test_the_pillow_image_outlives_the_picture(png: bytes, drawing: NDArray[np.uint8]) -> None:
    image = picture(png).pil
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.array(image), drawing)


@pytest.mark.parametrize(
    ("output_format", "name"), [("png", "a.png"), ("jpeg", "a.jpg"), ("jpeg", "a.JPEG"), ("webp", "a.webp")]
)
def test_saving_in_the_format_that_came_writes_the_very_bytes(
    tmp_path: Path, drawing: NDArray[np.uint8], output_format: OutputFormat, name: str
) -> None:
    data = encoded(drawing, output_format)
    assert picture(data, output_format).save(tmp_path / name) == tmp_path / name
    assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize(("name", "output_format"), [("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_another_suffix_encodes_anew(tmp_path: Path, name: str, output_format: str) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3)).copy()
    saved = picture(encoded(ramp, "png")).save(str(tmp_path / name))
    with Image.open(saved) as image:
        assert image.format == output_format
        assert np.abs(np.array(image.convert("RGB")).astype(int) - ramp).max() <= 3  # gray levels


def test_a_jpeg_saved_as_png_keeps_its_pixels(tmp_path: Path, drawing: NDArray[np.uint8]) -> None:
    made = picture(encoded(drawing, "jpeg"), "jpeg")
    with Image.open(made.save(tmp_path / "a.png")) as image:
        np.testing.assert_array_equal(np.array(image), made.array)


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.bak"])
def test_a_suffix_that_names_no_format_is_refused(tmp_path: Path, png: bytes, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"its format is not known. Use one of .png, .jpg"):
        picture(png).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_made(tmp_path: Path, png: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"There is no folder .* Make it first."):
        picture(png).save(tmp_path / "photos" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_the_file_whole_and_leaves_nothing_beside(tmp_path: Path, png: bytes) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        picture(png).save(target)
        assert reader.read() == b"old"  # who had the old file open still has it whole
    assert target.read_bytes() == png
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png"):
        picture(png).save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_saved_file_has_the_rights_of_any_new_file(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "other").touch()
    saved = picture(png).save(tmp_path / "a.png")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def shown(thing: Any) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(thing._repr_mimebundle_()["image/png"], validate=True))) as image:
        return np.array(image)


@pytest.mark.parametrize("output_format", ["png", "jpeg"])
def test_a_notebook_is_shown_the_very_bytes(drawing: NDArray[np.uint8], output_format: OutputFormat) -> None:
    made = picture(encoded(drawing, output_format), output_format)
    bundle = made._repr_mimebundle_()
    assert set(bundle) == {f"image/{output_format}", "text/plain"}
    assert base64.b64decode(bundle[f"image/{output_format}"], validate=True) == made.bytes
    assert bundle["text/plain"] == repr(made)


def test_a_notebook_is_shown_a_webp_as_png_since_not_all_know_webp(drawing: NDArray[np.uint8]) -> None:
    made = picture(encoded(drawing, "webp"), "webp")
    assert set(made._repr_mimebundle_()) == {"image/png", "text/plain"}
    np.testing.assert_array_equal(shown(made), made.array)


def test_a_notebook_gets_only_what_it_asks_for(png: bytes) -> None:
    for thing in (picture(png), Roundtrip(picture(png), picture(png))):
        assert set(thing._repr_mimebundle_(include={"text/plain"})) == {"text/plain"}
        assert set(thing._repr_mimebundle_(exclude={"text/plain"})) == {"image/png"}
        assert thing._repr_mimebundle_(include={"image/png"}, exclude={"image/png"}) == {}


def test_the_repr_has_size_and_format_and_no_pixels(png: bytes) -> None:
    assert repr(picture(png)) == (
        f"Picture(64x48 png, {len(png):,} bytes, model='shoes', model_version='1', request_id='abc', elapsed_s=0.25)"
    )


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_the_repr_of_bytes_that_are_no_picture_says_so_and_does_not_fail(data: bytes) -> None:
    assert repr(picture(data)).startswith(f"Picture(unreadable png, {len(data)} bytes, ")


def test_a_notebook_is_shown_a_roundtrip_with_the_sketch_on_the_left() -> None:
    both = Roundtrip(
        sketch=picture(encoded(np.full((40, 30, 3), 10, np.uint8), "png")),
        photo=picture(encoded(np.full((40, 50, 3), 200, np.uint8), "png")),
    )
    side_by_side = shown(both)
    assert side_by_side.shape == (40, 30 + 8 + 50, 4)
    np.testing.assert_array_equal(side_by_side[:, :30], np.broadcast_to([10, 10, 10, 255], (40, 30, 4)))
    np.testing.assert_array_equal(side_by_side[:, 30:38, 3], 0)  # the page shows through the gap
    np.testing.assert_array_equal(side_by_side[:, 38:], np.broadcast_to([200, 200, 200, 255], (40, 50, 4)))
    assert both._repr_mimebundle_()["text/plain"] == repr(both)


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ((100, 200), (50, 50), (50, 100 + 8 + 50)),  # (height, width): the higher one is scaled down
        ((50, 50), (100, 200), (50, 50 + 8 + 100)),
        ((1024, 1024), (2048, 1024), (512, 512 + 8 + 256)),  # and neither is shown higher than 512
        ((1000, 1), (10, 10), (10, 1 + 8 + 10)),
    ],
)
def test_both_pictures_of_a_roundtrip_are_shown_at_one_height(
    left: tuple[int, int], right: tuple[int, int], joined: tuple[int, int]
) -> None:
    sketch, photo = (picture(encoded(np.zeros((*size, 3), np.uint8), "png")) for size in (left, right))
    assert shown(Roundtrip(sketch, photo)).shape[:2] == joined


def test_the_elapsed_time_is_the_total_of_the_timings(png: bytes) -> None:
    assert picture(png).elapsed_s == TIMINGS.total_s


def test_what_this_side_did_not_take_is_the_network() -> None:
    assert Timings(1.0, 0.25, 1).network_s == 0.75


@given(SECONDS, SECONDS)
def test_the_network_is_never_below_nothing_and_never_more_than_all(total_s: float, client_s: float) -> None:
    timings = Timings(total_s, client_s, 1)
    assert 0 <= timings.network_s <= total_s
    if client_s <= total_s:
        assert math.isclose(client_s + timings.network_s, total_s, abs_tol=1e-9)


def test_a_picture_and_its_timings_cannot_be_changed(png: bytes) -> None:
    made = picture(png)
    for thing, name in ((made, "timings"), (made, "elapsed_s"), (made.timings, "total_s")):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(thing, name, None)


def test_a_picture_survives_a_process_boundary(png: bytes) -> None:
    assert pickle.loads(pickle.dumps(picture(png))) == picture(png)  # noqa: S301  our own bytes


def test_a_roundtrip_saves_both_pictures_in_a_folder_it_makes(
    tmp_path: Path, png: bytes, drawing: NDArray[np.uint8]
) -> None:
    both = Roundtrip(sketch=picture(png), photo=picture(encoded(drawing, "jpeg"), "jpeg"))
    sketch, photo = both.save(tmp_path / "out", stem="boot")
    assert (sketch, photo) == (tmp_path / "out" / "boot_sketch.png", tmp_path / "out" / "boot_photo.jpg")
    assert sketch.read_bytes() == both.sketch.bytes
    assert photo.read_bytes() == both.photo.bytes
    both.save(tmp_path / "out")  # a folder that is there is used


def test_a_roundtrip_makes_no_more_than_one_folder(tmp_path: Path, png: bytes) -> None:
    with pytest.raises(InvalidArgument, match="There is no folder"):
        Roundtrip(picture(png), picture(png)).save(tmp_path / "no" / "out")
