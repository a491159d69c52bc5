"""A checkpoint exported as INT8, served by the real Triton, and verified there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchbridge_cli import main
from sketchbridge_client import Client
from sketchbridge_export.golden import read_golden
from sketchbridge_export.parity import structural_similarity
from sketchbridge_export.served import paint_with_server
from sketchbridge_server import ServerConfig, TritonServer
from tests.conftest import PHOTOS, SKETCHES
from tests.export.conftest import Pix2PixUNet, randomise

pytestmark = pytest.mark.server

MIN_SSIM = 0.98


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    torch.save(randomise(Pix2PixUNet(downs=8, ngf=4)).state_dict(), folder / "latest_net_G.pth")
    words = ["export", folder / "latest_net_G.pth", "--name", "bags", "--repository", folder / "models"]
    words += ["--artefacts", "openvino-int8", "--serve", "openvino-int8", "--min-ssim", MIN_SSIM]
    words += ["--calibration", folder / "photos", "--evidence", folder]
    (folder / "photos").mkdir()
    for path in PHOTOS:
        shutil.copy(path, folder / "photos")
    assert main([str(word) for word in words]) == 0
    for model in ("bags_generator", "bags", "bags_roundtrip"):  # as an operator might who is short of memory
        config = folder / "models" / model / "config.pbtxt"
        config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))
    return folder / "models"


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[TritonServer]:
    config = ServerConfig(repositories=(repository,), http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(config) as server:
        yield server


def test_the_served_artefact_is_the_one_that_was_asked_for_and_paints_what_the_checkpoint_does(
    repository: Path, running: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(repository), "--url", running.endpoints.grpc_url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok    bags_generator: config.pbtxt" in lines
    assert "ok    bags_generator/1/openvino-int8: int8 golden pictures" in lines
    assert "ok    bags_generator/1: golden pictures, as served" in lines

    pictures, expected = read_golden(repository / "bags_generator" / "1" / "golden.png")
    painted = paint_with_server(running.endpoints.grpc_url, "bags_generator")(pictures)
    alike = [structural_similarity(a, b) for a, b in zip(expected, painted, strict=True)]
    assert min(alike) >= MIN_SSIM
    assert np.abs(painted.astype(int) - expected.astype(int)).max() > 1  # or it was the ONNX file all the same


def test_the_ensemble_around_it_paints_drawings(running: TritonServer) -> None:
    with Client(running.endpoints.grpc_url) as client:
        first, second = (client.paint(path, model="bags").array for path in SKETCHES[:2])
    assert first.shape == second.shape == (256, 256, 3)
    assert not np.array_equal(first, second)


def test_a_version_that_the_server_has_not_loaded_is_said_so(
    repository: Path, running: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = repository / "bags_generator" / "1", repository / "bags_generator" / "2"
    second.mkdir()
    try:
        for path in first.iterdir():
            (second / path.name).hardlink_to(path)
        assert main(["verify", str(repository), "--no-paint", "--url", running.endpoints.grpc_url, "--json"]) == 1
    finally:
        for path in second.iterdir():
            path.unlink()
        second.rmdir()
    (problem,) = [found["problem"] for found in json.loads(capsys.readouterr().out) if found["problem"]]
    assert "version 2 is not" in problem
