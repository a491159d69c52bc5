from __future__ import annotations

import base64
import io
import os
import re
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client.errors import InvalidArgument, ServerError
from sketchbridge_client.inputs import MAX_IMAGE_BYTES, check_array_of_pictures, encoded_bytes
from sketchbridge_client.pictures import Picture
from sketchbridge_client.timings import Timings


def decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.array(image)


def refusal_of(picture: Any, name: str = "sketch", *, bgr: bool = False) -> str:
    with pytest.raises(InvalidArgument) as caught:
        encoded_bytes(picture, name=name, bgr=bgr)
    return str(caught.value)


class PartsFile:
    """A file that gives these parts, one for each read, whatever was asked for."""

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)
        self.asked: list[int] = []

    def read(self, size: int, /) -> Any:
        self.asked.append(size)
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, BaseException):
            raise part
        return part


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are_whatever_holds_them(wrap: Any) -> None:
    assert encoded_bytes(wrap(b"anything at all"), name="sketch") == b"anything at all"


@pytest.mark.parametrize("wrap", [str, Path])
def test_a_file_is_sent_as_it_is(tmp_path: Path, wrap: Any) -> None:
    (tmp_path / "a file.bin").write_bytes(b"anything at all")
    assert encoded_bytes(wrap(tmp_path / "a file.bin"), name="sketch") == b"anything at all"


def test_a_file_without_an_end_is_read_no_further_than_a_picture_may_be() -> None:
    assert f"has {MAX_IMAGE_BYTES + 1:,} bytes; at most {MAX_IMAGE_BYTES:,} are taken" in refusal_of("/dev/zero")


def test_a_picture_that_came_back_can_be_sent_on(png: bytes) -> None:
    assert encoded_bytes(Picture(png, "png", "sketch", "1", "id", Timings(0.1, 0, 1)), name="sketch") == png


@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64), (1, 1), (1, 1, 3), (3, 5, 3)])
def test_an_array_loses_nothing(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encoded_bytes(array, name="sketch")), array)


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[:, :, ::-1]])
def test_a_view_of_an_array_loses_nothing_either(drawing: NDArray[np.uint8], view: Any) -> None:
    np.testing.assert_array_equal(decoded(encoded_bytes(drawing[view], name="sketch")), drawing[view])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "1", "P"])
def test_a_pillow_image_that_png_can_hold_loses_nothing(drawing: NDArray[np.uint8], mode: str) -> None:
    image = Image.fromarray(drawing).convert(mode)
    with Image.open(io.BytesIO(encoded_bytes(image, name="photo"))) as sent:
        np.testing.assert_array_equal(np.array(sent.convert("RGBA")), np.array(image.convert("RGBA")))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_a_pillow_image_of_another_colour_space_becomes_rgb(drawing: NDArray[np.uint8], mode: str) -> None:
    image = Image.fromarray(drawing).convert(mode)
    np.testing.assert_array_equal(decoded(encoded_bytes(image, name="photo")), np.array(image.convert("RGB")))


def test_a_pillow_image_is_turned_as_its_file_would_be_and_only_once(drawing: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned right by 90 degrees to be upright
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, format="png", exif=exif)
    with Image.open(buffer) as image, Image.open(io.BytesIO(encoded_bytes(image, name="photo"))) as sent:
        np.testing.assert_array_equal(np.array(sent), np.rot90(drawing, k=-1))
        assert 0x0112 not in sent.getexif()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_pillow_image_without_a_fixed_range_is_refused_with_what_to_do(mode: str) -> None:
    assert re.search(rf"mode {mode}.*convert", refusal_of(Image.new(mode, (4, 4))))


def test_a_pillow_image_that_png_cannot_hold_is_refused_with_what_to_do(drawing: NDArray[np.uint8]) -> None:
    file = io.BytesIO()
    Image.fromarray(drawing).convert("RGB").save(file, format="png", transparency=(1, 2, 3))
    channel = Image.open(file).getchannel(0)  # keeps the transparent colour, which fits three channels
    assert re.search(r"cannot be saved as PNG: \w+.*numpy.asarray", refusal_of(channel))
    assert encoded_bytes(np.asarray(channel), name="sketch")


