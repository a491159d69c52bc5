"""Held-out photos are of things that were never trained on."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchbridge_training import DataInvalid, OptionInvalid
from sketchbridge_training.photos import find_photos
from sketchbridge_training.splitting import (
    hold_out,
    identities,
    join_alike,
    leave_out_acquaintances,
    likeness,
    main,
    split,
)


def test_the_last_group_of_the_pattern_is_the_identity() -> None:
    names = {"0.jpg": "cats/tabby/1.jpg", "1.jpg": "cats/tabby/2.jpg", "2.jpg": "cats/manx/1.jpg", "3.jpg": "else"}
    found = identities(names, "(cats)/([^/]+)/")
    assert found == {"0.jpg": "tabby", "1.jpg": "tabby", "2.jpg": "manx", "3.jpg": "3.jpg"}
    assert identities({"0.jpg": "12 a"}, r"\d+") == {"0.jpg": "12"}  # without a group, all that matched


def test_numbers_close_together_are_one_series_however_long() -> None:
    names = {f"{number}.jpg": f"IMG_{number}" for number in (1, 3, 5, 7, 20, 22, 40)} | {"x.jpg": "none"}
    found = identities(names, r"_(\d+)", series_gap=2)
    assert {found[f"{number}.jpg"] for number in (1, 3, 5, 7)} == {"1"}
    assert found["20.jpg"] == found["22.jpg"] == "20"
    assert found["40.jpg"] == "40"
    assert found["x.jpg"] == "x.jpg"


def test_a_pattern_that_is_none_or_finds_no_numbers_is_refused() -> None:
    with pytest.raises(OptionInvalid, match=r"`\(` is no regular expression"):
        identities({"0.jpg": "a"}, "(")
    with pytest.raises(OptionInvalid, match="found no numbers"):
        identities({"0.jpg": "a"}, "(a)", series_gap=1)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 9), min_size=2), st.floats(0.05, 0.5))
def test_groups_are_held_out_whole_up_to_the_share_and_none_is_much_of_it(sizes: dict[str, int], share: float) -> None:
    groups = {f"{group}{number}": group for group, size in sizes.items() for number in range(size)}
    chosen = hold_out(groups, share=share)
    assert chosen == sorted(chosen)
    assert chosen == hold_out(dict(reversed(groups.items())), share=share)
    held_out = {groups[name] for name in chosen}
    assert len(chosen) == sum(sizes[group] for group in held_out)
    wanted = share * len(groups)
    assert len(chosen) < max(1.0, 1.5 * wanted) + 1
    assert all(sizes[group] <= max(1.0, 0.5 * wanted) for group in held_out)


def write_noise(folder: Path, numbers: range) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        coarse: Any = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), cv2.resize(coarse, (96, 96)))
    return sorted(folder.iterdir())


def test_groups_that_share_a_picture_are_joined_over_any_number_of_steps(tmp_path: Path) -> None:
    photos = write_noise(tmp_path, range(6))
    first = cv2.imread(str(photos[0]))
    assert first is not None
    cv2.imwrite(str(tmp_path / "02.png"), cv2.convertScaleAbs(first, alpha=0.8, beta=20))  # 0 again, paler
    cv2.imwrite(str(tmp_path / "04.png"), cv2.GaussianBlur(cv2.imread(str(photos[3])), (0, 0), 1))  # 3 again, softer
    groups = {"00.png": "a", "01.png": "b", "02.png": "b", "03.png": "b", "04.png": "c", "05.png": "d"}
    names = [path.name for path in photos]
    joined = join_alike(names, likeness(photos), groups, least=0.95)
    assert {joined[f"0{number}.png"] for number in range(5)} == {"a"}
    assert joined["05.png"] == "d"
    assert join_alike(names, likeness(photos), groups, least=1.0)["04.png"] == "c"
    cv2.imwrite(str(tmp_path / "05.png"), first[:, ::-1])
    assert join_alike(names, likeness(photos), groups, least=0.95)["05.png"] == "a"


def test_whoever_looks_like_one_trained_on_is_not_held_out() -> None:
    names = ["a1", "a2", "b1", "c1", "d1"]
    alike = np.zeros((5, 5), np.float32)
    alike[1, 4] = alike[4, 1] = 0.98  # a2 and d1, which is trained on
    alike[2, 3] = alike[3, 2] = 0.99  # b1 and c1, both held out
    groups = {name: name[0] for name in names}
    assert leave_out_acquaintances(names, alike, groups, ["a1", "a2", "b1", "c1"], least=0.97) == ["b1", "c1"]
    assert leave_out_acquaintances(names, alike, groups, ["a1", "a2"], least=0.99) == ["a1", "a2"]


def test_the_list_holds_out_whole_identities_and_training_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_noise(tmp_path / "photos", range(40))
    sources = tmp_path / "sources.csv"
    rows = [f"{path.name},cat {number // 2}/{number}.png" for number, path in enumerate(photos)]
    sources.write_text("\n".join(["file,source_path", *rows]))
    out = tmp_path / "list.csv"
    arguments = [str(tmp_path / "photos"), "--sources", str(sources), "--identity", "cat ([0-9]+)/", "--out", str(out)]
    assert main([*arguments, "--share", "0.2"]) == 0
    assert capsys.readouterr().out == f"wrote: `{out}`: 8 of 40 photos, 4 of 20 identities\n"
    with out.open() as file:
        held_out = list(csv.DictReader(file))
    numbers = [int(row["file"][:2]) for row in held_out]
    assert numbers == sorted(numbers)
    assert all((number ^ 1) in numbers for number in numbers)  # the same cat's other photo
    assert held_out[0]["identity"] == str(numbers[0] // 2)
    assert [path.name for path in find_photos(tmp_path / "photos", held_out=out)[1]] == [
        row["file"] for row in held_out
    ]
    written = out.read_bytes()
    assert main([*arguments, "--share", "0.2"]) == 0
    assert out.read_bytes() == written


def test_without_sources_the_files_names_say_who_it_is(tmp_path: Path) -> None:
    write_noise(tmp_path / "photos", range(30))
    out = tmp_path / "list.csv"
    assert main([str(tmp_path / "photos"), "--identity", r"^(\d)", "--share", "0.9", "--out", str(out)]) == 0
    assert {line[0] for line in out.read_text().splitlines()[1:]} <= {"0", "1", "2"}


@pytest.mark.parametrize(
    ("sources", "options", "status", "says"),
    [
        ("file,source_path\n00.png,x\n", [], 1, "no source for `01.png`, nor for 10 more of 12"),
        ("name,path\n00.png,x\n", [], 1, "no column `file`"),
        (None, ["--share", "1.5"], 2, "`share` is 1.5"),
        (None, ["--alike", "7"], 2, "`alike` is 7.0"),
        (None, ["--identity", "["], 2, "no regular expression"),
        (None, ["--identity", "(png)"], 1, "of 1 identities, none of them small enough"),
        (None, ["--sources", "nowhere.csv"], 1, "`nowhere.csv` can't be read"),
        (None, ["--out", "nowhere/list.csv"], 1, "nowhere/list.csv"),
    ],
)
def test_what_cannot_be_split_is_said_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sources: str | None,
    options: list[str],
    status: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_noise(tmp_path / "photos", range(12))
    arguments = ["photos", "--identity", r"(\d+)", "--out", "list.csv"]
    if sources is not None:
        (tmp_path / "sources.csv").write_text(sources)
        arguments += ["--sources", "sources.csv"]
    assert main([*arguments, *options]) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "list.csv").exists()


def test_options_are_checked_before_photos_are_read(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="`share` is 0"):
        split([tmp_path / "gone.png"], {}, "x", share=0)
    with pytest.raises(DataInvalid, match=r"no source for `gone\.png`"):
        split([tmp_path / "gone.png"], {}, "x")


def test_it_is_a_command(tmp_path: Path) -> None:
    write_noise(tmp_path / "photos", range(12))
    command = [
        sys.executable,
        "-m",
        "sketchbridge_training.splitting",
        "photos",
        "--identity",
        "x",
        "--out",
        "list.csv",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote: `list.csv`: 1 of 12 photos")
