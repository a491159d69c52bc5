from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sketchbridge_cli.errors import FolderBusy
from sketchbridge_cli.journal import Entry, Stamp, canonical, made_within, open_journal, parse_line, stamp_of

OPTIONS = canonical({"verb": "paint", "model": "shoes"})


@pytest.fixture
def pictures(folder: Path) -> Path:
    """A folder with an input and the folder of outputs with what was made of it."""
    for path in ("in/a.png", "out/a_shoes.png"):
        Path(path).parent.mkdir()
        Path(path).write_bytes(b"picture")
    return folder


def finish(times: int = 1, options: str = OPTIONS) -> None:
    with open_journal(Path("out"), "paint") as journal:
        for _ in range(times):
            journal.begin("in/a.png", [Path("out/a_shoes.png")])
            journal.finish("in/a.png", [Path("out/a_shoes.png")], options, stamp_of("in/a.png"), "3")


def is_done(options: str = OPTIONS, source: str = "in/a.png", output: str = "out/a_shoes.png") -> bool:
    with open_journal(Path("out"), "paint") as journal:
        return journal.is_done(source, [Path(output)], options)


def lines() -> list[str]:
    return Path("out/.sketchbridge/paint.jsonl").read_text().splitlines()


def test_a_line_says_what_was_made_of_what_and_how(pictures: Path) -> None:
    finish()
    begun, finished = map(json.loads, lines())
    assert begun == {"input": "../in/a.png", "outputs": ["a_shoes.png"]}
    status = Path("in/a.png").stat()
    assert finished == {
        "input": "../in/a.png",
        "outputs": ["a_shoes.png"],
        "size_bytes": 7,
        "mtime_ns": status.st_mtime_ns,
        "options": {"verb": "paint", "model": "shoes"},
        "model_version": "3",
    }


def test_what_is_finished_is_done_and_what_is_begun_is_not(pictures: Path) -> None:
    with open_journal(Path("out"), "paint") as journal:
        journal.begin("in/a.png", [Path("out/a_shoes.png")])
    assert not is_done()
    finish()
    assert is_done()
    with open_journal(Path("out"), "paint") as journal:
        journal.begin("in/a.png", [Path("out/a_shoes.png")])
    assert not is_done()


def test_only_the_same_input_made_into_the_same_output_with_the_same_options_is_done(pictures: Path) -> None:
    finish()
    Path("in/b.png").write_bytes(b"picture")
    Path("out/b_shoes.png").write_bytes(b"picture")
    assert not is_done(options=canonical({"verb": "paint", "model": "birds"}))
    assert not is_done(source="in/b.png")
    assert not is_done(output="out/b_shoes.png")
    assert is_done()


def test_the_order_of_the_options_is_no_matter() -> None:
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("size_bytes", [7, 8])
def test_a_changed_input_is_not_done(size_bytes: int, pictures: Path) -> None:
    finish()
    Path("in/a.png").write_bytes(b"x" * size_bytes)
    os.utime("in/a.png", ns=(0, 1))
    assert not is_done()


@pytest.mark.parametrize("output", [None, b""])
def test_what_is_gone_or_empty_is_not_done(output: bytes | None, pictures: Path) -> None:
    finish()
    Path("out/a_shoes.png").unlink()
    if output is not None:
        Path("out/a_shoes.png").write_bytes(output)
    assert not is_done()


def test_of_several_outputs_all_must_be_there(pictures: Path) -> None:
    both = [Path("out/a_shoes.png"), Path("out/a_sketch.png")]
    both[1].write_bytes(b"picture")
    with open_journal(Path("out"), "paint") as journal:
        journal.finish("in/a.png", both, OPTIONS, stamp_of("in/a.png"), "3")
    for there in (True, False):
        with open_journal(Path("out"), "paint") as journal:
            assert journal.is_done("in/a.png", both, OPTIONS) is there
        both[1].unlink(missing_ok=True)


