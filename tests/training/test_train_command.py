from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sketchbridge_cli import main
from tests.training.conftest import write_photos

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
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint.pt", "losses.csv", "previews"]
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
        (("--batch-size", "64"), "1 epochs of 11 photos in batches of 64 are 0 steps"),
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
    assert "examples:\n  sketchbridge train photos/shoes --run runs/shoes" in done.stdout


def test_ctrl_c_finishes_the_step_saves_says_how_to_resume_and_is_exit_130(photos: Path, tmp_path: Path) -> None:
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
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    step = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["sketchbridge"]["step"]
    assert step >= 2
    assert out == ""
    assert err.splitlines()[-1] == (
        f"interrupted. `{tmp_path / 'checkpoint.pt'}` holds step {step} of 5500; the same command resumes there."
    )
    assert "Traceback" not in err
    assert losses.read_text().splitlines()[-1].startswith(f"{step},")
