from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sketchbridge_cli import main
from sketchbridge_training import Settings
from sketchbridge_training.command import add_arguments
from tests.training.conftest import write_photos

RECIPES = Path(__file__).parent.parent.parent / "training" / "recipes"
TINY = ("--epochs", "1", "--batch-size", "1", "--ngf", "2", "--ndf", "2", "--workers", "0")


def call(*words: str | Path) -> int:
    return main(["train", *(str(word) for word in words)])


def test_the_command_trains_shows_progress_and_names_the_checkpoint(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos, "--run", tmp_path / "run", *TINY, "--batch-size", "4") == 0
    out, err = capsys.readouterr()
    assert out == f"wrote: `{tmp_path / 'run' / 'checkpoint.pt'}`\n"
    assert "2/2 [" in err  # 11 photos in batches of 4
    assert "l1=" in err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.pt",
        "losses.csv",
        "previews",
        "tensorboard",
    ]
    assert (tmp_path / "run" / "checkpoint.pt").stat().st_mode == (tmp_path / "run" / "losses.csv").stat().st_mode


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "0"), "`epochs` is 0; it must be at least 1"),
        (("--epochs", "-3"), "`epochs` is -3"),
        (("--batch-size", "0"), "`batch_size` is 0"),
        (("--ngf", "-1"), "`ngf` is -1"),
        (("--ndf", "0"), "`ndf` is 0"),
        (("--seed", "-1"), "`seed` is -1; it must be at least 0"),
        (("--workers", "-1"), "`workers` is -1"),
        (("--device", "gpu"), "There is no device `gpu` here"),
        (("--device", "cuda:77"), "There is no device `cuda:77` here"),
        (("--device", "meta"), "There is no device `meta` here"),
        (("--steps", "0"), "`steps` is 0"),
        (("--l1-weight", "-1"), "`l1_weight` is -1.0; it must be 0 or more"),
        (("--feature-weight", "nan"), "`feature_weight` is nan"),
        (("--average-decay", "1"), "`average_decay` is 1.0; it must be in [0, 1)"),
        (("--augment", "colour,rotation"), "`augment` is colour, rotation; it takes each of colour, translation"),
        (("--batch-size", "64"), "1 epochs of 11 pictures in batches of 64 are 0 steps"),
    ],
)
def test_an_option_that_cannot_be_is_exit_2_in_one_line(
    words: tuple[str, ...], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos, "--run", tmp_path / "run", *TINY, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_name_is_a_folder_below_runs_and_cannot_lead_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(photos, "--name", "tiny", *TINY, "--steps", "1") == 0
    assert capsys.readouterr().out == "wrote: `runs/tiny/checkpoint.pt`\n"
    for name in ("../tiny", "", "a/b", ".hidden"):
        assert call(photos, "--name", name, *TINY) == 2
        assert "can't be a generator's name" in capsys.readouterr().err


def test_the_command_says_what_it_found_before_it_trains(
    photos: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos, "--run", run, *TINY, "--batch-size", "2", "--seed", "5") == 0
    assert capsys.readouterr().err.startswith(f"training on 11 photos in `{photos}`; ")


def test_options_can_come_from_a_file_with_comments_and_those_after_it_win(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "tiny.args"
    options.write_text("# a tiny one\n--epochs 1 --batch-size 1\n--ngf 2\n--ndf 2  # narrow\n--workers 0\n--steps 40\n")
    assert call(photos, f"@{options}", "--run", tmp_path / "run", "--steps", "2") == 0
    assert "2/2 [" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"), [('--name "oops', "No closing quotation"), ("@again.args", "can't name another one: `@again")]
)
def test_a_line_of_an_options_file_that_cannot_be_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    (tmp_path / "again.args").write_text(f"--steps 4\n{line}\n")
    assert call(tmp_path, f"@{tmp_path / 'again.args'}") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.args")), ids=lambda path: path.stem)
def test_the_recipes_of_the_shipped_generators_are_taken_and_name_lists_that_are_there(recipe: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["photos", f"@{recipe}"])
    Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    assert arguments.name == recipe.stem
    for path in [*arguments.held_out, arguments.drawings_folder]:
        assert path is None or (RECIPES.parent.parent / path).exists(), path


def test_unusable_photos_are_exit_1_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_photos(tmp_path / "photos", range(12))
    assert call(tmp_path / "nowhere", "--run", tmp_path / "run", *TINY) == 1
    assert "nowhere` is not a folder" in capsys.readouterr().err
    (photos / "04.png").write_bytes(b"")
    assert call(photos, "--run", tmp_path / "run", *TINY) == 1
    assert f"error: `{photos / '04.png'}` can't be used: The picture is empty" in capsys.readouterr().err
    (photos / "04.png").unlink()
    assert call(photos, "--run", tmp_path / "run", *TINY) == 1
    assert "holds 11 photos" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_a_file_is_exit_1(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").touch()
    assert call(photos, "--run", tmp_path / "run", *TINY) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_resuming_under_other_settings_is_exit_1_and_says_both(
    photos: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos, "--run", run, *TINY) == 1
    err = capsys.readouterr().err
    assert "batch_size=2" in err
    assert "batch_size=1" in err
    assert "name another run folder" in err


def test_help_has_examples_and_needs_neither_torch_nor_opencv_nor_numpy() -> None:
    code = (
        "import sys; from sketchbridge_cli import main; status = main(['train', '--help']); "
        "print(status, sorted({'torch', 'cv2', 'numpy', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n")
    assert "examples:\n  sketchbridge train photos/shoes --name shoes" in done.stdout


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(
    stop: signal.Signals, status: int, photos: Path, tmp_path: Path
) -> None:
    words = [*TINY, "--epochs", "500", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sketchbridge_cli", "train", str(photos), "--run", str(tmp_path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        losses = tmp_path / "losses.csv"
        while process.poll() is None and not (losses.exists() and len(losses.read_text().splitlines()) > 2):
            time.sleep(0.05)
        os.killpg(process.pid, stop)  # as a terminal does with Ctrl-C: the workers get it too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, err
    step = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["sketchbridge"]["step"]
    assert step >= 2
    assert out == ""
    assert err.splitlines()[-1] == (
        f"interrupted. `{tmp_path / 'checkpoint.pt'}` holds step {step} of 5500; the same command resumes there."
    )
    assert "Traceback" not in err
    assert losses.read_text().splitlines()[-1].startswith(f"{step},")
