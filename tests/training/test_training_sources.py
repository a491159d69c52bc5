"""Whatever the folder: a drawing and its photo, changed alike, and the held-out ones apart."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sketchbridge_preprocess import Size, canny, normalise_sketch
from sketchbridge_training import DataInvalid, OptionInvalid, PairStream
from sketchbridge_training.keeping import Keeper
from sketchbridge_training.linework import are_line_drawings
from sketchbridge_training.sources import Source, open_sources
from tests.training.conftest import draw_photo, write_photos

SIDE = Size(64, 64)


def square_photo(number: int) -> Any:
    return draw_photo(number)[:100]


def line_drawing(number: int) -> Any:
    """(100, 100, 3) uint8, black on white."""
    return np.repeat(canny(square_photo(number))[:, :, None], 3, axis=2)


def label_map(number: int) -> Any:
    """(100, 100, 3) uint8: what is round is red, what is square blue."""
    labels = np.zeros((100, 100, 3), np.uint8)
    cv2.circle(labels, (50, 40), 15 + number, (0, 0, 255), -1)
    cv2.rectangle(labels, (20, 70), (60 + number, 95), (255, 0, 0), -1)
    return labels


def write_pairs(folder: Path, drawing: Any = line_drawing, *, count: int = 14, a_first: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        halves = [drawing(number), square_photo(number)]
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), np.hstack(halves if a_first else halves[::-1]))
    return folder


def write_two_folders(folder: Path, drawing: Any = line_drawing) -> Path:
    for name, picture in (("A", drawing), ("B", square_photo)):
        (folder / name).mkdir(parents=True)
        for number in range(14):
            assert cv2.imwrite(str(folder / name / f"{number:02d}.png"), picture(number))
    return folder


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(params=["photos", "side by side", "two folders", "label maps"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Source, Source]:
    if request.param == "photos":
        return open_sources(write_photos(tmp_path, range(14)), size=SIDE)
    if request.param == "two folders":
        return open_sources(write_two_folders(tmp_path), size=SIDE)
    return open_sources(
        write_pairs(tmp_path, line_drawing if request.param == "side by side" else label_map), size=SIDE
    )


def test_every_kind_of_source_keeps_the_same_promises(sources: tuple[Source, Source]) -> None:
    training, held_out = sources
    assert len(training) + len(held_out) == 14
    assert not set(training.names) & set(held_out.names)
    assert len(training.names) == len(training)
    assert training.description.startswith(f"{len(training)} ")
    assert held_out.description.startswith("held out: ")
    for source in sources:
        for take in (source.pair, source.plain):
            drawing, photo = take(0, chance())
            assert photo.shape == (64, 64, 3)
            assert drawing.shape in {(64, 64), (64, 64, 3)}
            assert photo.dtype == drawing.dtype == np.uint8
            assert same(take(0, chance()), (drawing, photo))
            assert same(getattr(pickle.loads(pickle.dumps(source)), take.__name__)(0, chance()), (drawing, photo))  # noqa: S301
    plain = training.plain(0, chance())
    assert np.array_equal(training.plain(0, chance(1))[1], plain[1])
    assert not np.array_equal(training.pair(0, chance(1))[1], plain[1])
    sketch, shown = PairStream(training, seed=1)[3]
    assert sketch.shape == shown.shape == (3, 64, 64)


@pytest.mark.parametrize("a_first", [True, False])
def test_the_direction_says_which_half_is_the_drawing(tmp_path: Path, a_first: bool) -> None:
    write_pairs(tmp_path, a_first=a_first)
    training, _ = open_sources(tmp_path, size=SIDE, direction="AtoB" if a_first else "BtoA", drawings="lines")
    number = int(training.names[0][:2])
    drawing, photo = training.plain(0, chance())
    photo_there = cv2.resize(square_photo(number)[:, :, ::-1], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(photo.astype(int) - photo_there).mean() < 2
    assert np.abs(drawing.astype(int) - normalise_sketch(line_drawing(number), SIDE)).mean() < 12
    assert ("on the left (AtoB)" if a_first else "on the right (BtoA)") in training.description


def test_the_direction_of_two_folders_is_a_to_b(tmp_path: Path) -> None:
    write_two_folders(tmp_path)
    forth, _ = open_sources(tmp_path, size=SIDE, drawings="as-is")
    back, _ = open_sources(tmp_path, size=SIDE, drawings="as-is", direction="BtoA")
    assert same(forth.plain(2, chance()), back.plain(2, chance())[::-1])


def test_a_drawing_and_its_photo_are_moved_alike_and_keep_their_colours(tmp_path: Path) -> None:
    training, _ = open_sources(write_pairs(tmp_path, square_photo), size=SIDE)  # a photo as its own drawing
    for seed in range(10):
        drawing, photo = training.pair(seed, chance(seed))
        assert np.array_equal(drawing, photo)
    assert "no line drawings, so they are left as they are" in training.description


@pytest.mark.parametrize("light_on_dark", [False, True])
def test_line_drawings_become_dark_on_white_whatever_they_were(tmp_path: Path, light_on_dark: bool) -> None:
    def drawn(number: int) -> Any:
        return 255 - line_drawing(number) if light_on_dark else line_drawing(number)

    training, _ = open_sources(write_pairs(tmp_path, drawn), size=SIDE)
    assert "line drawings, so they are redrawn" in training.description
    for take in (training.plain, training.pair):
        drawing, _ = take(1, chance())
        assert drawing.ndim == 2
        assert np.median(drawing) == 255
        assert 0.01 < (drawing < 128).mean() < 0.4


def filled_mask(number: int) -> Any:
    mask = np.full((100, 100, 3), 255, np.uint8)
    cv2.circle(mask, (50, 50), 20 + number % 5, (0, 0, 0), -1)
    return mask


@pytest.mark.parametrize(
    ("drawing", "lines"),
    [
        (line_drawing, True),
        (lambda number: 255 - line_drawing(number), True),
        (lambda number: 255 - (255 - line_drawing(number)) // 2, True),  # gray pencil
        (label_map, False),
        (square_photo, False),
        (filled_mask, False),
        (lambda _: np.full((100, 100, 3), 255, np.uint8), False),
    ],
    ids=["ink", "chalk", "pencil", "labels", "photos", "masks", "blank sheets"],
)
def test_line_drawings_are_told_from_other_pictures(drawing: Any, lines: bool) -> None:
    assert are_line_drawings([drawing(number) for number in range(8)]) == lines


def test_a_data_sets_own_held_out_folder_is_used_unless_a_list_is_given(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train")
    write_pairs(tmp_path / "val", count=3)
    training, held_out = open_sources(tmp_path, size=SIDE)
    assert (len(training), len(held_out)) == (14, 3)
    assert f"3 in `{tmp_path / 'val'}`; 3 of them, such as `00.png`, are copies" in held_out.description
    (tmp_path / "list").write_text("02.png\n03.png\n")
    training, held_out = open_sources(tmp_path, size=SIDE, held_out=tmp_path / "list")
    assert held_out.names == ["02.png", "03.png"]
    assert len(training) == 12


def test_a_list_holds_out_pairs_of_two_folders_whatever_the_ending(tmp_path: Path) -> None:
    write_two_folders(tmp_path / "data")
    (tmp_path / "list").write_text("file,identity\n04.jpg,4\n")
    _, held_out = open_sources(tmp_path / "data", size=SIDE, held_out=tmp_path / "list")
    assert held_out.names == ["04.png"]


def test_names_on_the_list_that_are_not_there_are_counted(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", range(12))
    (tmp_path / "list").write_text("04.png\n\n04.JPG\n99.png\n")
    _, held_out = open_sources(tmp_path / "photos", size=SIDE, held_out=tmp_path / "list")
    assert held_out.description.endswith("list` (2 more it names are not there)")


def test_several_folders_are_one_source(tmp_path: Path) -> None:
    folders = [write_photos(tmp_path / name, range(start, start + 12)) for name, start in (("one", 0), ("two", 20))]
    lists = []
    for name in ("00.png", "20.png"):
        lists.append(tmp_path / f"{name}.txt")
        lists[-1].write_text(name)
    training, held_out = open_sources(folders, size=SIDE, held_out=lists)
    assert held_out.names == ["one/00.png", "two/20.png"]
    assert len(training) == 22
    assert np.array_equal(
        training.plain(11, chance())[1], open_sources(folders[1], size=SIDE, held_out=lists[1])[0].plain(0, chance())[1]
    )


def test_folders_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    folders = [write_photos(tmp_path / "photos", range(12)), write_pairs(tmp_path / "pairs")]
    with pytest.raises(DataInvalid, match=r"photos` holds photos and `.*pairs` pairs side by side"):
        open_sources(folders, size=SIDE)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    photos, pairs = write_photos(tmp_path / "photos", range(12)), write_pairs(tmp_path / "pairs")
    with pytest.raises(OptionInvalid, match="`direction` is `BtoC`; it must be one of AtoB, BtoA"):
        open_sources(pairs, size=SIDE, direction="BtoC")  # type: ignore[arg-type]
    with pytest.raises(OptionInvalid, match="`segment` is for photos"):
        open_sources(pairs, size=SIDE, segment=True)
    with pytest.raises(OptionInvalid, match="`direction` and `drawings` are for drawings"):
        open_sources(photos, size=SIDE, direction="BtoA")
    with pytest.raises(OptionInvalid, match="2 folders and 1 lists"):
        open_sources([photos, photos], size=SIDE, held_out=[tmp_path / "list"])


def test_where_a_subject_is_looked_for_some_drawings_lose_what_surrounds_it(tmp_path: Path) -> None:
    for number in range(12):  # a disc below a board
        photo = np.full((96, 96, 3), (200, 230, 200), np.uint8)
        photo[4:14, 8:88] = (70, 90, 70)
        cv2.circle(photo, (48, 48), 22 + number % 3, (20, 20, 160 + number), -1)
        assert cv2.imwrite(str(tmp_path / f"{number:02d}.png"), photo)
    masks = tmp_path / "masks"
    training, _ = open_sources(tmp_path, size=Size(96, 96), segment=True, mask_folder=masks)
    whole, _ = open_sources(tmp_path, size=Size(96, 96))

    def bare(source: Source) -> float:
        """Share of the drawings without the board."""
        return float(np.mean([source.plain(n % 10, chance(n))[0][:16].min() > 128 for n in range(80)]))

    assert bare(whole) + 0.1 < bare(training) < 0.9
    assert "of the subject alone" in training.description
    assert 1 <= len(list(masks.iterdir())) <= 11
    assert all(training.pair(0, chance(seed))[0].shape == (96, 96) for seed in range(6))


def test_pictures_are_kept_while_there_is_room_for_them() -> None:
    loads: list[int] = []

    def load(number: int) -> Any:
        loads.append(number)
        return np.full((10, 10), number, np.uint8)

    keeper = Keeper(most_bytes=250)
    for _ in range(2):
        for number in (1, 2, 3):
            assert keeper.get(number, functools.partial(load, number))[0, 0] == number
    assert loads == [1, 2, 3, 3]
    assert pickle.loads(pickle.dumps(keeper)).get(1, lambda: load(9))[0, 0] == 9  # noqa: S301 - our own
