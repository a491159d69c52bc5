"""The example that draws while a server paints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sketchbridge_server import TritonServer
from tests.conftest import ROOT

SCRIPT = ROOT / "examples" / "live_drawing.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.server
def test_the_animation_shows_a_sketch_that_grows_and_the_photo_of_it(server: TritonServer, tmp_path: Path) -> None:
    output = tmp_path / "live.gif"
    done = run("--url", server.endpoints.grpc_url, "--seconds", "1", "--frames-per-second", "6", "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert " 0 failed\n" in done.stdout
    with Image.open(output) as animation:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(animation)]
    ink = [np.count_nonzero(frame[:256, :256] < 128) for frame in frames]
    assert ink[0] == 0
    assert ink == sorted(ink)
    assert ink[-1] > 500
    assert frames[-1][:256, -256:].std() > 20  # a photo, and no white sheet
    assert [path.name for path in tmp_path.iterdir()] == ["live.gif"]


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    done = run("--url", "127.0.0.1:9", "--output", tmp_path / "live.gif")
    assert done.returncode == 1
    assert done.stderr.startswith("live_drawing: Nothing answers at ")
    assert done.stderr.count("\n") == 1
    assert run("--output", "live.png").returncode == 2
    assert not list(tmp_path.iterdir())
