from __future__ import annotations

import io
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sketchbridge_client.batches import MAX_CHUNK_BYTES, batch_failed, chunks, encode_batch, is_batch
from sketchbridge_client.errors import BatchFailed, InvalidArgument, Overloaded, ServerError, SketchbridgeError
from sketchbridge_client.inputs import MAX_IMAGE_BYTES
from sketchbridge_client.pictures import Picture
from sketchbridge_client.timings import Timings

SIZES = st.lists(st.integers(0, 100), max_size=30)


def decoded(data: bytes | None) -> NDArray[np.uint8]:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def made(data: bytes) -> Picture:
    return Picture(data, "png", "shoes", "1", "id", Timings(0.1, 0, 1))


@pytest.mark.parametrize(
    "value",
    [[], (), [b"png"], ("a.png", Path("b.png")), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3)), [None]],
)
def test_a_list_a_tuple_and_an_array_of_four_axes_are_batches(value: Any) -> None:
    assert is_batch(value)


@pytest.mark.parametrize(
    "value",
    [
        "shoe.png",
        b"png",
        bytearray(b"png"),
        memoryview(b"png"),
        Path("shoe.png"),
        io.BytesIO(b"png"),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        Image.new("L", (4, 4)),
        made(b"png"),
        (b"png" for _ in range(2)),
        {"shoe.png"},
        {"shoe.png": 1},
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_picture_and_anything_without_an_order_or_a_length_is_no_batch(value: Any) -> None:
    assert not is_batch(value)


def test_each_picture_is_encoded_as_it_would_be_alone(tmp_path: Path, png: bytes, drawing: NDArray[np.uint8]) -> None:
    (tmp_path / "shoe.png").write_bytes(png)
    pictures = (tmp_path / "shoe.png", png, io.BytesIO(png), made(png), drawing, Image.fromarray(drawing))
    encoded, errors = encode_batch(pictures, name="sketch")
    assert errors == {}
    assert encoded[:4] == [png] * 4
    for data in encoded[4:]:
        np.testing.assert_array_equal(decoded(data), drawing)


def test_an_array_is_a_batch_along_its_first_axis() -> None:
    array = np.random.default_rng(3).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    for bgr in (False, True):
        encoded, errors = encode_batch(array, name="sketch", bgr=bgr)
        assert errors == {}
        sent = np.stack([decoded(data) for data in encoded])
        np.testing.assert_array_equal(sent, array[..., ::-1] if bgr else array)


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 4, 4, 3), np.uint8)])
def test_an_empty_batch_stays_empty(empty: Any) -> None:
    assert encode_batch(empty, name="sketch") == ([], {})


@given(st.lists(st.sampled_from([b"good", b"", None, "no such file.png", 7]), max_size=12))
def test_every_picture_is_either_encoded_or_has_its_error_under_its_index(pictures: list[Any]) -> None:
    encoded, errors = encode_batch(pictures, name="photo")
    assert len(encoded) == len(pictures)
    for index, picture in enumerate(pictures):
        assert (encoded[index] is None) == (index in errors) == (picture != b"good")
    for index, error in errors.items():
        assert isinstance(error, InvalidArgument)
        assert f"`photo[{index}]`" in str(error)


def test_bgr_refuses_only_the_pictures_that_are_no_arrays(png: bytes, drawing: NDArray[np.uint8]) -> None:
    encoded, errors = encode_batch([png, drawing[:, :, ::-1]], name="photo", bgr=True)
    assert list(errors) == [0]
    np.testing.assert_array_equal(decoded(encoded[1]), drawing)


def test_a_list_in_a_list_is_no_picture(png: bytes) -> None:
    _, errors = encode_batch([png, [png]], name="photo")  # type: ignore[list-item]
    assert "`photo[1]` is a builtins.list" in str(errors[1])


def test_a_file_object_that_stands_in_a_list_twice_is_empty_the_second_time(png: bytes) -> None:
    file = io.BytesIO(png)
    encoded, errors = encode_batch([file, file], name="photo")
    assert encoded == [png, None]
    assert "`photo[1]`: the file object gave no bytes" in str(errors[1])


