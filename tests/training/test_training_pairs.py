from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from sketchbridge_preprocess import Size
from sketchbridge_training import DataInvalid, PairStream, find_photos
from sketchbridge_training.loading import load_batches
from sketchbridge_training.pairs import check_photos, load_photo, to_image, to_tensor
from tests.training.conftest import draw_photo, write_photos

SIDE = Size(64, 64)


def stream_of(photos: Path, seed: int = 1) -> PairStream:
    return PairStream(sorted(photos.iterdir()), size=SIDE, seed=seed)


def equal(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_pair_is_a_drawing_and_a_photo_in_the_networks_range(photos: Path) -> None:
    sketch, photo = stream_of(photos)[0]
    for tensor in (sketch, photo):
        assert tensor.shape == (3, 64, 64)
        assert tensor.dtype == torch.float32
        assert tensor.min() >= -1
        assert tensor.max() <= 1
    assert torch.equal(sketch[0], sketch[1])
    assert torch.equal(sketch[0], sketch[2])
    assert sketch.max() == 1  # white paper
    assert (sketch < 0).float().mean() > 0.005  # dark lines


def test_pair_i_depends_on_the_seed_and_i_and_nothing_read_before(photos: Path) -> None:
    forwards, backwards = stream_of(photos), stream_of(photos)
    first = [forwards[index] for index in range(6)]
    last = [backwards[index] for index in reversed(range(6))][::-1]
    assert all(equal(one, other) for one, other in zip(first, last, strict=True))
    assert not equal(first[0], stream_of(photos, seed=2)[0])


def test_every_epoch_visits_every_photo_once_in_another_order(tmp_path: Path) -> None:
    for level in range(12):  # one gray a photo survives turns and shifts
        Pillow.new("L", (32, 32), 20 * level).save(tmp_path / f"{level:02d}.png")
    stream = stream_of(tmp_path)
    seen = [round((float(stream[index][1].mean()) + 1) * 127.5 / 20) for index in range(36)]
    epochs = [seen[:12], seen[12:24], seen[24:]]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_same_photo_is_never_shown_the_same_twice(tmp_path: Path) -> None:
    stream = stream_of(write_photos(tmp_path, range(1)))
    pairs = [stream[index] for index in range(4)]
    assert not any(equal(pairs[i], pairs[j]) for i in range(4) for j in range(i))


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


def break_pixels(path: Path) -> None:
    """Damage that no header shows."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 10
    data[middle : middle + 60] = bytes(60)
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_process_draws_the_pairs_are_the_same_and_a_broken_photo_is_named_in_one_line(
    tmp_path: Path, workers: int
) -> None:
    photos = sorted(write_photos(tmp_path, range(12)).iterdir())
    break_pixels(photos[5])
    check_photos(photos)
    stream = stream_of(tmp_path)
    batches = load_batches(stream, batch_size=1, first=0, stop=12, workers=workers)
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    with pytest.raises(DataInvalid) as raised:
        drawn.extend(batches)
    assert str(raised.value).startswith(f"`{photos[5]}` can't be used: The PNG")
    assert "\n" not in str(raised.value)
    assert len(drawn) < 12
    for index, (sketches, shown) in enumerate(drawn):
        assert equal((sketches[0], shown[0]), stream[index])


def test_a_photo_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"gone\.png` can't be used: .*No such file"):
        load_photo(tmp_path / "gone.png", SIDE)


def test_batches_are_the_streams_pairs_in_order_from_any_batch_on(photos: Path) -> None:
    stream = stream_of(photos)
    batches = list(load_batches(stream, batch_size=3, first=2, stop=4, workers=0))
    assert [sketches.shape for sketches, _ in batches] == [(3, 3, 64, 64)] * 2
    flat = [pair for sketches, shown in batches for pair in zip(sketches, shown, strict=True)]
    assert all(equal(pair, stream[6 + offset]) for offset, pair in enumerate(flat))


def test_pictures_survive_the_way_to_a_tensor_and_back() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.array_equal(to_image(to_tensor(picture)), picture)
    assert np.array_equal(to_image(to_tensor(picture[:, :, 0]))[:, :, 1], picture[:, :, 0])
    assert to_image(torch.full((3, 2, 2), 7.0)).min() == 255


def test_a_photo_is_cropped_to_its_middle(tmp_path: Path) -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = 255
    (tmp_path / "wide.png").write_bytes(png_of(wide))
    assert load_photo(tmp_path / "wide.png", SIDE).min() == 255
