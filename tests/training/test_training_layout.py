"""What a folder holds is found by looking; what can't be meant is refused in words before anything is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sketchbridge_training import DataInvalid
from sketchbridge_training.layout import find_layout


def write(folder: Path, count: int = 12, *, size: tuple[int, int] = (20, 20), ending: str = "png") -> Path:
    """Pictures of noise, `size` being width and height."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise: Any = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number:02d}.{ending}"), noise)
    return folder


def test_pictures_of_any_shape_are_photos(tmp_path: Path) -> None:
    layout = find_layout(write(tmp_path))
    assert (layout.kind, len(layout.training), layout.held_out) == ("photos", 12, None)
    assert layout.training[3].name == "03.png"
    assert layout.training[3].a is None


def test_pictures_all_twice_as_wide_as_high_are_pairs_side_by_side_unless_said_otherwise(tmp_path: Path) -> None:
    write(tmp_path, size=(40, 20))
    layout = find_layout(tmp_path)
    assert layout.kind == "side-by-side"
    assert all(item.a == item.b for item in layout.training)
    assert find_layout(tmp_path, paired="no").kind == "photos"


def test_a_photo_on_its_side_is_measured_upright(tmp_path: Path) -> None:
    from PIL import Image as Pillow  # noqa: PLC0415

    turned = Pillow.Exif()
    turned[0x0112] = 6  # a quarter to the right
    for number in range(12):
        Pillow.new("RGB", (20, 40), (number, 0, 0)).save(tmp_path / f"{number:02d}.jpg", exif=turned)
    assert find_layout(tmp_path).kind == "side-by-side"


@pytest.mark.parametrize("names", [("A", "B"), ("a", "b"), ("trainA", "trainB"), ("sketches", "photos")])
def test_two_folders_of_equal_stems_are_pairs(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path / names[0], ending="png")
    write(tmp_path / names[1], ending="jpg", size=(60, 60))
    layout = find_layout(tmp_path)
    assert layout.kind == "folders"
    assert layout.held_out is None
    item = layout.training[4]
    assert (item.name, item.a, item.b) == ("04.jpg", tmp_path / names[0] / "04.png", tmp_path / names[1] / "04.jpg")


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        (["train"], ["val"]),
        (["train"], ["test"]),
        (["train/A", "train/B"], ["val/A", "val/B"]),
        (["trainA", "trainB"], ["testA", "testB"]),
        (["A/train", "B/train"], ["A/valid", "B/valid"]),
    ],
)
def test_a_data_sets_own_folder_for_it_is_held_out(tmp_path: Path, training: list[str], held_out: list[str]) -> None:
    for name in training:
        write(tmp_path / name)
    for name in held_out:
        write(tmp_path / name, 3)
    layout = find_layout(tmp_path)
    assert layout.kind == ("photos" if len(training) == 1 else "folders")
    assert len(layout.training) == 12
    assert layout.held_out is not None
    assert len(layout.held_out) == 3
    assert layout.held_out_folder == tmp_path / held_out[-1] or layout.held_out_folder == tmp_path / "val"


def test_photos_among_pairs_side_by_side_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, size=(40, 20))
    write(tmp_path, 2)
    with pytest.raises(DataInvalid, match=r"mixed: 10 .* such as `02\.png`, and 2 are not, such as `00\.png`"):
        find_layout(tmp_path)
    assert find_layout(tmp_path, paired="no").kind == "photos"
    assert find_layout(tmp_path, paired="side-by-side").kind == "side-by-side"


def test_pairs_of_an_odd_width_cannot_be_cut_in_two(tmp_path: Path) -> None:
    write(tmp_path, size=(41, 20))
    with pytest.raises(DataInvalid, match=r"00\.png` is 41x20; .* even width\. 12 of 12"):
        find_layout(tmp_path, paired="side-by-side")


@pytest.mark.parametrize(("alone", "there"), [("A", "B"), ("B", "A")])
def test_a_picture_without_its_partner_is_named(tmp_path: Path, alone: str, there: str) -> None:
    write(tmp_path / alone)
    write(tmp_path / there)
    (tmp_path / there / "05.png").unlink()
    (tmp_path / there / "07.png").unlink()
    with pytest.raises(DataInvalid, match=rf"{alone}/05\.png` has no partner.*{there}` is called `05`\. 2 of the 12"):
        find_layout(tmp_path)


