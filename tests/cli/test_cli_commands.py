"""The commands that talk to a server, against a real Triton whose models send the picture back."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketchbridge_cli import main

pytestmark = pytest.mark.server

SKETCHBRIDGE = [sys.executable, "-m", "sketchbridge_cli"]


def pixels(data: bytes | Path) -> Any:
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        return np.array(image.convert("RGB"))


def parameters(path: Path) -> Any:
    with Image.open(path) as image:
        image.load()
        return json.loads(str(image.info["parameters"]))


def test_paint_writes_beside_the_drawing_and_says_where(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "boot.png").write_bytes(png)
    assert main(["paint", "boot.png", "--url", url]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("wrote: `boot_shoes.png`\n")
    assert shown.err == ""
    np.testing.assert_array_equal(pixels(folder / "boot_shoes.png"), pixels(png))
    assert (folder / "boot.png").read_bytes() == png


def test_the_server_may_be_named_in_the_environment(
    url: str, folder: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKETCHBRIDGE_URL", url)
    (folder / "boot.png").write_bytes(png)
    assert main(["paint", "boot.png"]) == 0


@pytest.mark.parametrize(("name", "kind"), [("photo.jpg", "JPEG"), ("photo.webp", "WEBP"), ("photo.png", "PNG")])
def test_the_suffix_of_the_output_is_the_format_asked_of_the_server(
    url: str, folder: Path, png: bytes, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "boot.png").write_bytes(png)
    assert main(["paint", "boot.png", "-o", name, "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"][0]["format"] == kind.lower()
    with Image.open(folder / name) as image:
        assert image.format == kind


def test_the_format_names_the_file(url: str, folder: Path, png: bytes) -> None:
    (folder / "boot.png").write_bytes(png)
    assert main(["paint", "boot.png", "--output-format", "jpeg", "--model", "birds", "--url", url]) == 0
    assert (folder / "boot_birds.jpg").is_file()


def test_the_options_of_paint_reach_the_model(url: str, folder: Path, png: bytes) -> None:
    (folder / "boot.png").write_bytes(png)
    options = ["--fit", "crop", "--normalise", "off", "--quality", "80"]
    assert main(["paint", "boot.png", "-o", "out.png", "--url", url, *options]) == 0
    assert parameters(folder / "out.png") == {
        "fit": "crop",
        "normalise": "off",
        "quality": 80,
        "output_format": "png",
    }


def test_several_go_to_a_folder_with_progress_apart_from_the_answer(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png)
    assert main(["paint", "a.png", "b.png", "-o", "photos", "--url", url]) == 0
    shown = capsys.readouterr()
    assert [line.partition("wrote: ")[2] for line in shown.out.splitlines()] == [
        "`photos/a_shoes.png`",
        "`photos/b_shoes.png`",
    ]
    assert shown.err == "[1/2] a.png\n[2/2] b.png\n"


def test_one_that_fails_stops_no_other_and_is_exit_1(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "c.png").write_bytes(png)
    assert main(["paint", "a.png", "missing.png", "c.png", "--url", url]) == 1
    shown = capsys.readouterr()
    assert shown.out.endswith("wrote: `c_shoes.png`\n")
    assert "failed: `a.png`: `shoes` refused the request: This is no picture" in shown.err
    assert "failed: `missing.png`: `sketch`: there is no file `missing.png`." in shown.err
    assert shown.err.endswith("failed: 2 of 3: `a.png`, `missing.png`\n")
    assert not (folder / "a_shoes.png").exists()


def test_json_has_one_shape_for_what_went_well_and_what_did_not(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png)
    (folder / "b.png").write_bytes(b"no picture")
    assert main(["paint", "a.png", "b.png", "--url", url, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    (done,) = answer["done"]
    assert done["elapsed_s"] > 0
    assert len(done["request_id"]) == 32
    assert done["steps"][0] == {"model": "decode", "queue_s": None, "compute_s": 0.0001}
    assert {key: done[key] for key in ("input", "outputs", "format", "model", "model_version")} == {
        "input": "a.png",
        "outputs": {"photo": "a_shoes.png"},
        "format": "png",
        "model": "shoes",
        "model_version": "1",
    }
    (failed,) = answer["failed"]
    assert (failed["input"], failed["error"]) == ("b.png", "InvalidInput")
    assert "no picture" in failed["message"]


def test_sketch_sends_the_methods_numbers(url: str, folder: Path, png: bytes) -> None:
    (folder / "photo.png").write_bytes(png)
    given = ["--method", "xdog", "--set", "sigma=0.8", "--set", "steps=2"]
    assert main(["sketch", "photo.png", "--url", url, *given]) == 0
    assert parameters(folder / "photo_xdog.png") == {
        "method": "xdog",
        "sigma": 0.8,
        "steps": 2,
        "output_format": "png",
    }


def test_a_method_that_is_not_given_is_left_to_the_server(url: str, folder: Path, png: bytes) -> None:
    (folder / "photo.png").write_bytes(png)
    assert main(["sketch", "photo.png", "--url", url, "--set", "self=1"]) == 0
    assert parameters(folder / "photo_sketch.png") == {"self": 1, "output_format": "png"}


def test_the_options_of_roundtrip_reach_the_model(url: str, folder: Path, png: bytes) -> None:
    (folder / "boot.png").write_bytes(png)
    options = {"fit": "crop", "normalise": "off", "method": "dodge"}
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    assert main(["roundtrip", "boot.png", "--url", url, *flags]) == 0
    assert parameters(folder / "boot_shoes_photo.png") == {**options, "output_format": "png"}


def test_roundtrip_writes_both_pictures(url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "boot.png").write_bytes(png)
    assert main(["roundtrip", "boot.png", "-o", "out", "--url", url]) == 0
    assert capsys.readouterr().out.endswith("wrote: `out/boot_shoes_sketch.png`, `out/boot_shoes_photo.png`\n")
    for name in ("boot_shoes_sketch.png", "boot_shoes_photo.png"):
        np.testing.assert_array_equal(pixels(folder / "out" / name), pixels(png))


def test_a_pipe_takes_a_drawing_and_gives_a_photo(url: str, png: bytes, environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [*SKETCHBRIDGE, "paint", "-", "--url", url], input=png, env=environment, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    np.testing.assert_array_equal(pixels(ran.stdout), pixels(png))


def test_models_is_a_table_to_read(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", url]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["NAME", "KIND", "VERSIONS", "STATE"],
        ["birds", "painter", "1", "ready"],
        ["shoes", "painter", "1", "ready"],
        ["shoes_roundtrip", "roundtrip", "1", "ready"],
        ["sketch", "sketcher", "1", "ready"],
    ]


def test_models_is_json_for_a_script(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["url"] == url
    assert answer["models"][0] == {
        "name": "birds",
        "kind": "painter",
        "versions": ["1"],
        "ready": True,
        "reason": "",
    }


@pytest.fixture
def nobody() -> str:
    """An address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("command", [["models"], ["paint", "a.png"], ["sketch", "a.png"], ["roundtrip", "a.png"]])