def test_a_memoryview_that_was_released_is_refused(png: bytes) -> None:
    view, part = memoryview(png), memoryview(png)
    view.release()
    part.release()
    assert "was released" in refusal_of(view)
    assert "was released" in refusal_of(PartsFile(part))


def test_a_path_in_bytes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with os.scandir(os.fsencode(tmp_path)) as entries:
        assert re.search(r"posix.DirEntry with a path in bytes.*os.fsdecode", refusal_of(next(entries)))


def test_an_object_that_gives_no_path_is_refused() -> None:
    class Pathless:
        def __fspath__(self) -> str:
            raise RuntimeError("lost")

    assert "gives no path: RuntimeError: lost" in refusal_of(Pathless())


@pytest.mark.parametrize(
    ("array", "described", "advice"),
    [
        (np.zeros((256, 256, 3)), "(256, 256, 3) float64 in [0,1]", "Multiply by 255 and cast"),
        (np.array([[-1.0, 1.0]], np.float32), "(1, 2) float32 in [-1, 1]", "Shift, scale and cast"),
        (np.array([[0.0, 254.6]]), "(1, 2) float64 in [0, 254.6]", "Cast it"),
        (np.array([[0, 255]]), "(1, 2) int64 in [0, 255]", "Cast it"),
        (np.array([[0, 1]]), "(1, 2) int64 in [0, 1]", "Cast it"),
        (np.array([[-300.0, 300.0]]), "(1, 2) float64 in [-300, 300]", "Scale it to [0, 255]"),
        (np.array([[0, 65535]], np.uint16), "(1, 2) uint16 in [0, 65535]", "Scale it to [0, 255]"),
        (np.array([[0.0, np.nan]]), "(1, 2) float64", "not finite"),
        (np.array([[0.0, np.inf]]), "(1, 2) float64", "not finite"),
        (np.array([[True, False]]), "(1, 2) bool", "Multiply by 255 and cast"),
        (np.array([["a"]]), "(1, 1) <U1", "of numbers"),
        (np.array([[1]], "m8[s]"), "(1, 1) timedelta64[s]", "of numbers"),
        (np.array([["2024-01-01"]], "M8[D]"), "(1, 1) datetime64[D]", "of numbers"),
        (np.array([[1j]]), "(1, 1) complex128", "of numbers"),
        (np.array([[None]]), "(1, 1) object", "of numbers"),
        (np.zeros((3, 256, 256), np.uint8), "(3, 256, 256) uint8", "transpose(1, 2, 0)"),
        (np.zeros((1, 256, 256), np.uint8), "(1, 256, 256) uint8", "x[0]"),
        (np.zeros((256, 256, 1), np.uint8), "(256, 256, 1) uint8", "x[:, :, 0]"),
        (np.zeros((256, 256, 4), np.uint8), "(256, 256, 4) uint8", "Alpha"),
        (np.zeros((2, 256, 256, 3), np.uint8), "(2, 256, 256, 3) uint8", "pick one, `x[0]`"),
        (np.zeros((5,), np.uint8), "(5,) uint8", "Reshape"),
        (np.zeros((8, 256, 256), np.uint8), "(8, 256, 256) uint8", "gray pictures, give a list of them: `list(x)`"),
        (np.zeros((0, 256, 3), np.uint8), "(0, 256, 3) uint8", "no pixels"),
        (np.zeros((0, 256, 3)), "(0, 256, 3) float64", "no pixels"),
    ],
)
def test_an_array_that_is_no_picture_is_described_and_mended_in_words(
    array: NDArray[Any], described: str, advice: str
) -> None:
    message = refusal_of(array)
    assert message.startswith(f"`sketch` is {described}")
    assert "expected uint8 (H, W, 3) RGB or (H, W) gray" in message
    assert advice in message


