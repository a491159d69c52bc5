"""A run that is stopped, saved and looked at in any way ends with the very weights of one that never was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sketchbridge_preprocess import decode
from sketchbridge_training import Progress, Settings
from sketchbridge_training.progress import LossLog
from sketchbridge_training.settings import AUGMENTATIONS
from tests.training.conftest import TINY, open_trainer


def ignore(_progress: Progress) -> None:
    pass


def stop_after(step: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise error

    return report


def content_of(run: Path) -> Any:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two checkpoints differ in a single bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [found for key in one for found in differences(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        return [
            found
            for key, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{name}/{key}")
        ]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if one == other else [name]


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 steps that was saved and previewed once, at its end."""
    run = tmp_path_factory.mktemp("uninterrupted")
    open_trainer(photos, run).train(report=ignore)
    return run


def test_a_run_that_was_interrupted_and_resumed_ends_with_exactly_the_same_weights(
    photos: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_trainer(photos, tmp_path).train(report=stop_after(2))
    assert content_of(tmp_path)["sketchbridge"]["step"] == 2
    with (tmp_path / "losses.csv").open("a") as file:  # what a process killed in its fifth step would leave behind
        file.write("3,9.0,,9.0,9.0\n4,9.0,,9.0,9.0\n5,9.")
    torch.manual_seed(999)  # another process would have other random numbers
    resumed = open_trainer(photos, tmp_path)
    assert (resumed.step, resumed.saved_step) == (2, 2)
    resumed.train(report=ignore)
    assert differences(content_of(uninterrupted), content_of(tmp_path)) == []
    assert (tmp_path / "losses.csv").read_bytes() == (uninterrupted / "losses.csv").read_bytes()


def test_twenty_steps_with_everything_switched_on_are_resumed_in_the_middle_to_the_same_weights(
    photos: Path, tmp_path: Path
) -> None:
    everything = Settings(
        steps=20,
        batch_size=2,
        ngf=2,
        ndf=2,
        gan_loss="lsgan",
        feature_weight=10.0,
        spectral_norm=True,
        augment=AUGMENTATIONS,
        seed=3,
    )
    open_trainer(photos, tmp_path / "whole", everything).train(report=ignore)
    with pytest.raises(KeyboardInterrupt):
        open_trainer(photos, tmp_path / "parts", everything).train(report=stop_after(9))
    resumed = open_trainer(photos, tmp_path / "parts", everything)
    assert (resumed.step, resumed.steps) == (9, 20)
    resumed.train(report=ignore)
    assert differences(content_of(tmp_path / "whole"), content_of(tmp_path / "parts")) == []


def test_saving_and_previewing_all_the_time_changes_nothing(photos: Path, uninterrupted: Path, tmp_path: Path) -> None:
    open_trainer(photos, tmp_path).train(report=ignore, save_every=2, preview_every=3)
    assert differences(content_of(uninterrupted), content_of(tmp_path)) == []
    previews = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert previews == ["000003.png", "000005.png"]


def test_a_callers_use_of_random_numbers_changes_nothing(photos: Path, uninterrupted: Path, tmp_path: Path) -> None:
    def report(progress: Progress) -> None:
        torch.manual_seed(progress.step % 2)
        torch.rand(progress.step)

    open_trainer(photos, tmp_path).train(report=report)
    assert differences(content_of(uninterrupted), content_of(tmp_path)) == []


def test_training_leaves_the_callers_random_numbers_alone(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        open_trainer(photos, tmp_path).train(report=stop_after(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_comparison_sees_another_seed_and_dropout_is_at_work(
    photos: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_trainer(photos, tmp_path / "a").train(report=stop_after(1))
    monkeypatch.setattr("sketchbridge_training.pix2pix._DROPOUT_STREAM", 77)
    with pytest.raises(KeyboardInterrupt):
        open_trainer(photos, tmp_path / "b").train(report=stop_after(1))
    found = differences(content_of(tmp_path / "a"), content_of(tmp_path / "b"))
    assert any(name.startswith("/training/generator") for name in found)
    assert differences(content_of(uninterrupted), content_of(tmp_path / "a")) != []


def test_more_epochs_go_on_from_the_last_step(photos: Path, uninterrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes((uninterrupted / "checkpoint.pt").read_bytes())
    trainer = open_trainer(photos, tmp_path, dataclasses.replace(TINY, epochs=2))
    assert (trainer.step, trainer.steps) == (5, 11)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(report=stop_after(6))
    assert content_of(tmp_path)["sketchbridge"] == {
        "family": "junyanz_unet",
        "norm": "running",
        "step": 6,
        "steps": 11,
    }


def test_a_finished_run_is_left_as_it_is(photos: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / "checkpoint.pt").stat()
    open_trainer(photos, uninterrupted).train(report=stop_after(1))
    after = (uninterrupted / "checkpoint.pt").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_checkpoint_with_entries_of_an_older_version_resumes(
    photos: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    content = content_of(uninterrupted)
    content["training"]["random_state"] = torch.get_rng_state()
    torch.save(content, tmp_path / "checkpoint.pt")
    assert open_trainer(photos, tmp_path).step == 5


def test_an_interrupt_within_a_step_leaves_the_last_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer(photos, tmp_path)
    step_of = torch.optim.Adam.step
    calls = []

    def interrupted_step(self: torch.optim.Adam, *arguments: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:  # the discriminator of step 2 has been updated, its generator has not
            raise KeyboardInterrupt
        return step_of(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(report=ignore, save_every=1)
    assert trainer.saved_step == content_of(tmp_path)["sketchbridge"]["step"] == 1


def test_the_losses_have_a_header_and_one_row_a_step(uninterrupted: Path) -> None:
    header, *rows = (uninterrupted / "losses.csv").read_text().splitlines()
    assert header == "step,l1,features,generator_gan,discriminator"
    assert [int(row.split(",")[0]) for row in rows] == [1, 2, 3, 4, 5]
    assert all(0 < float(loss) < 5 for row in rows for loss in row.split(",")[1:] if loss)


def test_a_log_without_a_header_and_with_repeated_rows_is_put_right(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("1,.5,,.5,.5\n2,.5,,.5,.5\n3,.5,,.5,.5\n2,.4,,.4,.4\n3,.4,,.4,.4\n4,.4,,.4,.4\n")
    LossLog(path, step=3).add(
        Progress(4, 9, l1=0.25, features=0.125, generator_gan=1, discriminator=0.5, learning_rate=2e-4)
    )
    assert path.read_text() == (
        "step,l1,features,generator_gan,discriminator\n"
        "1,.5,,.5,.5\n2,.4,,.4,.4\n3,.4,,.4,.4\n4,0.25000,0.12500,1.00000,0.50000\n"
    )


def test_the_averaged_weights_are_what_the_exporter_reads_and_their_statistics_are_measured(
    uninterrupted: Path,
) -> None:
    content = content_of(uninterrupted)
    assert content["sketchbridge"] == {"family": "junyanz_unet", "norm": "running", "step": 5, "steps": 5}
    trained = content["training"]["generator"]
    average = content["generator"]
    assert average.keys() == trained.keys()
    assert all(tensor.is_contiguous() for tensor in average.values())
    counted = {int(tensor) for name, tensor in average.items() if name.endswith("num_batches_tracked")}
    assert counted == {6}  # one pass over the photos, which is less than 40 batches
    assert differences(average, trained) != []


def test_the_preview_shows_drawing_painting_and_photo_of_each_held_out_photo(uninterrupted: Path) -> None:
    sheet = decode((uninterrupted / "previews" / "000005.png").read_bytes())
    assert sheet.shape[0] == round(3 * 256 * 0.6)
    assert sheet.shape[1] % 154 <= 1