@pytest.mark.parametrize("pictures", [(b"png" for _ in range(2)), {b"png"}, map(bytes, ())])
def test_what_has_no_order_or_no_length_is_refused_with_the_advice_to_make_a_list(pictures: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`sketch` is a builtins\.\w+; .*`list\(\.\.\.\)`"):
        encode_batch(pictures, name="sketch")


def test_an_array_of_the_wrong_dtype_is_refused_once_and_not_for_each_picture() -> None:
    with pytest.raises(InvalidArgument, match=r"`sketch` is \(9, 4, 4, 3\) float64 .* Multiply by 255 and cast"):
        encode_batch(np.zeros((9, 4, 4, 3)), name="sketch")  # type: ignore[arg-type]


@given(SIZES, st.integers(1, 8), st.integers(0, 250))
def test_chunks_keep_every_index_in_order_and_within_both_limits(sizes: list[int], size: int, max_bytes: int) -> None:
    cut = chunks(range(len(sizes)), size, sizes_bytes=sizes, max_bytes=max_bytes)
    assert [index for chunk in cut for index in chunk] == list(range(len(sizes)))
    for chunk in cut:
        assert 1 <= len(chunk) <= size
        assert len(chunk) == 1 or sum(sizes[index] for index in chunk) <= max_bytes


@given(SIZES, st.integers(1, 8), st.integers(0, 250))
def test_no_chunk_could_have_taken_the_next_picture_too(sizes: list[int], size: int, max_bytes: int) -> None:
    cut = chunks(range(len(sizes)), size, sizes_bytes=sizes, max_bytes=max_bytes)
    for chunk, following in pairwise(cut):
        together = [sizes[index] for index in (*chunk, following[0])]
        assert len(together) > size or sum(together) > max_bytes


def test_chunks_take_any_indices_and_the_sizes_of_just_those() -> None:
    assert chunks([7, 2, 5], 2, sizes_bytes={2: 1, 5: 1, 7: 1}) == [[7, 2], [5]]
    assert chunks((), 2, sizes_bytes=[]) == []


def test_the_bytes_of_a_chunk_leave_room_in_a_message_and_hold_the_largest_picture() -> None:
    assert MAX_IMAGE_BYTES < MAX_CHUNK_BYTES < 2 * MAX_IMAGE_BYTES
    assert chunks(range(3), 8, sizes_bytes=[MAX_IMAGE_BYTES] * 3) == [[0], [1], [2]]


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_of_no_pictures_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument, match="at least 1 picture"):
        chunks([0], size, sizes_bytes=[1])


def test_a_failed_batch_keeps_what_came_and_names_what_failed() -> None:
    error = batch_failed(["a", None, "c"], {1: InvalidArgument("`sketch[1]` is empty.")})
    assert error.results == ("a", None, "c")
    assert list(error.errors) == [1]
    assert str(error) == (
        "1 of 3 pictures failed: [1] `sketch[1]` is empty. `.results` has the others, None where one failed; "
        "`.errors` has each error by its index."
    )


def test_a_failed_batch_names_the_first_three_by_their_index() -> None:
    errors: dict[int, SketchbridgeError] = {index: ServerError(f"reason {index}.") for index in (9, 0, 4, 2)}
    error = batch_failed([None] * 10, errors)
    assert str(error).startswith("4 of 10 pictures failed: [0] reason 0. [2] reason 2. [4] reason 4. and 1 more. ")
    assert "reason 9" not in str(error)
    assert list(error.errors) == [0, 2, 4, 9]


def test_a_batch_of_which_nothing_came_promises_no_results() -> None:
    assert str(batch_failed([None], {0: ServerError("It broke.")})) == (
        "1 of 1 picture failed: [0] It broke. `.errors` has each error by its index."
    )


def test_a_long_reason_is_cut_in_the_message_and_whole_in_the_errors() -> None:
    traceback = "Traceback:\n" + "  a line of it\n" * 500
    error = batch_failed([None, "b"], {0: ServerError(traceback)})
    assert len(str(error)) < 500
    assert "\n" not in str(error)
    assert str(error.errors[0]) == traceback


def test_what_all_errors_of_a_batch_agree_on_is_the_batchs_too() -> None:
    first = Overloaded("Busy.", status="UNAVAILABLE", model="shoes", request_id="abc")
    second = ServerError("It broke.", status="INTERNAL", model="shoes", request_id="abc")
    error = batch_failed([None, None], {0: first, 1: second})
    assert (error.status, error.model, error.request_id) == (None, "shoes", "abc")


@given(st.lists(st.one_of(st.text(), st.binary()), min_size=1, max_size=8), st.data())
def test_a_failed_batch_has_a_result_or_an_error_for_every_picture(results: list[Any], data: st.DataObject) -> None:
    failed = data.draw(st.sets(st.sampled_from(range(len(results))), min_size=1))
    error = batch_failed(results, {index: ServerError("It broke.") for index in failed})
    assert len(error.results) == len(results)
    for index, result in enumerate(error.results):
        assert (result is None) == (index in error.errors)
        assert result is None or result == results[index]


def test_a_failed_batch_survives_a_process_boundary_with_all_it_has(png: bytes) -> None:
    reason = Overloaded("Busy.", status="UNAVAILABLE", model="shoes", request_id="abc")
    sent = batch_failed([made(png), None], {1: reason})
    came = pickle.loads(pickle.dumps(sent))  # noqa: S301  our own bytes
    assert type(came) is BatchFailed
    assert str(came) == str(sent)
    assert came.results == (made(png), None)
    assert [(index, type(error), vars(error)) for index, error in came.errors.items()] == [
        (1, Overloaded, vars(reason))
    ]


def test_a_failed_batch_is_built_like_every_other_error() -> None:
    error = BatchFailed("what happened", status="INTERNAL", model="shoes", request_id="abc")
    assert isinstance(error, SketchbridgeError)
    assert (str(error), error.results, error.errors) == ("what happened", (), {})
