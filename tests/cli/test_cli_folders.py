from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.folders import Found, Source, find_sources, natural_key
from sketchbridge_cli.journal import Stamp, open_journal


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"picture")


def find(*inputs: str, recursive: bool = False, output: str | None = None) -> Found:
    return find_sources(inputs, recursive=recursive, output=output)


def paths(found: Found) -> list[str]:
    return [source.path for source in found.sources]


def journalled(folder: str, source: str, output: str, command: str = "paint") -> None:
    with open_journal(Path(folder), command) as journal:
        journal.finish(source, [Path(output)], "{}", Stamp(1, 1), "1")


def test_names_sort_as_people_count() -> None:
    names = [
        "1.png",
        "2.PNG",
        "10.png",
        "010.png",
        "a.png",
        "B.png",
        "b2.png",
        "b10.png",
        "b10a.png",
        "ü.png",
        "x1y2z3.png",
    ]
    ordered = sorted(names, key=natural_key)
    assert ordered == [
        "1.png",
        "2.PNG",
        "010.png",
        "10.png",
        "a.png",
        "B.png",
        "b2.png",
        "b10.png",
        "b10a.png",
        "x1y2z3.png",
        "ü.png",
    ]
    shuffled = [names[place] for place in np.random.default_rng(7).permutation(len(names))]
    assert sorted(shuffled, key=natural_key) == ordered


def test_a_folder_means_every_picture_in_it_of_any_case(folder: Path) -> None:
    make(*(f"d/{name}" for name in ("a.png", "b.JPG", "c.jpeg", "d.WebP", "e.bmp", "f.gif", "g.txt", "png", ".h.png")))
    found = find("d")
    assert paths(found) == ["d/a.png", "d/b.JPG", "d/c.jpeg", "d/d.WebP", "d/e.bmp"]
    assert found.remarks() == ["3 files are no pictures and were left"]


def test_files_and_folders_mix_in_the_order_they_are_given(folder: Path) -> None:
    make("d/2.png", "d/10.png", "e/a.png", "z.gif")
    assert find("z.gif", "e/", "d", "-", "missing.png").sources == [
        Source("z.gif"),
        Source("e/a.png", "e/"),
        Source("d/2.png", "d"),
        Source("d/10.png", "d"),
        Source("-"),
        Source("missing.png"),
    ]


def test_sub_folders_are_left_unless_asked_for(folder: Path) -> None:
    make("d/b.png", "d/e10/a.png", "d/e2/a.png", "d/e2/f/a.png", "d/.hidden/a.png")
    found = find("d")
    assert paths(found) == ["d/b.png"]
    assert found.remarks() == ["2 folders inside were left; --recursive looks into them"]
    found = find("d", recursive=True)
    assert found.sources == [
        Source("d/b.png", "d", ""),
        Source("d/e2/a.png", "d", "e2"),
        Source("d/e2/f/a.png", "d", "e2/f"),
        Source("d/e10/a.png", "d", "e10"),
    ]
    assert found.remarks() == []


def test_a_link_to_a_picture_is_followed_and_one_to_a_folder_is_not(folder: Path) -> None:
    make("d/a.png")
    Path("d/link.png").symlink_to("a.png")
    Path("d/gone.png").symlink_to("nothing.png")
    Path("d/round").symlink_to(".")
    found = find("d", recursive=True)
    assert paths(found) == ["d/a.png", "d/link.png"]
    assert found.remarks() == ["1 file is no picture and was left", "1 linked folder was left"]


def test_what_an_earlier_run_made_beside_its_inputs_is_no_input(folder: Path) -> None:
    make("d/a.png", "d/a_shoes.png", "d/b_shoes.png")
    journalled("d", "d/a.png", "d/a_shoes.png")
    found = find("d")
    assert paths(found) == ["d/a.png", "d/b_shoes.png"]
    assert found.remarks() == ["1 picture was made by an earlier run from others here and was left"]


def test_what_was_only_begun_is_no_input_either(folder: Path) -> None:
    make("d/a.png", "d/a_shoes.png")
    with open_journal(Path("d"), "paint") as journal:
        journal.begin("d/a.png", [Path("d/a_shoes.png")])
    assert paths(find("d")) == ["d/a.png"]


def test_what_another_command_made_beside_its_inputs_is_no_input(folder: Path) -> None:
    make("d/a.png", "d/a_sketch.png")
    journalled("d", "d/a.png", "d/a_sketch.png", "sketch")
    assert paths(find("d")) == ["d/a.png"]


def test_what_was_made_from_elsewhere_is_an_input(folder: Path) -> None:
    make("photos/a.jpg", "drawings/a_sketch.png")
    journalled("drawings", "photos/a.jpg", "drawings/a_sketch.png", "sketch")
    assert paths(find("drawings")) == ["drawings/a_sketch.png"]


def test_the_journal_above_a_folder_tells_what_was_made_in_it(folder: Path) -> None:
    make("d/e/a.png", "d/e/a_shoes.png")
    journalled("d", "d/e/a.png", "d/e/a_shoes.png")
    assert paths(find("d/e")) == ["d/e/a.png"]


def test_outputs_in_a_sub_folder_are_no_inputs(folder: Path) -> None:
    make("d/a.png", "d/made/a_shoes.png", "d/made_before/a_shoes.png")
    journalled("d/made_before", "d/a.png", "d/made_before/a_shoes.png")
    assert paths(find("d", recursive=True, output="d/made")) == ["d/a.png"]


def test_a_folder_may_be_given_in_any_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("d/a.png", "d/a_shoes.png")
    journalled("d", "d/a.png", "d/a_shoes.png")
    Path("link").symlink_to("d")
    for given in ("./d", "d/", f"{folder}/d", "d/../d", "link"):
        assert [Path(path).name for path in paths(find(given))] == ["a.png"]
    monkeypatch.chdir("d")
    assert [Path(path).name for path in paths(find("."))] == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_said(folder: Path) -> None:
    Path("d").mkdir(mode=0)
    with pytest.raises(UsageError, match="The folder `d` cannot be read: Permission denied"):
        find("d")
