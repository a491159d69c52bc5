from __future__ import annotations

import multiprocessing
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from sketchbridge_preprocess import Size
from sketchbridge_training import DataInvalid, PairStream, TrainingError
from sketchbridge_training.layout import Item
from sketchbridge_training.loading import load_batches
from sketchbridge_training.pairs import to_image, to_tensor
from sketchbridge_training.photos import check_photos
from sketchbridge_training.sources import DrawnSource
from tests.training.conftest import write_photos

SIDE = Size(64, 64)


def stream_of(photos: Path, seed: int = 1) -> PairStream:
    items = [Item(path.name, path) for path in sorted(photos.iterdir())]
    return PairStream(DrawnSource(items, size=SIDE, description=""), seed=seed)


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


def test_batches_are_the_streams_pairs_in_order_from_any_batch_on(photos: Path) -> None:
    stream = stream_of(photos)
    batches = list(load_batches(stream, batch_size=3, first=2, stop=4, workers=0))
    assert [sketches.shape for sketches, _ in batches] == [(3, 3, 64, 64)] * 2
    flat = [pair for sketches, shown in batches for pair in zip(sketches, shown, strict=True)]
    assert all(equal(pair, stream[6 + offset]) for offset, pair in enumerate(flat))


def test_a_process_that_was_killed_is_missed_between_batches_and_said_in_a_sentence(photos: Path) -> None:
    batches = load_batches(stream_of(photos), batch_size=1, first=0, stop=400, workers=1)
    next(batches)
    time.sleep(1)  # it has drawn ahead and waits; killed while it holds a lock it shares, it would take that along
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(TrainingError, match=r"A process that draws was killed .*Use fewer --workers"):
        list(batches)


def test_pictures_survive_the_way_to_a_tensor_and_back() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.array_equal(to_image(to_tensor(picture)), picture)
    assert np.array_equal(to_image(to_tensor(picture[:, :, 0]))[:, :, 1], picture[:, :, 0])
    assert to_image(torch.full((3, 2, 2), 7.0)).min() == 255


def test_a_stream_sent_to_another_process_takes_no_pictures_along(photos: Path) -> None:
    stream = stream_of(photos)
    sent_unused = len(pickle.dumps(stream))
    pairs = [stream[index] for index in range(12)]
    sent = pickle.dumps(stream)
    assert len(sent) == sent_unused
    assert equal(pickle.loads(sent)[5], pairs[5])  # noqa: S301 - our own
