"""`sketchbridge quality` from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sketchbridge_cli import main
from sketchbridge_training import DataInvalid
from sketchbridge_training.photos import find_photos
from sketchbridge_training.quality.failures import erase_half, scribble
from sketchbridge_training.quality.generator import Generator, find_artefact
from sketchbridge_training.quality.report import BEGIN, END, block, card_block, with_block
from sketchbridge_training.quality.round_trip import served_lines
from tests.conftest import ROOT
from tests.training.conftest import draw_photo, write_photos
from tests.training.quality_things import write_domains, write_generator


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with photos/ and splits/ of two domains, and a repository with a generator of `pale` alone."""
    write_domains(tmp_path)
    write_generator(tmp_path / "repository", "pale")
    return tmp_path


def call(place: Path, *words: str | Path) -> int:
    return main(
        [
            "quality",
            *("--data", str(place / "photos"), "--splits", str(place / "splits")),
            *("--repository", str(place / "repository"), "--out", str(place / "out")),
            *(str(word) for word in words),
        ]
    )


def test_a_generator_is_measured_and_a_missing_one_is_skipped_with_a_sentence(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawings, docs = place / "drawings", place / "docs"
    (drawings / "pale").mkdir(parents=True)
    assert cv2.imwrite(str(drawings / "pale" / "round_pencil.png"), served_lines(draw_photo(5)))
    docs.mkdir()
    (docs / "quality.md").write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n")
    (docs / "models").mkdir()
    (docs / "models" / "pale.md").write_text(f"# Pale\n{BEGIN}\n{END}\n")
    assert call(place, "--drawings", drawings, "--docs", docs) == 0
    out, err = capsys.readouterr()
    assert out == f"wrote: `{place / 'out' / 'quality.json'}`\n"
    assert "skipped `ripe`: there is no" in err
    assert "26/26 [" in err  # steps of the classifier
    names = sorted(path.name for path in (place / "out").iterdir())
    assert names == ["classifier.pt", "quality.json", "quality_pale.png", "validation_pale.png"]
    report = json.loads((place / "out" / "quality.json").read_text())
    assert list(report["domains"]) == ["pale"]
    pale = report["domains"]["pale"]
    assert pale["photos"] == {"training": 12, "held_out": 2, "held_out_identities": 2, "held_out_by_name": False}
    figures = pale["figures"]
    assert figures["by_method"]["canny"]["f1"] > 0.5  # it copies the lines, which are then drawn on both sides
    assert figures["domain"]["photos"]["count"] == figures["domain"]["paintings"]["count"] == 2
    assert figures["colour"][0] == 0  # a drawing has none
    assert figures["by_hand"]["count"] == figures["by_hand_domain"]["count"] == 1
    assert set(report["machine"]["versions"]) >= {"torch", "onnxruntime"}
    assert str(place) not in json.dumps(report)
    assert "| round-trip edge F1" in (docs / "models" / "pale.md").read_text()
    page = (docs / "quality.md").read_text()
    assert page.startswith(f"# Before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "| `pale` | 2 (2) |" in page
    assert (docs / "quality.json").read_bytes() == (place / "out" / "quality.json").read_bytes()
    sheet = cv2.imread(str(docs / "pictures" / "quality_pale.png"))
    assert sheet is not None
    assert sheet.shape[1] == 6 * 164 + 4
    assert call(place, "--drawings", drawings, "--classifier", place / "out" / "classifier.pt") == 0
    assert "taught before on these photos" in capsys.readouterr().err
    again = json.loads((place / "out" / "quality.json").read_text())
    assert again["domains"] == report["domains"]


def test_a_domain_of_ones_own_needs_no_list_and_is_then_split_as_training_splits_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for number in range(14, 40):
        assert cv2.imwrite(str(place / "photos" / "pale" / f"{number}.png"), draw_photo(number))
    photos = sorted((place / "photos" / "pale").iterdir())
    _, by_training = find_photos(place / "photos" / "pale")
    assert 2 <= len(by_training) < 10
    assert main(["quality", "--data", "photos", "--repository", "repository", "--domains", "pale"]) == 0
    assert f"the {len(by_training)} photos are held out that `sketchbridge train`" in capsys.readouterr().err
    report = json.loads((place / "out" / "quality" / "quality.json").read_text())
    assert report["domains"]["pale"]["photos"] == {
        "training": len(photos) - len(by_training),
        "held_out": len(by_training),
        "held_out_identities": len(by_training),
        "held_out_by_name": True,
    }


def test_a_folder_without_a_list_that_nobody_asked_for_is_left_alone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(place / "photos" / "moons", range(3))  # too few to split, were it read
    assert call(place, "--domains", "pale") == 0
    assert "moons" not in capsys.readouterr().err


def test_what_cannot_be_measured_is_exit_1_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(message: str, *words: str | Path) -> None:
        assert call(place, *words) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith("error: ")
        assert message in err.splitlines()[-1]
        assert "Traceback" not in err

    fails("nowhere` is not a folder", "--data", place / "nowhere")
    fails("has no folders with photos in it", "--data", place / "splits")
    fails("has a generator for none of ripe", "--domains", "ripe")
    fails("has a generator for none of pale, ripe", "--repository", place / "nowhere")
    fails("There is no list of held-out photos", "--splits", place / "nowhere")
    fails("none.pt` is not there", "--classifier", place / "none.pt")
    fails("quality.md", "--docs", place / "nowhere")
    (place / "splits" / "pale.csv").write_text("file\n12.png\n")
    fails("12.png` is held out of `pale`; figures need two photos at least")
    (place / "splits" / "pale.csv").write_text("file\n12.png\n13.png\n")
    (place / "splits" / "ripe.csv").write_text("file,identity,source_path\n")
    fails("names 0 of the 14 photos")
    (place / "splits" / "ripe.csv").write_text("file\n12.png\n")
    (place / "photos" / "pale" / "05.png").write_bytes(b"no picture")
    fails("05.png` can't be used")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", "-1"), "`seed` is -1; it must be at least 0"),
        (("--domains", ","), "expected names with commas between them"),
        (("--domains", "pale,moons"), "there are pale, ripe"),
    ],
)
def test_an_option_that_cannot_be_is_exit_2(
    place: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(place, *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_highest_version_is_measured_and_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    assert find_artefact(tmp_path, "pale") is None
    for version, side in ((9, 128), (10, 256)):
        write_generator(tmp_path, "pale", version=version, side=side)
    artefact = find_artefact(tmp_path, "pale")
    assert artefact is not None
    assert artefact.version == 10
    drawing = served_lines(draw_photo(1))
    assert (Generator(artefact).paint(drawing) == drawing).all()
    artefact.path.unlink()
    small = find_artefact(tmp_path, "pale")
    assert small is not None
    with pytest.raises(DataInvalid, match="expected one input and one output of uint8"):
        Generator(small)
    small.path.write_bytes(b"no graph")
    with pytest.raises(DataInvalid, match="can't be loaded"):
        Generator(small)


def test_drawings_made_to_fail_are_what_their_captions_say() -> None:
    drawing = served_lines(draw_photo(2))
    left = (erase_half(drawing, 1) < 128).sum() / (drawing < 128).sum()
    assert 0.2 < left <= 0.5
    assert (erase_half(drawing, 1)[erase_half(drawing, 1) < 128] == drawing[erase_half(drawing, 1) < 128]).all()
    assert 0.005 < (scribble(1) < 128).mean() < 0.2
    assert (scribble(1) == scribble(1)).all()
    assert (scribble(1) != scribble(2)).any()


def test_a_page_without_the_markers_is_refused() -> None:
    for page in ("", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"):
        with pytest.raises(DataInvalid, match="once each, in this order"):
            with_block(page, "new")
    assert with_block(f"a{BEGIN}b{END}c", "new") == "anewc"


def test_the_tables_of_the_page_are_made_from_the_figures_beside_it() -> None:
    figures = ROOT / "docs" / "quality.json"
    if not figures.exists():
        pytest.skip("docs/quality.json is made by `sketchbridge quality --docs docs`, which needs the photos")
    report = json.loads(figures.read_text())
    assert block(report) in (ROOT / "docs" / "quality.md").read_text()
    for name in report["domains"]:
        assert card_block(name, report) in (ROOT / "docs" / "models" / f"{name}.md").read_text()


def test_help_needs_neither_torch_nor_opencv_nor_numpy() -> None:
    code = (
        "import sys; from sketchbridge_cli import main; status = main(['quality', '--help']); "
        "print(status, sorted({'torch', 'cv2', 'numpy', 'tqdm', 'onnxruntime', 'skimage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n")


def test_ctrl_c_is_exit_130_and_leaves_no_half_file(place: Path) -> None:
    random = np.random.default_rng(1)
    for number in range(100, 400):  # enough to learn from for a while
        noise = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        assert cv2.imwrite(str(place / "photos" / "ripe" / f"{number}.png"), noise)
    words = ["--data", place / "photos", "--splits", place / "splits", "--repository", place / "repository"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sketchbridge_cli", "quality", *map(str, words), "--out", str(place / "out")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        shown = ""
        while "classifier: " not in shown and process.poll() is None:
            shown += process.stderr.read(1)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, shown + rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not (place / "out").exists() or not list((place / "out").iterdir())