def test_no_server_is_exit_1_with_what_to_do(
    command: list[str], nobody: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png)
    assert main([*command, "--url", nobody]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: Nothing answers at {nobody}. Start it with `sketchbridge serve`")


def test_an_unknown_model_is_exit_1_and_lists_the_painters(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png)
    assert main(["paint", "a.png", "--model", "shoez", "--url", url]) == 1
    assert "`birds`, `shoes`. Did you mean `shoes`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint", "missing.png"], "there is no file `missing.png`"),
        (["paint", "a.png", "-o", "a.png"], "would be overwritten"),
        (["paint", "a.png", "-o", "photo.gif"], "Use one of .png, .jpg, .jpeg, .webp"),
        (["paint", "a.png", "-o", "photo.jpg", "--output-format", "png"], "contradict each other"),
        (["paint", "a.png", "-o", "-", "--json"], "cannot both go to stdout"),
        (["paint", "-", "-", "-o", "out/"], "Two inputs would be written"),
        (["paint", "a.png", "--url", "ftp://127.0.0.1:8001"], "expected the host and port of a server"),
        (["models", "--url", "somewhere"], "expected the host and port of a server"),
        (["sketch", "a.png", "--set", "method=xdog"], "use --method"),
        (["sketch", "a.png", "--set", "priority=1"], "Triton keeps for itself"),
        (["sketch", "a.png", "--set", "output_encoding=base64"], "a Picture holds the bytes of a file"),
        (["paint", "/dev/zero", "-o", "b.png"], "33,554,433 bytes; at most 33,554,432 are taken"),
    ],
)
def test_a_wrong_call_is_exit_2_with_what_is_wrong(
    arguments: list[str], words: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_a_folder_that_cannot_be_written_to_is_exit_1(
    url: str, folder: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png)
    (folder / "out").touch()
    assert main(["paint", "a.png", "-o", "out/", "--url", url]) == 1
    assert "error: [Errno 17] File exists: 'out'" in capsys.readouterr().err


def test_ctrl_c_during_a_request_leaves_one_line_and_exit_130(
    url: str, folder: Path, png: bytes, environment: dict[str, str]
) -> None:
    (folder / "a.png").write_bytes(png)
    (folder / "b.png").write_bytes(png)
    call = [*SKETCHBRIDGE, "sketch", "a.png", "b.png", "--url", url, "--set", "sleep_s=2"]
    with subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "[1/2] a.png\n"  # the client is up, the first request is on its way
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == "\ninterrupted\n"
    assert not (folder / "a_sketch.png").exists()


def test_a_reader_that_goes_away_is_no_traceback(url: str, environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            [*SKETCHBRIDGE, "models", "--url", url],
            env=environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, b"")
