from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from sketchbridge_export.calibration import MAX_FILES, calibration_pictures, looks_drawn
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.shipped import drawings
from sketchbridge_preprocess import RequestOptions, decode, sketch_for_model

TEXTURES = 3


def cat() -> NDArray[np.uint8]:
    return np.asarray(getattr(data, "chelsea")(), np.uint8)  # noqa: B009 - untyped


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def test_without_a_folder_they_are_the_shipped_drawings_in_many_ways_and_the_same_each_time() -> None:
    pictures = calibration_pictures(None)
    assert pictures.dtype == np.uint8
    assert pictures.shape[1:] == (256, 256, 3)
    np.testing.assert_array_equal(pictures, calibration_pictures(None))
    drawn = pictures[TEXTURES:]
    assert len({picture.tobytes() for picture in drawn}) == len(drawn) > 100
    assert ((drawn == 255).mean(axis=(1, 2, 3)) > 0.8).all()  # paper stays white, also where a shift let it in
    assert (drawn.min(axis=(1, 2, 3)) < 100).all()


def test_textures_come_first_and_none_of_the_pictures_that_are_compared_on_is_among_them(tmp_path: Path) -> None:
    save(tmp_path / "cat.png", cat())
    compared = {picture.tobytes() for picture in shipped_pictures()}
    for folder in (None, tmp_path):
        pictures = calibration_pictures(folder)
        assert compared.isdisjoint(picture.tobytes() for picture in pictures)
        assert not any((picture == picture[..., :1]).all() for picture in pictures[:TEXTURES])


@pytest.mark.parametrize("path", sorted(drawings().glob("*.png")), ids=lambda path: path.stem)
def test_a_drawing_looks_drawn_with_any_pen_on_any_paper(path: Path) -> None:
    assert looks_drawn(decode(path.read_bytes()))


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "coins", "rocket"])
def test_a_photo_does_not(name: str) -> None:
    assert not looks_drawn(getattr(data, name)())


def test_a_thing_before_a_white_wall_does_not() -> None:
    picture = np.full((300, 300, 3), 250, np.uint8)
    cv2.ellipse(picture, (150, 160), (90, 50), 10, 0, 360, (90, 60, 40), -1)
    assert not looks_drawn(picture)


def test_photos_are_drawn_with_every_method_and_drawings_are_taken_as_they_are(tmp_path: Path) -> None:
    drawing = next(iter(sorted(drawings().glob("*.png"))))
    (tmp_path / "0.png").write_bytes(drawing.read_bytes())
    for number in range(1, 5):
        save(tmp_path / f"{number}.jpg", cat())
    (tmp_path / "notes.txt").write_text("no picture")
    found = calibration_pictures(tmp_path)[TEXTURES:]
    assert found.shape == (5, 256, 256, 3)
    np.testing.assert_array_equal(found[0], sketch_for_model(drawing.read_bytes(), RequestOptions()))
    assert len({picture.tobytes() for picture in found[1:]}) == 4
    assert ((found == 255).mean(axis=(1, 2, 3)) > 0.5).all()


def test_a_large_folder_is_read_in_even_steps(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 40):
        picture = np.full((64, 64), 255, np.uint8)
        cv2.circle(picture, (32, 32), 8 + number // 10, (0,), 1)
        save(tmp_path / f"{number:03}.png", picture)
    found = calibration_pictures(tmp_path)[TEXTURES:]
    assert len(found) == MAX_FILES
    assert not np.array_equal(found[0], found[-1])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (None, b"", "is not a folder"),
        ("notes.txt", b"none", "has no pictures"),
        ("bad.png", b"none", "can't be calibrated on"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(file: str | None, content: bytes, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if file is not None:
        folder.mkdir()
        (folder / file).write_bytes(content)
    with pytest.raises(OptionInvalid, match=message):
        calibration_pictures(folder)
