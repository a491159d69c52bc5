"""The hand drawings that come with the project."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from sketchbridge_preprocess import RequestOptions
from sketchbridge_preprocess.pipeline import sketch_for_model
from tests.conftest import ROOT

SKETCHES = ROOT / "examples" / "sketches"
DRAWINGS = sorted(SKETCHES.glob("*/*.png"))
SVG = "{http://www.w3.org/2000/svg}"
every_drawing = pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")


def test_every_picture_has_its_source_beside_it_and_every_source_its_picture() -> None:
    assert len(DRAWINGS) == 30
    assert sorted(SKETCHES.glob("*/*.svg")) == [path.with_suffix(".svg") for path in DRAWINGS]
    assert not [*SKETCHES.glob("*.png"), *SKETCHES.glob("*.svg")]


@every_drawing
def test_the_picture_has_the_size_and_the_paper_of_its_source_which_says_what_it_shows(drawing: Path) -> None:
    source = ET.parse(drawing.with_suffix(".svg")).getroot()  # noqa: S314 (our own file)
    paper = source.find(f"{SVG}rect")
    assert paper is not None
    assert re.fullmatch(r"An? .+ (on|in) .+", source.findtext(f"{SVG}title") or "")
    with Image.open(drawing) as opened:
        picture = np.asarray(opened.convert("RGB"))
    assert picture.shape == (int(source.attrib["height"]), int(source.attrib["width"]), 3)
    wanted = [int(paper.attrib["fill"][start : start + 2], 16) for start in (1, 3, 5)]
    # An even paper is the most frequent colour; the reduced palette may be off by little.
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert np.abs(colours[counts.argmax()].astype(int) - wanted).max() <= 3


@every_drawing
def test_a_generator_gets_clean_dark_lines_on_white_whatever_pen_and_paper(drawing: Path) -> None:
    lines = sketch_for_model(drawing.read_bytes(), RequestOptions())[:, :, 0]
    ink = lines < 128
    assert 0.02 < ink.mean() < 0.25
    assert (lines == 255).mean() > 0.5
    rows, columns = ink.any(axis=1).mean(), ink.any(axis=0).mean()
    assert max(rows, columns) > 0.65, "the drawing should fill most of the frame"
