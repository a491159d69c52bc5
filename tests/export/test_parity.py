from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from sketchbridge_export.errors import OptionInvalid, ParityFailed
from sketchbridge_export.parity import (
    TOLERANCES,
    Comparison,
    Pictures,
    Tolerance,
    measure,
    out_of_tolerance,
    structural_similarity,
)
from sketchbridge_export.parity_pictures import read_pictures, shipped_pictures
from sketchbridge_export.shipped import drawings

PICTURES = shipped_pictures()
STRICT = Tolerance(0, 0.0, reason="copies")


def test_equal_pictures_differ_by_nothing_at_every_batch_size() -> None:
    found = measure(PICTURES, lambda batch: batch, PICTURES, batch_sizes=(1, 2, 5)).batches
    assert out_of_tolerance(found, STRICT) == []
    assert [item.batch_size for item in found] == [1, 2, 5]
    for item in found:
        assert (item.max_levels, item.mean_levels, item.psnr_db) == (0, 0.0, None)
        assert item.ssim == pytest.approx(1.0)


def test_a_known_difference_is_measured_as_it_is() -> None:
    dark = (PICTURES // 2).astype(np.uint8)
    (found,) = measure(dark, lambda batch: batch + np.uint8(3), dark, batch_sizes=(1,)).batches
    assert out_of_tolerance([found], Tolerance(3, 3.0)) == []
    assert out_of_tolerance([found], Tolerance(2)) == ["batch 1: off by up to 3 levels, 3.0000 on average"]
    assert out_of_tolerance([found], Tolerance(min_ssim=1.0)) == [f"batch 1: SSIM {found.ssim:.4f}"]
    assert (found.max_levels, found.mean_levels) == (3, 3.0)
    assert found.psnr_db == pytest.approx(20 * math.log10(255 / 3))
    assert 0.5 < found.ssim < 1


def test_pictures_that_leak_into_each_other_are_caught() -> None:
    def leaky(batch: Pictures) -> Pictures:
        return np.broadcast_to(batch.mean(axis=0).astype(np.uint8), batch.shape)

    (problem,) = out_of_tolerance(measure(PICTURES, leaky, PICTURES, batch_sizes=(1, 2)).batches, STRICT)
    assert problem.startswith("batch 2: off")


def test_a_wrong_shape_and_a_wrong_type_are_reported_together() -> None:
    def wrong(batch: Pictures) -> Pictures:
        return batch[:, :128] if len(batch) == 1 else batch.astype(np.float32)

    with pytest.raises(ParityFailed, match=r"batch 1: it paints \(1, 128, 256, 3\).*batch 2: it paints .*float32"):
        measure(PICTURES, wrong, PICTURES, batch_sizes=(1, 2))


def test_one_differing_pixel_in_the_last_picture_is_seen_at_a_batch_size_that_does_not_divide() -> None:
    expected = PICTURES.copy()
    expected[-1, 0, 0, 0] ^= 64
    found = measure(expected, lambda batch: batch, PICTURES, batch_sizes=(5,))
    (problem,) = out_of_tolerance(found.batches, STRICT)
    assert problem.startswith("batch 5: off by up to 64 levels")
    assert found.worst == len(PICTURES) - 1
    assert np.array_equal(found.worst_painted, PICTURES[-1])


def test_every_tolerance_gives_its_reason() -> None:
    assert set(TOLERANCES) == {"fp32", "fp16-weights", "fp16", "bf16", "int8"}
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


def test_a_folders_drawings_are_read_by_name_and_redrawn_as_the_server_does(tmp_path: Path) -> None:
    for name, row in (("b.png", 20), ("a.jpg", 80)):
        chalk = np.full((100, 100, 3), (80, 40, 10), np.uint8)
        cv2.line(chalk, (10, row), (90, row), (255, 255, 255), 3)
        assert cv2.imwrite(str(tmp_path / name), chalk)
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = read_pictures(tmp_path)
    assert pictures.shape == (2, 256, 256, 3)
    assert (pictures == pictures[..., :1]).all()
    assert (pictures.mean(axis=(1, 2, 3)) > 240).all()  # black lines on white
    assert [round(float(np.argmin(picture.mean(axis=(1, 2)))) / 2.56) for picture in pictures] == [80, 20]


def test_a_folder_without_pictures_and_a_damaged_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="is not a folder"):
        read_pictures(tmp_path / "nothing")
    with pytest.raises(OptionInvalid, match="has no pictures"):
        read_pictures(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(OptionInvalid, match=r"broken\.png"):
        read_pictures(tmp_path)


def test_a_figure_that_is_no_number_is_out_of_every_tolerance() -> None:
    nothing = Comparison(batch_size=1, pictures=1, max_levels=0, mean_levels=math.nan, psnr_db=None, ssim=math.nan)
    for tolerance in TOLERANCES.values():
        assert out_of_tolerance([nothing], tolerance)


def test_pictures_that_mix_are_found_even_where_a_folder_has_one(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(next(drawings().glob("*.png")).read_bytes())
    pictures = read_pictures(tmp_path)
    assert len(pictures) == 2

    def mix(batch: Pictures) -> Pictures:
        return np.broadcast_to(batch.mean(axis=0), batch.shape).astype(np.uint8)

    found = measure(pictures, mix, pictures, batch_sizes=(1, 2))
    assert [bool(out_of_tolerance([batch], STRICT)) for batch in found.batches] == [False, True]
