"""The figures of `sketchbridge quality` against closed forms, slow oracles and hand computation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sketchbridge_preprocess import SKETCH_METHODS
from sketchbridge_training import DataInvalid
from sketchbridge_training.quality.classifier import Classes, Classifier
from sketchbridge_training.quality.diversity import colourfulness, mean_pairwise_distance
from sketchbridge_training.quality.domains import Domain, Photo
from sketchbridge_training.quality.generator import Generator, find_artefact
from sketchbridge_training.quality.intervals import paired_difference, wilson
from sketchbridge_training.quality.kid import kernel_distance, polynomial_mmd2
from sketchbridge_training.quality.measuring import measure
from sketchbridge_training.quality.round_trip import edge_match, served_lines
from sketchbridge_training.quality.similarity import gradient_similarity, similarity
from tests.training.conftest import draw_photo, write_photos
from tests.training.quality_things import write_generator

RANDOM = np.random.default_rng(4)


def normal(rows: int, width: int = 6, mean: float = 0.0) -> Any:
    return RANDOM.normal(mean, 1, (rows, width))


def test_mmd2_is_the_sum_over_pairs_that_its_definition_writes() -> None:
    x, y = normal(5), normal(7, mean=0.5)

    def kernel(a: Any, b: Any) -> float:
        return float((sum(p * q for p, q in zip(a, b, strict=True)) / 6 + 1) ** 3)

    within_x = [kernel(a, b) for a, b in itertools.permutations(x, 2)]
    within_y = [kernel(a, b) for a, b in itertools.permutations(y, 2)]
    across = [kernel(a, b) for a in x for b in y]
    slow = sum(within_x) / len(within_x) + sum(within_y) / len(within_y) - 2 * sum(across) / len(across)
    assert polynomial_mmd2(x, y) == pytest.approx(slow, rel=1e-12)


def test_mmd2_of_pairs_leaves_each_with_its_own_out_and_is_unbiased_where_one_set_copies_the_other() -> None:
    x, y = normal(5), normal(5, mean=0.5)

    def kernel(a: Any, b: Any) -> float:
        return float((a @ b / 6 + 1) ** 3)

    slow = [
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i, j in itertools.permutations(range(5), 2)
    ]
    assert polynomial_mmd2(x, y, paired=True) == pytest.approx(np.mean(slow), rel=1e-12)
    assert polynomial_mmd2(x, x, paired=True) == pytest.approx(0, abs=1e-9)
    assert polynomial_mmd2(x, x) < 0  # copies would be better than real
    assert kernel_distance(x, x, seed=1, paired=True, subset_size=3).mean == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataInvalid, match="as many rows in both"):
        polynomial_mmd2(x, y[:4], paired=True)


def test_mmd2_of_constant_sets_is_the_closed_form() -> None:
    # (1 + 1)^3 + (4 + 1)^3 - 2 (2 + 1)^3 for rows of ones and of twos
    assert polynomial_mmd2(np.ones((3, 4)), np.full((2, 4), 2.0)) == pytest.approx(8 + 125 - 54)


def test_the_distance_of_one_distribution_is_about_zero_and_grows_with_the_shift() -> None:
    reference = normal(300)
    near, far, farther = (kernel_distance(normal(300, mean=mean), reference, seed=1).mean for mean in (0, 0.5, 1))
    assert abs(near) < 0.05 * far
    assert far < farther


def test_the_distance_is_repeatable_and_says_the_size_of_its_subsets() -> None:
    first, second = normal(20), normal(80)
    once, again = (kernel_distance(first, second, seed=7) for _ in range(2))
    assert once == again
    assert (once.subset_size, once.subsets) == (20, 100)


@pytest.mark.parametrize("shape", [(1, 6), (5, 4), (5,)])
def test_features_that_cannot_be_compared_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataInvalid, match="expected two rows or more, of one width"):
        polynomial_mmd2(normal(5), np.ones(shape))


def cross(shift: int = 0) -> Any:
    page = np.full((64, 64), 255, np.uint8)
    page[10:50, 20 + shift] = 0
    return page


def test_a_drawing_matches_itself_and_one_two_pixels_off_and_not_one_five_pixels_off() -> None:
    for shift in (0, 1, 2):
        assert edge_match(cross(), cross(shift)).f1 == 1
    assert edge_match(cross(), cross(3)).f1 == 0
    assert edge_match(cross(), cross(5)).f1 == 0


def test_precision_falls_with_lines_too_many_and_recall_with_lines_too_few() -> None:
    both = np.minimum(cross(), cross(20))
    more, fewer = edge_match(cross(), both), edge_match(both, cross())
    assert (more.precision, more.recall) == (0.5, 1.0)
    assert (fewer.precision, fewer.recall) == (1.0, 0.5)
    assert more.f1 == fewer.f1 == pytest.approx(2 / 3)


def test_two_empty_pages_match_and_one_empty_page_does_not() -> None:
    empty = np.full((64, 64, 3), 255, np.uint8)
    assert edge_match(empty, empty).f1 == 1
    assert edge_match(empty, cross()).f1 == 0
    assert edge_match(cross(), empty).f1 == 0
    with pytest.raises(DataInvalid, match="one size"):
        edge_match(empty, empty[:32])


@pytest.mark.parametrize("method", SKETCH_METHODS)
def test_a_photo_is_drawn_for_the_generator_by_every_method(method: str) -> None:
    lines = served_lines(draw_photo(3), method=method)
    assert lines.shape == (256, 256, 3)
    assert lines.dtype == np.uint8
    assert edge_match(lines, served_lines(draw_photo(3), method=method)).f1 == 1
    assert 0.002 < (lines < 128).mean() < 0.3


def test_gradient_similarity_is_what_a_hand_computes_for_a_step() -> None:
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 4:] = 90
    flat = np.zeros_like(step)
    # halved: 4x4 with the step between columns 1 and 2; Prewitt / 3 gives 90 in both of them and 0 elsewhere
    beside = 170 / (90**2 + 170)
    assert gradient_similarity(step, flat) == pytest.approx((8 * 1 + 8 * beside) / 16)
    assert gradient_similarity(step, step) == 1
    turned = np.ascontiguousarray(step.transpose(1, 0, 2))
    assert gradient_similarity(turned, np.zeros_like(step)) == pytest.approx(gradient_similarity(step, flat))


def test_similarity_is_one_for_the_same_picture_and_psnr_is_its_definition() -> None:
    photo = draw_photo(1)
    assert (similarity(photo, photo).ssim, similarity(photo, photo).gradients) == (1, 1)
    assert similarity(photo, photo).psnr_db == np.inf
    lighter = np.where(photo < 250, photo + 5, photo - 5).astype(np.uint8)
    assert similarity(lighter, photo).psnr_db == pytest.approx(20 * np.log10(255 / 5))
    blurred = np.asarray(cv2.GaussianBlur(photo, (0, 0), 4), np.uint8)
    assert similarity(blurred, photo).ssim < similarity(lighter, photo).ssim < 1
    with pytest.raises(DataInvalid, match="one size"):
        similarity(photo, photo[:50])


def test_chance_is_a_photo_of_another_identity_and_copies_do_not_make_a_mean_infinite(tmp_path: Path) -> None:
    write_photos(tmp_path, range(2))
    first, second = tmp_path / "00.png", tmp_path / "01.png"
    artefact = find_artefact(write_generator(tmp_path / "repository", "pale").parents[2], "pale")
    assert artefact is not None

    def psnr_of_chance(*photos: Photo) -> float:
        domain = Domain("pale", photos, photos)
        classifier = Classifier(Classes(("pale", "ripe"), {}))
        return measure(domain, Generator(artefact), classifier, by_hand={}, seed=1).figures.similarity_chance.psnr_db

    apart = psnr_of_chance(Photo(first, "a", None), Photo(second, "b", None))
    assert apart < 30
    copies = Photo(first, "a", None), Photo(first, "a", None), Photo(second, "b", None)
    assert psnr_of_chance(*copies) == pytest.approx(apart)
    assert psnr_of_chance(Photo(first, "a", None), Photo(first, "b", None)) == 100


def test_spread_is_the_mean_over_all_pairs() -> None:
    rows = normal(9)
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(rows, 2)]
    assert mean_pairwise_distance(rows) == pytest.approx(np.mean(pairs))
    assert mean_pairwise_distance(np.ones((4, 3))) == 0
    with pytest.raises(DataInvalid, match="two rows or more"):
        mean_pairwise_distance(np.ones((1, 3)))


def test_colourfulness_is_zero_for_gray_and_the_formula_for_pure_red() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert colourfulness(gray) == 0
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert colourfulness(red) == pytest.approx(0.3 * np.hypot(200, 100))  # no spread, means 200 and 100


def test_wilson_gives_the_interval_of_the_textbook_and_has_a_width_at_the_ends() -> None:
    share = wilson(8, 10)
    assert (share.share, share.low, share.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert wilson(10, 10).high == pytest.approx(1)
    assert wilson(10, 10).low == pytest.approx(0.7225, abs=1e-4)
    assert wilson(0, 10).low == pytest.approx(0, abs=1e-12)


def test_the_interval_of_a_difference_draws_whole_groups() -> None:
    before, after = [True] * 40, [True] * 20 + [False] * 20
    alone = paired_difference(after, before, [str(number) for number in range(40)], seed=1)
    grouped = paired_difference(after, before, [str(number // 10) for number in range(40)], seed=1)
    assert alone.value == grouped.value == -0.5
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.15)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert paired_difference(before, before, ["a"] * 40, seed=1).low == 0