def test_what_the_advice_says_makes_the_array_right() -> None:
    mended = (np.linspace(0, 1, 12).reshape(2, 2, 3) * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(decoded(encoded_bytes(mended, name="sketch")), mended)


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")])
def test_no_bytes_are_refused(empty: Any) -> None:
    assert refusal_of(empty) == "`sketch` is empty: 0 bytes. Give the bytes of a whole picture file."


def test_an_empty_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert "empty.png` is empty" in refusal_of(tmp_path / "empty.png")


def test_as_many_bytes_as_the_server_takes_pass_and_one_more_does_not() -> None:
    most = bytes(MAX_IMAGE_BYTES)
    assert encoded_bytes(most, name="sketch") == most
    assert "33,554,433 bytes; at most 33,554,432 are taken" in refusal_of(most + b"x")


def test_a_file_that_is_too_large_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no space, and reading it would take all memory
    assert "1,099,511,627,776 bytes" in refusal_of(tmp_path / "disk.img")


def test_a_missing_file_is_named() -> None:
    assert refusal_of("no such drawing.png") == "`sketch`: there is no file `no such drawing.png`."


def test_a_folder_is_named_as_one(tmp_path: Path) -> None:
    assert "is a folder" in refusal_of(tmp_path)


def test_a_web_address_is_not_taken_for_a_missing_file() -> None:
    assert "A web address is not fetched" in refusal_of("https://127.0.0.1/shoe.png")


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_in_a_string_is_told_from_a_path_and_not_printed_whole(png: bytes, prefix: str) -> None:
    message = refusal_of(prefix + base64.b64encode(png).decode())
    assert "decode base64" in message
    assert len(message) < 400


def test_a_path_with_a_null_byte_is_refused() -> None:
    assert "cannot be read" in refusal_of("shoe\0.png")


@pytest.mark.parametrize("thing", [None, 7, 1.5, ["shoe.png"], object()])
def test_anything_else_is_refused_by_its_type(thing: Any) -> None:
    assert type(thing).__qualname__ in refusal_of(thing)


@pytest.mark.parametrize("several", [(b"" for _ in range(2)), map(bytes, ()), iter([])])
def test_an_iterator_is_refused_with_the_advice_to_make_a_list(several: Any) -> None:
    assert "Give several pictures as a list: `list(...)`" in refusal_of(several)


def test_a_pillow_image_whose_file_is_cut_off_is_refused(png: bytes) -> None:
    with Image.open(io.BytesIO(png[: len(png) // 2])) as image:
        assert "`sketch` is a Pillow image that cannot be read: " in refusal_of(image)


def test_a_pillow_image_that_is_closed_is_refused(png: bytes) -> None:
    with Image.open(io.BytesIO(png)) as image:
        pass
    assert "`sketch` is a Pillow image that cannot be read: " in refusal_of(image)


def test_a_file_object_is_sent_as_it_is_and_stays_open(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "shoe.png").write_bytes(png)
    with (tmp_path / "shoe.png").open("rb") as file:
        assert encoded_bytes(file, name="sketch") == png
        assert not file.closed
        assert file.tell() == len(png)


def test_a_file_object_is_read_from_where_it_stands(png: bytes) -> None:
    file = io.BytesIO(b"header" + png)
    file.seek(6)
    assert encoded_bytes(file, name="sketch") == png


def test_a_temporary_file_that_passes_its_read_on_is_a_file_object(png: bytes) -> None:
    with tempfile.NamedTemporaryFile() as named, tempfile.SpooledTemporaryFile() as spooled:
        for file in (named, spooled):
            file.write(png)
            file.seek(0)
            assert encoded_bytes(file, name="sketch") == png


def test_a_member_of_a_zip_is_a_file_object(png: bytes) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("shoe.png", png)
    with zipfile.ZipFile(archive) as reader, reader.open("shoe.png") as member:
        assert encoded_bytes(member, name="sketch") == png


def test_a_pipe_is_read_to_its_end_though_it_gives_less_at_once(png: bytes) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(png), 1000):
                pipe.write(png[start : start + 1000])

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert encoded_bytes(pipe, name="sketch") == png
    writer.join()


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8))
def test_a_file_object_may_give_its_bytes_in_any_parts(parts: list[bytes]) -> None:
    assert encoded_bytes(PartsFile(*parts), name="sketch") == b"".join(parts)


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_a_file_object_may_give_its_bytes_in_any_holder(wrap: Any) -> None:
    assert encoded_bytes(PartsFile(wrap(b"any"), wrap(b"thing")), name="sketch") == b"anything"


def test_a_file_object_is_asked_for_no_more_than_can_be_taken() -> None:
    file = PartsFile(bytes(10), bytes(20))
    encoded_bytes(file, name="sketch")
    most = MAX_IMAGE_BYTES + 1
    assert file.asked == [most, most - 10, most - 30]


def test_a_file_object_without_an_end_is_read_no_further_than_a_picture_may_be() -> None:
    with Path("/dev/zero").open("rb") as file:
        assert "the file object has more than 33,554,432 bytes" in refusal_of(file)


def test_a_file_object_as_large_as_the_server_takes_passes() -> None:
    most = bytes(MAX_IMAGE_BYTES)
    assert encoded_bytes(io.BytesIO(most), name="sketch") == most


def test_a_file_object_that_was_written_and_not_rewound_is_refused_with_what_to_do(png: bytes) -> None:
    file = io.BytesIO()
    file.write(png)
    assert "`sketch`: the file object gave no bytes" in refusal_of(file)
    assert ".seek(0)" in refusal_of(file)


def test_a_file_open_for_text_is_refused(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "shoe.png").write_bytes(png)
    with (tmp_path / "shoe.png").open(encoding="utf-8") as no_text:
        assert 'open for text; a picture is bytes. Open it with the mode "rb"' in refusal_of(no_text)
    (tmp_path / "shoe.txt").write_text("a shoe")
    with (tmp_path / "shoe.txt").open() as text:
        assert 'Open it with the mode "rb"' in refusal_of(text)
    with tempfile.NamedTemporaryFile("w+") as wrapped:
        assert 'Open it with the mode "rb"' in refusal_of(wrapped)
    assert 'Open it with the mode "rb"' in refusal_of(io.StringIO("a shoe"))


def test_what_a_file_object_raises_becomes_our_error_with_its_reason(tmp_path: Path, png: bytes) -> None:
    closed = io.BytesIO(png)
    closed.close()
    message = refusal_of(closed)
    assert message == "`sketch`: the file object cannot be read: ValueError: I/O operation on closed file."
    with (tmp_path / "shoe.png").open("wb") as write_only:
        assert refusal_of(write_only).endswith("cannot be read: UnsupportedOperation: read.")
    assert refusal_of(PartsFile(b"half", RuntimeError("It is gone."))).endswith(
        "cannot be read: RuntimeError: It is gone."
    )
    assert refusal_of(PartsFile(EOFError())).endswith("cannot be read: EOFError.")
    assert refusal_of(PartsFile(ConnectionResetError(104, "Gone"))).endswith("cannot be read: Gone.")


def test_a_keyboard_interrupt_while_a_file_object_is_read_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        encoded_bytes(PartsFile(KeyboardInterrupt()), name="sketch")


@pytest.mark.parametrize(("part", "named"), [(None, "NoneType"), (7, "int"), ([1], "list")])
def test_a_file_object_that_gives_no_bytes_is_refused_by_what_it_gave(part: Any, named: str) -> None:
    assert f"gave a builtins.{named}; expected bytes" in refusal_of(PartsFile(b"half", part))


def test_a_bgr_array_is_sent_as_rgb_and_not_changed(drawing: NDArray[np.uint8]) -> None:
    bgr = drawing[:, :, ::-1].copy()
    kept = bgr.copy()
    np.testing.assert_array_equal(decoded(encoded_bytes(bgr, name="photo", bgr=True)), drawing)
    np.testing.assert_array_equal(bgr, kept)


def test_a_gray_array_is_the_same_in_bgr(drawing: NDArray[np.uint8]) -> None:
    gray = drawing[:, :, 0]
    np.testing.assert_array_equal(decoded(encoded_bytes(gray, name="photo", bgr=True)), gray)


def test_a_bgr_array_of_three_columns_keeps_its_columns() -> None:
    array = np.arange(45, dtype=np.uint8).reshape(5, 3, 3)
    np.testing.assert_array_equal(decoded(encoded_bytes(array, name="photo", bgr=True)), array[:, :, ::-1])
    np.testing.assert_array_equal(decoded(encoded_bytes(array[:, :, 0], name="photo", bgr=True)), array[:, :, 0])


def test_a_bgr_array_that_is_no_picture_is_refused_in_words_of_bgr() -> None:
    assert "expected uint8 (H, W, 3) BGR or (H, W) gray" in refusal_of(np.zeros((4, 4, 3)), bgr=True)


def test_bgr_is_never_quietly_ignored(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "shoe.png").write_bytes(png)
    made = Picture(png, "png", "sketch", "1", "id", Timings(0.1, 0, 1))
    with Image.open(io.BytesIO(png)) as image:
        for thing in (png, bytearray(png), tmp_path / "shoe.png", io.BytesIO(png), image, made, [png]):
            message = refusal_of(thing, bgr=True)
            assert f"`sketch` is a {type(thing).__module__}.{type(thing).__qualname__}" in message
            assert "Leave `bgr` out" in message


def test_a_file_object_that_is_refused_for_bgr_is_not_read(png: bytes) -> None:
    file = io.BytesIO(png)
    refusal_of(file, bgr=True)
    assert file.tell() == 0


@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (3, 3, 3, 3), (0, 4, 5, 3)])
def test_an_array_of_pictures_passes(shape: tuple[int, ...]) -> None:
    check_array_of_pictures(np.zeros(shape, np.uint8), name="sketch")


