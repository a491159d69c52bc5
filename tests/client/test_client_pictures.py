from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client import InvalidArgument, Picture, Roundtrip
from sketchbridge_client.formats import FORMATS, OutputFormat, format_of_bytes


def picture(data: bytes, output_format: OutputFormat = "png") -> Picture:
    return Picture(data, output_format, model="shoes", model_version="1", request_id="abc", elapsed_s=0.25)


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


def test_a_notebook_is_shown_the_picture(png: bytes, drawing: NDArray[np.uint8]) -> None:
    jpeg = encoded(drawing, "jpeg")
    assert picture(png)._repr_png_() == png
    assert format_of_bytes(picture(jpeg, "jpeg")._repr_png_()) is FORMATS[0]


def test_the_repr_has_no_pixels(png: bytes) -> None:
    assert repr(picture(png)) == (
        "Picture(format='png', model='shoes', model_version='1', request_id='abc', elapsed_s=0.25)"
    )


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
