from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from sketchbridge_preprocess import Size
from sketchbridge_training import DataInvalid
from sketchbridge_training.photos import check_photos, find_photos, load_half, load_photo, read_column
from tests.training.conftest import draw_photo, write_photos

SIDE = Size(64, 64)


@settings(max_examples=30)
@given(st.sets(st.text("abcdefghij", min_size=1, max_size=6), min_size=20, max_size=60), st.integers(12, 19))
def test_a_photo_stays_on_its_side_when_others_are_added(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], start: int
) -> None:
    folder = tmp_path_factory.mktemp("names")

    def add(some: list[str]) -> None:
        for name in some:
            (folder / f"{name}.png").touch()

    add(sorted(names)[:start])
    trained, held_out = find_photos(folder)
    assert len(trained) + len(held_out) == start
    add(sorted(names)[start:])
    trained_now, held_out_now = find_photos(folder)
    assert set(trained) <= set(trained_now)
    stand_in = len(held_out) == 1 and held_out[0] == min(trained + held_out)
    assert stand_in or set(held_out) <= set(held_out_now)
    assert not set(trained_now) & set(held_out_now)


def test_one_photo_in_twenty_is_held_out(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"shoe {number}.jpg").touch()
    trained, held_out = find_photos(tmp_path)
    assert 8 <= len(held_out) <= 34
    assert Counter([*trained, *held_out]) == Counter(tmp_path.iterdir())


def test_only_picture_files_directly_in_the_folder_count(tmp_path: Path) -> None:
    write_photos(tmp_path, range(12))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "LOUD.JPG").touch()
    trained, held_out = find_photos(tmp_path)
    assert len(trained) + len(held_out) == 13


def test_a_missing_folder_and_too_few_photos_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="nowhere` is not a folder"):
        find_photos(tmp_path / "nowhere")
    write_photos(tmp_path, range(11))
    with pytest.raises(DataInvalid, match=r"holds 11 photos .* at least 12 are needed"):
        find_photos(tmp_path)


def png_of(photo: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(photo).save(buffer, "PNG")
    return buffer.getvalue()


def test_unusable_files_are_counted_and_the_first_is_named_before_anything_is_decoded(tmp_path: Path) -> None:
    photos = sorted(write_photos(tmp_path, range(12)).iterdir())
    check_photos(photos)
    photos[3].write_bytes(photos[3].read_bytes()[:-40])
    with pytest.raises(DataInvalid, match=r"`.*/03\.png` can't be used: The PNG is cut off.* Mend or remove"):
        check_photos(photos)
    photos[7].write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(DataInvalid, match=r"03\.png.* 1 more of 12 can't be used either"):
        check_photos(photos)


def test_a_photo_of_too_many_pixels_is_found_by_its_header(tmp_path: Path) -> None:
    photo = bytearray(png_of(draw_photo(0)))
    photo[16:24] = (30_000).to_bytes(4, "big") * 2  # width and height of the IHDR chunk
    (tmp_path / "huge.png").write_bytes(photo)
    with pytest.raises(DataInvalid, match="900,000,000 pixels"):
        check_photos([tmp_path / "huge.png"])


def test_a_photo_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"gone\.png` can't be used: .*No such file"):
        load_photo(tmp_path / "gone.png", SIDE)


def test_a_photo_is_cropped_to_its_middle(tmp_path: Path) -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = 255
    (tmp_path / "wide.png").write_bytes(png_of(wide))
    assert load_photo(tmp_path / "wide.png", SIDE).min() == 255


def test_a_picture_is_cut_into_its_halves(tmp_path: Path) -> None:
    both = np.zeros((50, 100, 3), np.uint8)
    both[:, 50:] = 255
    (tmp_path / "both.png").write_bytes(png_of(both))
    assert load_half(tmp_path / "both.png", SIDE, right=False).max() == 0
    assert load_half(tmp_path / "both.png", SIDE, right=True).min() == 255
    with pytest.raises(DataInvalid, match=r"gone\.png` can't be used"):
        load_half(tmp_path / "gone.png", SIDE, right=True)


def test_a_folder_without_photos_of_its_own_names_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"holds 0 photos .* are needed\.$"):
        find_photos(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataInvalid, match=r"1 other files in it, such as `notes\.txt`"):
        find_photos(tmp_path)
    for number in range(7):
        (tmp_path / f"folder {number}").mkdir()
    with pytest.raises(DataInvalid, match=r"There are folders in it: `folder 0`, .*`folder 4` and 2 more\. Name one"):
        find_photos(tmp_path)


def test_copies_of_one_picture_are_refused(tmp_path: Path) -> None:
    photos = sorted(write_photos(tmp_path, range(12)).iterdir())
    for path in photos[1:]:
        path.write_bytes(photos[0].read_bytes())
    with pytest.raises(DataInvalid, match=r"All 12 files from .* are copies of one picture"):
        check_photos(photos)


@pytest.mark.parametrize(
    "text",
    [
        "01.png\n05.png\n",
        "\ufeff01.png\r\n05.png\r\n",
        "file,identity\n01.png,a\n05.png,b\n",
        "identity,file\nx,05.png\ny,01.png",
    ],
)
def test_a_list_says_which_photos_are_held_out(tmp_path: Path, text: str) -> None:
    photos = write_photos(tmp_path / "photos", range(12))
    (tmp_path / "list").write_text(text)
    trained, held_out = find_photos(photos, held_out=tmp_path / "list")
    assert [path.name for path in held_out] == ["01.png", "05.png"]
    assert len(trained) == 10


@pytest.mark.parametrize("names", [[], ["shoe.png"], [f"{number:02d}.png" for number in range(12)]])
def test_a_list_of_no_photos_of_other_photos_or_of_all_is_refused(tmp_path: Path, names: list[str]) -> None:
    photos = write_photos(tmp_path / "photos", range(12))
    (tmp_path / "list").write_text("\n".join(names))
    with pytest.raises(DataInvalid, match=r"names (0|12) of the 12 photos .* Is the list of another folder\?"):
        find_photos(photos, held_out=tmp_path / "list")
    with pytest.raises(DataInvalid, match=r"can't be read as a list of file names"):
        find_photos(photos, held_out=tmp_path)


def test_a_column_is_read_with_a_byte_order_mark_too_and_may_be_missing_only_where_it_is_optional(
    tmp_path: Path,
) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbffile,identity\n1.png,tabby\n2.png,\n3.png\n")
    assert read_column(table, "identity") == {"1.png": "tabby"}
    assert read_column(table, "source_path", optional=True) == {}
    with pytest.raises(DataInvalid, match="has no column `source_path`; it needs `file` and `source_path`"):
        read_column(table, "source_path")
