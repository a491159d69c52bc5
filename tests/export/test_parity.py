from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from sketchbridge_export.errors import OptionInvalid, ParityFailed
from sketchbridge_export.parity import TOLERANCES, Pictures, Tolerance, compare, structural_similarity
from sketchbridge_export.parity_pictures import read_pictures, shipped_pictures

PICTURES = shipped_pictures()
STRICT = Tolerance(0, 0.0, "copies")


def test_equal_pictures_differ_by_nothing_at_every_batch_size() -> None:
    found = compare(PICTURES, lambda batch: batch, PICTURES, STRICT, batch_sizes=(1, 2, 5))
    assert [item.batch_size for item in found] == [1, 2, 5]
    for item in found:
        assert (item.max_levels, item.mean_levels, item.psnr_db) == (0, 0.0, None)
        assert item.ssim == pytest.approx(1.0)


def test_a_known_difference_is_measured_as_it_is() -> None:
    dark = (PICTURES // 2).astype(np.uint8)
    three = Tolerance(3, 3.0, "three")
    (found,) = compare(dark, lambda batch: batch + np.uint8(3), dark, three, batch_sizes=(1,))
    assert (found.max_levels, found.mean_levels) == (3, 3.0)
    assert found.psnr_db == pytest.approx(20 * math.log10(255 / 3))
    assert 0.5 < found.ssim < 1


def test_pictures_that_leak_into_each_other_are_caught() -> None:
    def leaky(batch: Pictures) -> Pictures:
        return np.broadcast_to(batch.mean(axis=0).astype(np.uint8), batch.shape)

    with pytest.raises(ParityFailed, match="batch 2: off") as caught:
        compare(PICTURES, leaky, PICTURES, STRICT, batch_sizes=(1, 2))
    assert "batch 1" not in str(caught.value)


def test_a_wrong_shape_and_a_wrong_type_are_reported_together() -> None:
    def wrong(batch: Pictures) -> Pictures:
        return batch[:, :128] if len(batch) == 1 else batch.astype(np.float32)

    with pytest.raises(ParityFailed, match=r"batch 1: it paints \(1, 128, 256, 3\).*batch 2: it paints .*float32"):
        compare(PICTURES, wrong, PICTURES, STRICT, batch_sizes=(1, 2))


def test_one_differing_pixel_in_the_last_picture_is_seen_at_a_batch_size_that_does_not_divide() -> None:
    expected = PICTURES.copy()
    expected[-1, 0, 0, 0] ^= 64
    with pytest.raises(ParityFailed, match="batch 5: off by up to 64 levels"):
        compare(expected, lambda batch: batch, PICTURES, STRICT, batch_sizes=(5,))


def test_every_tolerance_gives_its_reason() -> None:
    assert set(TOLERANCES) == {"fp32", "fp16"}
    assert all(tolerance.reason for tolerance in TOLERANCES.values())


def test_similarity_of_two_flat_pictures_is_the_formulas_closed_form() -> None:
    a, b = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert structural_similarity(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_shipped_pictures_are_the_same_every_time_and_reach_both_ends() -> None:
    assert PICTURES.shape == (9, 256, 256, 3)
    assert PICTURES.dtype == np.uint8
    np.testing.assert_array_equal(PICTURES, shipped_pictures())
    assert all(picture.std() > 10 for picture in PICTURES[:6])
    assert all(picture.std() > 30 and not (picture == picture[..., :1]).all() for picture in PICTURES[6:])


def test_a_folders_pictures_are_read_by_name_and_fitted(tmp_path: Path) -> None:
    for name, level in (("b.png", 10), ("a.jpg", 200)):
        assert cv2.imwrite(str(tmp_path / name), np.full((100, 100, 3), level, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = read_pictures(tmp_path)
    assert pictures.shape == (2, 256, 256, 3)
    assert [int(picture.mean()) for picture in pictures] == [200, 10]


def test_a_folder_without_pictures_and_a_damaged_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="is not a folder"):
        read_pictures(tmp_path / "nothing")
    with pytest.raises(OptionInvalid, match="has no pictures"):
        read_pictures(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(OptionInvalid, match=r"broken\.png"):
        read_pictures(tmp_path)
