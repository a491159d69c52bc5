from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sketchbridge_training.segmentation import Masks, find_subject


def photo_of_disc(radius: int = 30, *, holed: bool = False) -> Any:
    """(120, 150, 3): a textured red disc on a textured green ground."""
    random = np.random.default_rng(0)
    photo = np.full((120, 150, 3), (60, 130, 50), np.uint8)
    cv2.circle(photo, (75, 60), radius, (200, 60, 50), -1)
    if holed:
        cv2.circle(photo, (75, 60), 8, (60, 130, 50), -1)
    return np.clip(photo + random.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)


def disc(radius: int) -> Any:
    y, x = np.mgrid[:120, :150]
    return np.hypot(x - 75, y - 60) <= radius


@pytest.mark.parametrize("holed", [False, True])
def test_the_thing_in_the_middle_is_found_without_holes(holed: bool) -> None:
    found = find_subject(photo_of_disc(holed=holed))
    assert found is not None
    assert found.shape == (120, 150)
    assert found.dtype == np.bool_
    assert (found & disc(30)).sum() / (found | disc(30)).sum() > 0.9


def test_the_same_photo_gives_the_same_mask_whatever_chance_was_used_for_before() -> None:
    cv2.setRNGSeed(77)
    first = find_subject(photo_of_disc())
    cv2.randu(np.zeros((9, 9), np.uint8), np.zeros(1), np.full(1, 255))
    second = find_subject(photo_of_disc())
    assert first is not None
    assert second is not None
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    "photo",
    [
        np.full((64, 64, 3), 200, np.uint8),
        photo_of_disc(radius=6),
        np.full((1, 1, 3), 9, np.uint8),
        np.full((2, 300, 3), 9, np.uint8),
        np.tile(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], (90, 1, 3)),
    ],
    ids=["one colour", "too small", "a pixel", "a strip", "a ramp up to the border"],
)
def test_what_cannot_be_the_subject_is_none(photo: Any) -> None:
    before = photo.copy()
    assert find_subject(photo) is None
    assert np.array_equal(photo, before)


def test_masks_are_kept_in_a_folder_and_mended_if_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "masks"
    photo = photo_of_disc()
    found = Masks(folder).find(photo)
    assert found is not None
    (kept,) = folder.iterdir()
    flipped = cv2.flip(cv2.imread(str(kept), cv2.IMREAD_GRAYSCALE), 0)
    cv2.imwrite(str(kept), flipped)
    read = Masks(folder).find(photo)
    assert read is not None
    assert np.array_equal(read, flipped > 0)  # so it came from there
    for damage in (b"", kept.read_bytes()[:20], b"text"):
        kept.write_bytes(damage)
        again = Masks(folder).find(photo)
        assert again is not None
        assert np.array_equal(again, found)
    assert len(list(folder.iterdir())) == 1


def test_that_nothing_was_found_is_kept_too(tmp_path: Path) -> None:
    masks = Masks(tmp_path)
    assert masks.find(np.full((64, 64, 3), 200, np.uint8)) is None
    assert len(list(tmp_path.iterdir())) == 1
    assert Masks(tmp_path).find(np.full((64, 64, 3), 200, np.uint8)) is None


def test_masks_work_without_a_folder_and_after_a_journey() -> None:
    masks = Masks()
    first = masks.find(photo_of_disc())
    size = len(pickle.dumps(masks))
    again = pickle.loads(pickle.dumps(masks)).find(photo_of_disc())  # noqa: S301 - our own
    assert size < 200
    assert first is not None
    assert np.array_equal(first, again)