def test_inputs_and_outputs_may_move_together(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish()
    Path("moved").mkdir()
    for name in ("in", "out"):
        Path(name).rename(f"moved/{name}")
    monkeypatch.chdir("moved")
    assert is_done()
    assert is_done(source=str(Path("in/a.png").absolute()), output="./out/../out/a_shoes.png")


def test_a_torn_last_line_is_ignored_and_the_rest_is_not(pictures: Path) -> None:
    finish()
    path = Path("out/.sketchbridge/paint.jsonl")
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        assert is_done()
        assert path.read_bytes().endswith(b"}\n")
    path.write_bytes(whole[:-1])
    assert not is_done()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b"\xff\xfe\n",
        b'{"input": 1, "outputs": ["a"]}\n',
        b'{"input": "a", "outputs": []}\n',
        b'{"input": "a", "outputs": [1]}\n',
        b'{"input": "a", "outputs": ["b"], "size_bytes": "many"}\n',
        b'{"input": "a", "outputs": ["b"], "size_bytes": 1}\n',
        b'{"input": "a", "outputs": ["b"]}',
    ],
)
def test_a_line_that_is_not_ours_holds_nothing(line: bytes) -> None:
    assert parse_line(line) is None


def test_a_line_is_read_as_it_was_written() -> None:
    odd = os.fsdecode(b"\xff\n\xe2\x80\xa8.png")
    for entry in (Entry(odd, (odd, "b")), Entry(odd, (odd,), canonical({"a": [1]}), Stamp(2**40, 2**62), "1")):
        assert entry.line.count(b"\n") == 1
        assert parse_line(entry.line) == entry


def test_the_journal_is_as_long_as_what_is_there(pictures: Path) -> None:
    finish(times=50)
    assert len(lines()) == 100
    assert is_done()
    assert len(lines()) == 1
    Path("out/a_shoes.png").unlink()
    assert not is_done()
    assert lines() == []
    assert sorted(path.name for path in Path("out/.sketchbridge").iterdir()) == ["lock", "paint.jsonl"]


def test_a_journal_that_needs_no_rewriting_is_left_alone(pictures: Path) -> None:
    finish()
    assert is_done()
    path = Path("out/.sketchbridge/paint.jsonl")
    before = path.stat()
    assert is_done()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_each_output_has_an_entry_of_its_own(pictures: Path) -> None:
    finish()
    Path("out/a_birds.png").write_bytes(b"picture")
    birds = canonical({"verb": "paint", "model": "birds"})
    with open_journal(Path("out"), "paint") as journal:
        journal.finish("in/a.png", [Path("out/a_birds.png")], birds, stamp_of("in/a.png"), "1")
    assert is_done()
    assert is_done(birds, output="out/a_birds.png")


def test_a_forgotten_journal_still_takes_lines(pictures: Path) -> None:
    with open_journal(Path("out"), "paint") as journal:
        journal.forget()
        journal.finish("in/a.png", [Path("out/a_shoes.png")], OPTIONS, stamp_of("in/a.png"), "3")
    assert is_done()


def test_what_was_made_within_a_folder_is_what_has_its_input_there(pictures: Path) -> None:
    finish()
    here = str(pictures.resolve())
    assert made_within(here, [here, f"{here}/out"]) == {f"{here}/out/a_shoes.png"}
    assert made_within(f"{here}/out", [f"{here}/out"]) == set()
    assert made_within(f"{here}/in", [f"{here}/in"]) == set()


def test_two_runs_do_not_write_into_one_folder(pictures: Path) -> None:
    with open_journal(Path("out"), "paint"):
        with pytest.raises(FolderBusy, match=rf"Another run \(process {os.getpid()}\) is writing into `out`"):
            is_done()
        with pytest.raises(FolderBusy), open_journal(Path("out"), "sketch"):
            pass
    assert not is_done()


def test_the_lock_of_a_killed_process_is_free(pictures: Path) -> None:
    code = (
        "import os, pathlib, signal\nfrom sketchbridge_cli.journal import open_journal\n"
        "with open_journal(pathlib.Path('out'), 'paint'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not is_done()
