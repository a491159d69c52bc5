"""What is wrong is said in a sentence, and what was there before stays whole."""

from __future__ import annotations

import dataclasses
import io
import math
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sketchbridge_training
from sketchbridge_cli import main
from sketchbridge_preprocess import Size
from sketchbridge_training import CheckpointInvalid, OptionInvalid, Settings, Trainer, TrainingError, open_sources
from sketchbridge_training.checkpoint import read_checkpoint, write_checkpoint
from sketchbridge_training.progress import Board, Progress
from tests.training.conftest import TINY, open_trainer


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused_by_name(photos: Path, run: Path, kept: float) -> None:
    path = run / "checkpoint.pt"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if kept < 1 else int(kept)])
    with pytest.raises(CheckpointInvalid, match=r"checkpoint\.pt` is damaged or no checkpoint .*Name another run"):
        open_trainer(photos, run)


@pytest.mark.parametrize("content", [{"model.weight": torch.zeros(3)}, [1, 2], torch.zeros(3), {"generator": {}}])
def test_a_checkpoint_of_somebody_else_is_refused(photos: Path, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointInvalid, match="was not written by `sketchbridge train`"):
        open_trainer(photos, tmp_path)


@pytest.mark.parametrize("change", [{"colour": 1}, {"epochs": 0}, {"gan_loss": "wgan"}])
def test_settings_that_this_version_does_not_know_are_refused(photos: Path, run: Path, change: dict[str, int]) -> None:
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content["training"]["settings"].update(change)
    torch.save(content, run / "checkpoint.pt")
    with pytest.raises(CheckpointInvalid, match="another version"):
        open_trainer(photos, run)


@pytest.mark.parametrize("part", ["generator", "discriminator", "optimisers"])
def test_networks_that_do_not_fit_the_settings_are_refused(photos: Path, run: Path, part: str) -> None:
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content["training"][part] = {}
    torch.save(content, run / "checkpoint.pt")
    with pytest.raises(CheckpointInvalid, match="doesn't hold the networks that its settings describe"):
        open_trainer(photos, run)


def test_other_settings_than_the_runs_are_refused(photos: Path, run: Path) -> None:
    for change in ({"seed": 6}, {"ngf": 4}, {"l1_weight": 10.0}, {"learning_rate": 1e-4}):
        with pytest.raises(CheckpointInvalid, match="was started with Settings"):
            open_trainer(photos, run, dataclasses.replace(TINY, **change))


def test_holding_out_what_a_run_was_trained_on_is_refused(photos: Path, run: Path, tmp_path: Path) -> None:
    trained_on = torch.load(run / "checkpoint.pt", weights_only=True)["training"]["pictures"]
    assert len(trained_on) == 11
    later = tmp_path / "later.txt"
    later.write_text(f"{trained_on[3]}\n{trained_on[7]}\n")
    training, held_out = open_sources(photos, size=Size(256, 256), held_out=later)
    with pytest.raises(CheckpointInvalid, match="was trained on 2 of the pictures that are to be held out now"):
        Trainer(training, held_out, run, TINY, workers=0)


def test_fewer_epochs_than_are_done_are_refused(photos: Path, run: Path) -> None:
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content["sketchbridge"]["step"] = 40
    torch.save(content, run / "checkpoint.pt")
    with pytest.raises(OptionInvalid, match="are 5 steps, and 40 are done"):
        open_trainer(photos, run)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_half_way_leaves_the_old_checkpoint_and_no_litter(
    run: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "checkpoint.pt"
    before = path.read_bytes()
    checkpoint = read_checkpoint(path, device=torch.device("cpu"))

    def fail(_content: object, file: Any) -> None:
        file.write(b"PK half of it")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(type(error)):
        write_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(run.iterdir()) == [path]


def test_torchs_own_words_for_a_full_disk_become_the_systems(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "checkpoint.pt"
    checkpoint = read_checkpoint(path, device=torch.device("cpu"))
    save = torch.save

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 50_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(torch, "save", lambda content, _file: save(content, Full()))
    with pytest.raises(OSError, match=r"No space left on device: .*checkpoint\.pt"):
        write_checkpoint(path, checkpoint)
    assert list(run.iterdir()) == [path]


def test_losses_that_are_no_numbers_end_the_run_before_they_are_saved(photos: Path, tmp_path: Path) -> None:
    trainer = open_trainer(photos, tmp_path, dataclasses.replace(TINY, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"losses of step [1-5] are no numbers any more.*lower learning rate"):
        trainer.train(report=lambda _: None)
    assert not trainer.checkpoint_path.exists()


def test_a_partial_file_that_a_killed_process_left_is_overwritten(run: Path) -> None:
    path = run / "checkpoint.pt"
    checkpoint = read_checkpoint(path, device=torch.device("cpu"))
    (run / ".checkpoint.pt.partial").write_bytes(b"half")
    path.unlink()
    write_checkpoint(path, checkpoint)
    assert list(run.iterdir()) == [path]
    assert read_checkpoint(path, device=torch.device("cpu")).settings == TINY


def test_a_disk_that_is_full_while_training_is_exit_1_and_the_old_checkpoint_stands(
    photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "checkpoint.pt").read_bytes()

    def fail(_content: object, _file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    words = f"train {photos} --run {run} --epochs 1 --batch-size 2 --ngf 2 --ndf 2 --seed 5 --workers 0"
    assert main(words.split()) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"error: [Errno 28] No space left on device: '{run / 'checkpoint.pt'}'"
    )
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.0}, {"learning_rate": math.nan}, {"l1_weight": -1.0}, {"l1_weight": math.inf}]
)
def test_rates_and_weights_outside_their_range_are_refused(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(OptionInvalid, match=f"`{name}` is "):
        dataclasses.replace(Settings(), **change)


def test_a_board_whose_disk_is_full_says_so_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    progress = Progress(10, 20, l1=0.5, features=None, generator_gan=1, discriminator=0.5, learning_rate=2e-4)
    board = Board(tmp_path, step=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        board.add(progress)
        with pytest.raises(OSError, match="File too large"):
            board.add_sheet(np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8), step=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    board.close()


def test_schedules_below_one_step_are_refused(photos: Path, tmp_path: Path) -> None:
    trainer = open_trainer(photos, tmp_path)
    for name in ("save_every", "preview_every"):
        with pytest.raises(OptionInvalid, match=f"`{name}` is 0"):
            trainer.train(report=lambda _: None, **{name: 0})


def test_every_public_name_is_there_and_every_error_has_a_place_in_the_tree() -> None:
    members = {name: getattr(sketchbridge_training, name) for name in sketchbridge_training.__all__}
    tree = sys.modules["sketchbridge_training.errors"].__doc__ or ""
    errors = [name for name, member in members.items() if isinstance(member, type) and issubclass(member, Exception)]
    assert len(errors) == 4
    assert all(name in tree for name in errors)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sketchbridge_training.nonsense
