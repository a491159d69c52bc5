"""A run that begins with the weights of another, and what its previews show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchbridge_preprocess import decode, encode
from sketchbridge_training import CheckpointInvalid, DataInvalid
from sketchbridge_training.preview import load_drawings, make_sheet
from tests.training.conftest import TINY, draw_photo, open_trainer


def test_a_run_begins_with_the_averaged_weights_of_another(photos: Path, run: Path, tmp_path: Path) -> None:
    first = torch.load(run / "checkpoint.pt", weights_only=True)
    other = dataclasses.replace(TINY, seed=77, epochs=2)
    trainer = open_trainer(photos, tmp_path / "second", other, start_from=run / "checkpoint.pt")
    trainer.save()
    second = torch.load(trainer.checkpoint_path, weights_only=True)
    assert trainer.step == 0
    for name, value in first["generator"].items():
        if "running" not in name and "tracked" not in name:  # measured afresh, on other drawings
            assert torch.equal(value, second["generator"][name]), name
            assert torch.equal(value, second["training"]["generator"][name]), name
    for name, value in first["training"]["discriminator"].items():
        assert torch.equal(value, second["training"]["discriminator"][name]), name


def test_a_discriminator_of_another_kind_is_made_afresh(photos: Path, run: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(TINY, spectral_norm=True, ndf=3)
    trainer = open_trainer(photos, tmp_path / "second", other, start_from=run / "checkpoint.pt")
    trainer.train(report=lambda _progress: None)
    assert trainer.step == 5


def test_a_run_that_is_there_is_resumed_and_not_begun_again(photos: Path, run: Path) -> None:
    trainer = open_trainer(photos, run, TINY, start_from=Path("nowhere.pt"))
    assert trainer.saved_step == 0


def test_a_generator_of_another_width_or_a_missing_file_is_refused(photos: Path, run: Path, tmp_path: Path) -> None:
    wider = dataclasses.replace(TINY, ngf=3)
    with pytest.raises(CheckpointInvalid, match="other layers than one with ngf 3"):
        open_trainer(photos, tmp_path / "second", wider, start_from=run / "checkpoint.pt")
    with pytest.raises(CheckpointInvalid, match=r"nowhere\.pt` can't be read: No such file.*Name another checkpoint"):
        open_trainer(photos, tmp_path / "second", TINY, start_from=Path("nowhere.pt"))


@pytest.mark.parametrize(
    "content",
    [
        {"model.model.0.weight": torch.zeros(3)},
        {"sketchbridge": {}, "generator": {"a": 1}, "training": {}},
        {"sketchbridge": {}, "generator": {"a": torch.zeros(1)}, "training": 3},
    ],
)
def test_to_start_from_a_file_of_somebody_else_is_refused(photos: Path, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointInvalid, match=r"other\.pt` .* Name another checkpoint to start from"):
        open_trainer(photos, tmp_path / "run", start_from=tmp_path / "other.pt")


def test_the_sheet_shows_drawings_paintings_and_photos_and_then_drawings_of_ones_own() -> None:
    sketch, photo = np.full((50, 50, 3), 255, np.uint8), np.full((50, 50, 3), 9, np.uint8)
    pairs, own = [(sketch, photo)] * 3, [np.full((50, 50, 3), 77, np.uint8)] * 2
    sheet = make_sheet(pairs, own, lambda drawing: np.asarray(255 - drawing, np.uint8))
    cells = sheet.reshape(5, 30, 3, 30, 3).transpose(0, 2, 1, 3, 4)
    levels = [[int(np.median(cell)) for cell in row] for row in cells]
    assert levels == [[255] * 3, [0] * 3, [9] * 3, [77, 77, 255], [178, 178, 255]]


def test_drawings_for_the_preview_are_prepared_as_the_server_does(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="holds no drawings"):
        load_drawings(tmp_path)
    with pytest.raises(DataInvalid, match=r"is not a folder.* holds the drawings"):
        load_drawings(tmp_path / "nowhere")
    (tmp_path / "._chalk.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "chalk.png").write_bytes(encode(255 - draw_photo(1)))
    (drawing,) = load_drawings(tmp_path)
    assert drawing.shape == (256, 256, 3)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataInvalid, match=r"broken\.png` can't be used"):
        load_drawings(tmp_path)


def test_a_run_paints_the_drawings_it_was_given(photos: Path, run: Path) -> None:
    plain = open_trainer(photos, run).preview()
    with_own = open_trainer(photos, run, drawings=[np.full((256, 256, 3), 255, np.uint8)]).preview()
    assert with_own.shape[0] == pytest.approx(plain.shape[0] * 5 / 3, abs=2)
    assert decode((run / "previews" / "000000.png").read_bytes()).shape == with_own.shape
