"""The tour of `make demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from sketchbridge_client import ModelInfo, ModelKind
from tests.conftest import ROOT

DEMO = ROOT / "examples" / "demo.py"
SKETCHES = ROOT / "examples" / "sketches"
DRAWN = {"cats": [Path("tabby_pencil.png"), Path("kitten_marker.png")], "shoes": [Path("boot_chalk.png")]}


def painter(name: str, *, ready: bool = True, reason: str = "") -> ModelInfo:
    kind = ModelKind.PAINTER if ready else ModelKind.UNKNOWN
    return ModelInfo(name, ("1",) if ready else (), kind, ready=ready, reason=reason)


@pytest.mark.server
def test_the_tour_paints_every_drawing_that_a_model_is_served_for_and_names_the_others(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "--once", "--output", tmp_path], capture_output=True, text=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    domains = [folder.name for folder in SKETCHES.iterdir() if folder.is_dir()]
    served = {name for name in domains if (ROOT / "model_repository" / name).is_dir()}
    assert "shoes" in served
    for name in domains:
        expected = {path.name for path in (SKETCHES / name).glob("*.png")} if name in served else set()
        assert {path.name for path in (tmp_path / "paint" / name).glob("*")} == expected
        assert (f"No model `{name}` is served" in done.stdout) == (name not in served)
    with Image.open(tmp_path / "overview.png") as overview:
        assert overview.size == (1092, 12 + len(served) * (40 + 168 + 12))
    assert len(list((tmp_path / "sketch").glob("*.png"))) == 16
    assert len(list((tmp_path / "roundtrip").glob("*.png"))) == 2 * len(served)
    assert f"wrote: `{tmp_path / 'gallery.png'}`" in done.stdout


def test_a_repository_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "--once", "--output", tmp_path, "--repository", tmp_path / "none"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert str(tmp_path / "none") in done.stderr
    assert done.stderr.count("\n") == 1


def test_drawings_lie_in_a_folder_named_after_their_model(scripts: dict[str, ModuleType]) -> None:
    drawn = scripts["demo"].hand_drawings(SKETCHES)
    assert set(drawn) == {"birds", "cats", "faces", "flowers", "shoes"}
    assert all(len(drawings) == 6 for drawings in drawn.values())


def test_an_empty_folder_of_drawings_is_passed_over(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "bags").mkdir()
    (tmp_path / "README.md").touch()
    assert scripts["demo"].hand_drawings(tmp_path) == {}


def test_only_a_model_that_is_ready_and_paints_gets_drawings(scripts: dict[str, ModuleType]) -> None:
    sketcher = ModelInfo("shoes", ("1",), ModelKind.SKETCHER, ready=True)
    models = [painter("bags"), painter("cats"), sketcher]
    assert scripts["demo"].paintable(DRAWN, models) == ["cats"]


def test_drawings_without_a_model_and_models_without_drawings_are_named(scripts: dict[str, ModuleType]) -> None:
    models = [painter("bags"), painter("cats", ready=False, reason="model.onnx is missing")]
    assert scripts["demo"].unmatched(DRAWN, models) == [
        "No model `cats` is served (model.onnx is missing), so these stay unpainted: tabby_pencil, kitten_marker.",
        "No model `shoes` is served, so these stay unpainted: boot_chalk.",
        "There are no drawings for `bags`: put PNG into `examples/sketches/bags`.",
    ]


def test_more_drawings_than_a_sheet_is_wide_go_on_in_the_next_rows(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    paintings = []
    for number in range(8):
        picture = tmp_path / f"cat_{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture)
        paintings.append(scripts["demo"].Painting("cats", picture, picture, 0.0123))
    rows = scripts["demo"].painting_rows(paintings)
    assert [len(row.cells) for row in rows] == [6, 6, 2, 2]
    assert [bool(row.title) for row in rows] == [True, False, False, False]
    assert [rows[2].cells[1].caption, rows[3].cells[1].caption] == ["cat 7", "12 ms"]
    assert [cell.picture.getpixel((0, 0))[0] for cell in scripts["demo"].overview_row(paintings).cells] == [
        *(0, 0),
        *(2, 2),
        *(5, 5),
    ]
