"""Folders of pictures, against a real Triton whose models send the picture back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sketchbridge_cli import main
from sketchbridge_cli.journal import open_journal
from sketchbridge_server.config import Endpoints

pytestmark = pytest.mark.server

SKETCHBRIDGE = [sys.executable, "-m", "sketchbridge_cli"]
JOURNAL = Path("out/.sketchbridge/sketch.jsonl")


def fill(folder: str, names: list[str], png: bytes) -> None:
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)


def made(folder: str = "out") -> list[str]:
    """The pictures in a folder, at any depth."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("[!.]*.png"))


def times(folder: str = "out") -> dict[str, int]:
    return {name: Path(folder, name).stat().st_mtime_ns for name in made(folder)}


def finished(journal: Path = JOURNAL) -> int:
    return journal.read_text().count('"model_version"') if journal.exists() else 0


def wait_until_finished(count: int, process: subprocess.Popen[str]) -> None:
    ends_at = time.monotonic() + 60
    while finished() < count:
        assert process.poll() is None, "the batch ended by itself"
        assert time.monotonic() < ends_at, "the batch is too slow"
        time.sleep(0.02)


def answer_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_folder_is_painted_into_a_folder(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["2.png", "10.PNG", "1.jpg", "notes.txt", ".hidden.png"], png)
    assert main(["paint", "in", "-o", "out", "--jobs", "8", "--url", url]) == 0
    assert made() == ["10_shoes.png", "1_shoes.png", "2_shoes.png"]
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert sorted(line.partition("wrote: ")[2] for line in lines[:-1]) == [f"`out/{name}`" for name in made()]
    assert lines[-1].startswith("painted 3 in ")
    assert lines[-1].endswith("wrote to: `out`")
    assert "1 file is no picture and was left\n" in shown.err
    assert "[1/3] in/1.jpg\n[" in shown.err


def test_sub_folders_are_kept_under_the_output(url: str, folder: Path, png: bytes) -> None:
    fill("in", ["a.png", "b/a.png", "b/c/d.png"], png)
    assert main(["roundtrip", "in", "-o", "out", "--recursive", "--url", url]) == 0
    stems = ("a_shoes", "b/a_shoes", "b/c/d_shoes")
    assert made() == sorted(f"{stem}_{kind}.png" for stem in stems for kind in ("photo", "sketch"))


def test_folders_files_and_stdin_mix(url: str, folder: Path, png: bytes, environment: dict[str, str]) -> None:
    fill("d", ["a.png"], png)
    fill("e", ["b.png"], png)
    fill(".", ["c.png"], png)
    call = [*SKETCHBRIDGE, "paint", "d", "-", "c.png", "e", "-o", "out", "--url", url, "--json"]
    ran = subprocess.run(call, input=png, env=environment, capture_output=True, check=False)
    assert ran.returncode == 0
    answer = json.loads(ran.stdout)
    assert [record["input"] for record in answer["done"]] == ["d/a.png", "-", "c.png", "e/b.png"]
    assert made() == ["a_shoes.png", "b_shoes.png", "c_shoes.png", "stdin_shoes.png"]
    ran = subprocess.run(call, input=png, env=environment, capture_output=True, check=False)
    answer = json.loads(ran.stdout)
    assert [record["input"] for record in answer["done"]] == ["-"]
    assert [record["input"] for record in answer["skipped"]] == ["d/a.png", "c.png", "e/b.png"]