def test_folders_without_a_name_in_common_are_no_pairs(tmp_path: Path) -> None:
    write(tmp_path / "trainA")
    for path in write(tmp_path / "trainB").iterdir():
        path.rename(path.with_name(f"zebra {path.name}"))
    with pytest.raises(DataInvalid, match=r"`00\.png` and `zebra 00\.png`, for example.*without pairs can't"):
        find_layout(tmp_path)


def test_a_drawing_and_its_photo_must_have_one_shape_but_not_one_size(tmp_path: Path) -> None:
    write(tmp_path / "A", size=(30, 20))
    write(tmp_path / "B", size=(60, 40))
    assert find_layout(tmp_path).kind == "folders"
    cv2.imwrite(str(tmp_path / "A" / "06.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DataInvalid, match=r"A/06\.png` is 20x20 and `.*B/06\.png` 60x40.* 1 of the 12 pairs"):
        find_layout(tmp_path)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "A")
    write(tmp_path / "B")
    write(tmp_path / "B", 1, ending="jpg")
    with pytest.raises(DataInvalid, match=r"00\.jpg` and `00\.png` beside it differ only in their ending"):
        find_layout(tmp_path)


@pytest.mark.parametrize("folders", [["A", "B"], ["train"], ["trainA", "trainB"], ["A/train", "B/train"]])
def test_pictures_beside_the_folders_of_a_data_set_are_not_passed_over(tmp_path: Path, folders: list[str]) -> None:
    for name in folders:
        write(tmp_path / name)
    write(tmp_path, 2)
    with pytest.raises(DataInvalid, match=r"holds 2 pictures, such as `00\.png`, beside the folder"):
        find_layout(tmp_path)


def test_what_was_asked_for_must_be_there(tmp_path: Path) -> None:
    write(tmp_path / "data" / "A")
    write(tmp_path / "data" / "B")
    with pytest.raises(DataInvalid, match=r"in two folders, .* `no` was asked for"):
        find_layout(tmp_path / "data", paired="no")
    with pytest.raises(DataInvalid, match=r"in two folders, .* `side-by-side` was asked for"):
        find_layout(tmp_path / "data", paired="side-by-side")
    with pytest.raises(DataInvalid, match="holds no two folders of drawings and photos"):
        find_layout(write(tmp_path / "photos"), paired="folders")


def test_the_held_out_folder_must_hold_the_same_kind(tmp_path: Path) -> None:
    write(tmp_path / "train", size=(40, 20))
    write(tmp_path / "val")
    with pytest.raises(DataInvalid, match="val` holds photos, and the pictures to train on are pairs side by side"):
        find_layout(tmp_path)


def test_empty_missing_small_and_nested_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="nowhere` is not a folder"):
        find_layout(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataInvalid, match=r"holds 0 photos .* at least 12 are needed\.$"):
        find_layout(tmp_path / "empty")
    with pytest.raises(DataInvalid, match="holds 11 photos"):
        find_layout(write(tmp_path / "few", 11))
    write(tmp_path / "nested" / "tabby")
    with pytest.raises(DataInvalid, match="folders in it: `tabby`"):
        find_layout(tmp_path / "nested")
    for name in ("A", "B"):
        (tmp_path / "hollow" / name).mkdir(parents=True)
    with pytest.raises(DataInvalid, match="A` holds 0 photos"):
        find_layout(tmp_path / "hollow")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda _: b"hello there", "This is text"),
        (lambda _: b"", "0 bytes"),
    ],
)
@pytest.mark.parametrize("folder", ["photos", "A", "B", "val"])
def test_broken_files_are_found_wherever_they_are(tmp_path: Path, folder: str, damage: Any, why: str) -> None:
    data = tmp_path / "data"
    if folder == "photos":
        path = write(data) / "05.png"
    elif folder == "val":
        write(data / "train")
        path = write(data / "val", 6) / "05.png"
    else:
        write(data / "A")
        write(data / "B")
        path = data / folder / "05.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataInvalid, match=rf"05\.png` can't be used: .*{why}"):
        find_layout(data)