@pytest.mark.parametrize(
    ("array", "described", "advice"),
    [
        (np.zeros((2, 4, 5, 3)), "(2, 4, 5, 3) float64 in [0,1]", "Multiply by 255 and cast"),
        (np.zeros((2, 3, 4, 5), np.uint8), "(2, 3, 4, 5) uint8", "x.transpose(0, 2, 3, 1)"),
        (np.zeros((2, 4, 5, 1), np.uint8), "(2, 4, 5, 1) uint8", "list(x[..., 0])"),
        (np.zeros((2, 1, 4, 5), np.uint8), "(2, 1, 4, 5) uint8", "list(x[:, 0])"),
        (np.zeros((2, 4, 5, 4), np.uint8), "(2, 4, 5, 4) uint8", "x[..., :3]"),
        (np.zeros((2, 4, 5, 7), np.uint8), "(2, 4, 5, 7) uint8", "Reshape it"),
        (np.zeros((2, 0, 5, 3), np.uint8), "(2, 0, 5, 3) uint8", "no pixels"),
        (np.zeros((2, 0, 5, 3)), "(2, 0, 5, 3) float64", "no pixels"),
    ],
)
def test_an_array_that_is_no_pictures_is_described_and_mended_in_words(
    array: NDArray[Any], described: str, advice: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_array_of_pictures(array, name="sketch")
    message = str(caught.value)
    assert message.startswith(f"`sketch` is {described}")
    assert "expected uint8 (N, H, W, 3)" in message
    assert advice in message


def test_the_message_names_the_argument_as_the_caller_knows_it() -> None:
    assert refusal_of(b"", name="photo").startswith("`photo` is empty")


def test_what_is_refused_here_is_a_value_error_and_no_answer_of_a_server() -> None:
    with pytest.raises(ValueError, match="empty") as caught:
        encoded_bytes(b"", name="sketch")
    assert not isinstance(caught.value, ServerError)
