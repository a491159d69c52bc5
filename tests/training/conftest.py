"""Small real things to train on: a dozen drawn photos, and networks of two features a layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sketchbridge_preprocess import Size
from sketchbridge_training import Settings, Trainer, open_sources

TINY = Settings(epochs=1, batch_size=2, ngf=2, ndf=2, seed=5)  # 5 steps on the photos below


def open_trainer(data: Path, run: Path, settings: Settings = TINY, **options: Any) -> Trainer:
    """A trainer on a folder, at the real size, drawing in this process."""
    training, held_out = open_sources(data, size=Size(256, 256))
    return Trainer(training, held_out, run, settings, workers=0, **options)


def draw_photo(number: int) -> Any:
    """(120, 100, 3) uint8: something round and something square, in colours of their own, on a light ground."""
    random = np.random.default_rng(number)
    photo = np.full((120, 100, 3), int(random.integers(200, 256)), np.uint8)
    colours = [tuple(int(level) for level in random.integers(0, 180, 3)) for _ in range(2)]
    cv2.circle(photo, (int(random.integers(30, 70)), int(random.integers(30, 50))), 22, colours[0], -1)
    cv2.rectangle(photo, (20, 70), (int(random.integers(50, 90)), 105), colours[1], -1)
    return photo


def write_photos(folder: Path, numbers: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), draw_photo(number))
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Layers this small are many times slower on two busy cores than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos; tests that change a folder write their own."""
    return write_photos(tmp_path_factory.mktemp("data") / "photos", range(12))


@pytest.fixture(scope="session")
def first_checkpoint(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a TINY run before its first step."""
    trainer = open_trainer(photos, tmp_path_factory.mktemp("saved"))
    trainer.save()
    return trainer.checkpoint_path.read_bytes()


@pytest.fixture
def run(first_checkpoint: bytes, tmp_path: Path) -> Path:
    """A run folder with that checkpoint."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(first_checkpoint)
    return tmp_path / "run"
