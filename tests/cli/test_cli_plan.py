from __future__ import annotations

from pathlib import Path

import pytest

from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.folders import Source
from sketchbridge_cli.plan import Job, make_plan, names_file

PAINT = {"photo": "shoes"}
BOTH = {"sketch": "shoes_sketch", "photo": "shoes_photo"}


def jobs(sources: list[Source], output: str | None = None, labels: dict[str, str] = PAINT) -> list[Job]:
    plan = make_plan(sources, output, labels, suffix=".png")
    return [plan.job(source) for source in sources]


def targets(inputs: list[str], output: str | None = None, labels: dict[str, str] = PAINT) -> list[str | None]:
    planned = jobs([Source(path) for path in inputs], output, labels)
    return [str(target) if target else None for job in planned for target in job.targets.values()]


def test_without_an_output_each_lies_beside_its_input(folder: Path) -> None:
    assert targets(["a.png", "b/c.jpg"]) == ["a_shoes.png", "b/c_shoes.png"]


def test_a_roundtrip_has_two_names_for_each_input(folder: Path) -> None:
    assert targets(["b/c.jpg"], labels=BOTH) == ["b/c_shoes_sketch.png", "b/c_shoes_photo.png"]


def test_an_output_of_one_is_a_file(folder: Path) -> None:
    assert targets(["a.png"], "b.png") == ["b.png"]


@pytest.mark.parametrize("output", ["there", "there/", "new/"])
def test_an_output_that_is_or_ends_like_a_folder_is_one(folder: Path, output: str) -> None:
    (folder / "there").mkdir()
    assert targets(["b/a.png"], output) == [f"{output.rstrip('/')}/a_shoes.png"]


def test_the_output_of_several_is_a_folder(folder: Path) -> None:
    assert targets(["a.png", "b.png"], "out") == ["out/a_shoes.png", "out/b_shoes.png"]
    assert targets(["a.png"], "out", BOTH) == ["out/a_shoes_sketch.png", "out/a_shoes_photo.png"]


def test_planning_makes_nothing(folder: Path) -> None:
    targets(["a.png", "b.png"], "out")
    assert list(folder.iterdir()) == []


def test_stdin_goes_to_stdout_unless_a_file_is_named(folder: Path) -> None:
    assert jobs([Source("-")]) == [Job("-", {"photo": None})]
    assert targets(["a.png"], "-") == [None]
    assert targets(["-"], "b.png") == ["b.png"]
    assert targets(["-"], "out/") == ["out/stdin_shoes.png"]


@pytest.mark.parametrize("output", ["-", None])
def test_only_one_picture_goes_to_stdout(folder: Path, output: str | None) -> None:
    with pytest.raises(UsageError, match="Only one picture can go to stdout"):
        targets(["-", "b.png"], output)
    with pytest.raises(UsageError, match="Only one picture can go to stdout"):
        targets(["-"], output, BOTH)


def test_two_inputs_never_share_an_output(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"Two inputs would be written to `.*out/c_shoes\.png`"):
        targets(["a/c.png", "b/c.jpg"], "out")
    with pytest.raises(UsageError, match="Two inputs"):
        targets(["c.png", "./c.png"])


@pytest.mark.parametrize("output", ["a.png", "./a.png", "link.png"])
def test_an_input_is_never_overwritten(folder: Path, output: str) -> None:
    (folder / "link.png").symlink_to("a.png")
    with pytest.raises(UsageError, match=r"`.*a\.png` is an input and would be overwritten"):
        targets(["a.png"], output)


def test_an_input_is_not_overwritten_by_another_ones_output(folder: Path) -> None:
    with pytest.raises(UsageError, match="would be overwritten"):
        targets(["a.png", "a_shoes.png"])


@pytest.mark.parametrize("output", ["no/b.png", "no/new/"])
def test_a_missing_folder_is_said_before_anything_is_sent(folder: Path, output: str) -> None:
    with pytest.raises(UsageError, match="There is no folder `no` for the output"):
        targets(["a.png"], output)


@pytest.mark.parametrize(
    ("sources", "output", "labels", "file"),
    [
        ([Source("a.png")], "b.png", PAINT, True),
        ([Source("a.png")], None, PAINT, False),
        ([Source("a.png")], "-", PAINT, False),
        ([Source("a.png")], "b/", PAINT, False),
        ([Source("a.png")], ".", PAINT, False),
        ([Source("a.png")], "b", BOTH, False),
        ([Source("a.png"), Source("c.png")], "b", PAINT, False),
        ([Source("d/a.png", "d")], "b", PAINT, False),
    ],
)
def test_an_output_is_a_file_only_for_one_picture_that_was_named(
    sources: list[Source], output: str | None, labels: dict[str, str], file: bool, folder: Path
) -> None:
    assert names_file(sources, output, labels) is file


def test_what_was_found_in_sub_folders_keeps_them_under_the_output(folder: Path) -> None:
    found = [Source("d/a.png", "d"), Source("d/e/f/a.png", "d", "e/f"), Source("b.png")]
    outputs = [str(target) for job in jobs(found, "out") for target in job.files]
    assert outputs == ["out/a_shoes.png", "out/e/f/a_shoes.png", "out/b_shoes.png"]


def test_what_was_found_is_made_beside_itself_without_an_output(folder: Path) -> None:
    assert [str(target) for job in jobs([Source("d/e/a.png", "d", "e")]) for target in job.files] == ["d/e/a_shoes.png"]


def test_the_pictures_of_a_folder_do_not_go_to_stdout(folder: Path) -> None:
    with pytest.raises(UsageError, match="Only one picture can go to stdout"):
        jobs([Source("d/a.png", "d")], "-")


def test_a_clash_names_both_inputs(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"`.*/out/1_shoes\.png`: `train/1\.png` and `test/1\.png`\. Run them apart"):
        jobs([Source("train/1.png", "train"), Source("test/1.png", "test")], "out")


def test_a_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot have a `/`"):
        targets(["a.png"], labels={"photo": "../../etc/shoes"})