def test_json_is_in_the_order_of_the_inputs_with_counts(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", [f"{number}.png" for number in range(1, 13)], png)
    Path("in/3.png").write_bytes(b"no picture")
    assert main(["paint", "in", "-o", "out", "--jobs", "6", "--url", url, "--json"]) == 1
    answer = answer_of(capsys)
    assert [record["input"] for record in answer["done"]] == [f"in/{n}.png" for n in range(1, 13) if n != 3]
    assert [(record["input"], record["error"]) for record in answer["failed"]] == [("in/3.png", "InvalidInput")]
    assert answer["counts"] == {"done": 11, "failed": 1, "skipped": 0, "left": 0}


def test_what_is_done_is_skipped_without_asking_the_server(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png", "b.png"], png)
    assert main(["paint", "in", "-o", "out", "--url", url]) == 0
    before = times()
    capsys.readouterr()
    assert main(["paint", "in", "-o", "out", "--url", "127.0.0.1:1", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "skipped 2 done before; --again makes them anew\n"
    assert json.loads(shown.out) == {
        "done": [],
        "failed": [],
        "skipped": [{"input": f"in/{stem}.png", "outputs": {"photo": f"out/{stem}_shoes.png"}} for stem in ("a", "b")],
        "counts": {"done": 0, "failed": 0, "skipped": 2, "left": 0},
    }
    assert times() == before


def test_only_what_has_changed_is_done_again(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png", "b.png", "c.png"], png)
    call = ["paint", "in", "-o", "out", "--url", url, "--json"]
    assert main(call) == 0
    capsys.readouterr()
    os.utime("in/a.png", ns=(0, 0))
    Path("out/b_shoes.png").unlink()
    fill("in", ["d.png"], png)
    assert main(call) == 0
    answer = answer_of(capsys)
    assert [record["input"] for record in answer["done"]] == ["in/a.png", "in/b.png", "in/d.png"]
    assert main([*call, "--fit", "crop"]) == 0
    assert answer_of(capsys)["counts"]["done"] == 4
    assert main([*call, "--model", "birds"]) == 0
    assert answer_of(capsys)["counts"]["done"] == 4
    assert main([*call, "--fit", "crop"]) == 0
    assert answer_of(capsys)["counts"]["skipped"] == 4


def test_again_makes_everything_anew(url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    fill("in", ["a.png", "b.png"], png)
    call = ["paint", "in", "-o", "out", "--url", url, "--json"]
    for again in ([], ["--again"]):
        assert main([*call, *again]) == 0
        assert answer_of(capsys)["counts"]["done"] == 2


def test_without_an_output_a_folder_does_not_take_its_own_outputs_for_inputs(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png", "b/c.png"], png)
    for model, done, skipped in (("shoes", 2, 0), ("shoes", 0, 2), ("birds", 2, 0), ("shoes", 0, 2)):
        assert main(["paint", "in", "--recursive", "--model", model, "--url", url, "--json"]) == 0
        counts = answer_of(capsys)["counts"]
        assert (counts["done"], counts["skipped"]) == (done, skipped)
    assert made("in") == ["a.png", "a_birds.png", "a_shoes.png", "b/c.png", "b/c_birds.png", "b/c_shoes.png"]
    assert Path("in/.sketchbridge/paint.jsonl").is_file()


def test_a_picture_of_the_callers_is_not_overwritten(
    folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png", "a_shoes.png"], png)
    assert main(["paint", "in"]) == 2
    assert "a_shoes.png` is an input and would be overwritten. Name another --output." in capsys.readouterr().err
    assert made("in") == ["a.png", "a_shoes.png"]
    assert not Path("in/.sketchbridge").exists()


def test_the_drawings_of_one_batch_are_the_inputs_of_the_next(url: str, folder: Path, png: bytes) -> None:
    fill("photos", ["a.png"], png)
    assert main(["sketch", "photos", "-o", "drawings", "--url", url]) == 0
    assert main(["paint", "drawings", "-o", "painted", "--url", url]) == 0
    assert made("painted") == ["a_sketch_shoes.png"]


def test_failures_stop_no_other_are_summed_up_and_tried_again(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", [f"{number}.png" for number in range(20)], b"no picture")
    fill("in", ["20.png"], png)
    assert main(["paint", "in", "-o", "out", "--jobs", "1", "--url", url]) == 1
    assert made() == ["20_shoes.png"]
    named = ", ".join(f"`in/{number}.png`" for number in range(5))
    assert capsys.readouterr().err.endswith(f"failed: 20 of 21: {named} and 15 more\n")
    fill("in", ["7.png"], png)
    assert main(["paint", "in", "-o", "out", "--url", url, "--json"]) == 1
    assert answer_of(capsys)["counts"] == {"done": 1, "failed": 19, "skipped": 1, "left": 0}


@pytest.mark.parametrize("options", [["--url", "127.0.0.1:1"], ["--model", "shoez"]])
def test_a_batch_that_cannot_succeed_stops_early(
    options: list[str], url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", [f"{number}.png" for number in range(40)], png)
    assert main(["paint", "in", "-o", "out", "--jobs", "2", "--json", "--url", url, *options]) == 1
    shown = capsys.readouterr()
    counts = json.loads(shown.out)["counts"]
    assert counts["failed"] < 12
    assert counts["failed"] + counts["left"] == 40
    assert (
        f"in a row failed alike, so {counts['left']} were not tried; the same command goes on from there" in shown.err
    )


def test_a_batch_whose_server_goes_away_stops_and_goes_on_later(
    mortal_server: AbstractContextManager[Endpoints], url: str, folder: Path, png: bytes, environment: dict[str, str]
) -> None:
    fill("in", [f"{number}.png" for number in range(40)], png)
    call = [*SKETCHBRIDGE, "sketch", "in", "-o", "out", "--jobs", "2", "--set", "sleep_s=0.1", "--json"]
    with mortal_server as endpoints:
        process = subprocess.Popen(
            [*call, "--url", endpoints.grpc_url, "--timeout", "1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until_finished(3, process)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    counts = json.loads(out)["counts"]
    assert counts["left"] > 0
    assert f"so {counts['left']} were not tried; the same command goes on from there" in err
    ran = subprocess.run([*call, "--url", url], env=environment, capture_output=True, check=True)
    assert json.loads(ran.stdout)["counts"]["skipped"] == counts["done"]
    assert len(made()) == 40


@pytest.mark.parametrize("names", [[], ["a.txt"], ["b/a.png"]])
def test_a_folder_without_pictures_is_a_wrong_call(
    names: list[str], folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    fill("in", names, png)
    assert main(["paint", "in", "-o", "out"]) == 2
    assert "There is no picture to send in `in`" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_second_run_into_the_same_folder_is_refused(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png"], png)
    Path("out").mkdir()
    with open_journal(Path("out"), "sketch"):
        assert main(["paint", "in", "-o", "out", "--url", url]) == 2
    assert "is writing into `out`. Wait for it, or name another --output." in capsys.readouterr().err
    assert main(["paint", "in", "-o", "out", "--url", url]) == 0


def test_an_output_that_is_no_folder_is_exit_1(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("in", ["a.png"], png)
    Path("out").touch()
    assert main(["paint", "in", "-o", "out", "--url", url]) == 1
    assert capsys.readouterr().err == "error: [Errno 17] File exists: 'out'\n"


@pytest.fixture
def slow_batch(url: str, folder: Path, png: bytes) -> list[str]:
    """A call that sketches 12 pictures, two at a time and not too fast."""
    fill("in", [f"{number}.png" for number in range(12)], png)
    return [*SKETCHBRIDGE, "sketch", "in", "-o", "out", "--jobs", "2", "--set", "sleep_s=0.2", "--url", url]


def test_a_killed_batch_goes_on_where_it_was(slow_batch: list[str], environment: dict[str, str]) -> None:
    with subprocess.Popen(slow_batch, env=environment, stderr=subprocess.DEVNULL, text=True) as process:
        wait_until_finished(4, process)
        process.kill()
        process.wait(20)
    done_before, before = finished(), times()
    assert 4 <= done_before < 12
    ran = subprocess.run([*slow_batch, "--json"], env=environment, capture_output=True, text=True, check=True)
    answer = json.loads(ran.stdout)
    assert f"skipped {done_before} done before; --again makes them anew\n" in ran.stderr
    assert answer["counts"] == {"done": 12 - done_before, "failed": 0, "skipped": done_before, "left": 0}
    assert made() == sorted(f"{number}_sketch.png" for number in range(12))
    after = times()
    for record in answer["skipped"]:
        name = Path(record["outputs"]["sketch"]).name
        assert after[name] == before[name]


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted: "), (signal.SIGTERM, 143, "")]
)
def test_a_batch_that_is_interrupted_says_how_far_it_came_and_goes_on(
    number: int, status: int, word: str, slow_batch: list[str], environment: dict[str, str]
) -> None:
    with subprocess.Popen(slow_batch, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until_finished(3, process)
        os.kill(process.pid, number)
        assert process.wait(30) == status
        assert process.stderr is not None
        shown = process.stderr.read()
    done = finished()
    told = re.search(rf"\n{word}(\d+) done, 0 failed, (\d+) left; the same command goes on from there\n$", shown)
    assert told is not None
    assert int(told[1]) + int(told[2]) == 12
    # The signal may fall between writing a picture, noting it and counting it.
    assert int(told[1]) <= done <= len(made()) <= int(told[1]) + 1
    ran = subprocess.run([*slow_batch, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["counts"] == {"done": 12 - done, "failed": 0, "skipped": done, "left": 0}


def test_an_interrupted_again_goes_on_without_again(slow_batch: list[str], environment: dict[str, str]) -> None:
    subprocess.run(slow_batch, env=environment, capture_output=True, check=True)
    with subprocess.Popen([*slow_batch, "--again"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("[4/12]"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "; the same command without --again goes on from there" in process.stderr.read()
    ran = subprocess.run([*slow_batch, "--json"], env=environment, capture_output=True, text=True, check=True)
    counts = json.loads(ran.stdout)["counts"]
    assert counts["done"] + counts["skipped"] == 12
    assert 2 <= counts["skipped"] < 12


def test_a_name_that_is_no_text_is_made_and_journalled(
    url: str, folder: Path, png: bytes, environment: dict[str, str]
) -> None:
    fill("in", [os.fsdecode(b"\xff.png")], png)
    call = [*SKETCHBRIDGE, "paint", "in", "-o", "out", "--url", url]
    for words in (b"", b"skipped 1 done before"):
        ran = subprocess.run(call, env=environment, capture_output=True, check=False)
        assert (ran.returncode, words in ran.stderr) == (0, True)
    assert Path("out", os.fsdecode(b"\xff_shoes.png")).is_file()


def test_a_second_ctrl_c_does_not_wait(slow_batch: list[str], environment: dict[str, str]) -> None:
    call = [word.replace("sleep_s=0.2", "sleep_s=2") for word in slow_batch]
    with subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "[1/12] in/0.png\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "interrupted: 0 done, 0 failed, 12 left; " in process.stderr.read()
    assert made() == []
