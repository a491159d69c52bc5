"""A repository that is checked again, whole and damaged."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sketchbridge_export import verification
from sketchbridge_export.errors import BuildFailed
from sketchbridge_export.export import export_checkpoint
from sketchbridge_export.golden import read_golden, write_golden
from sketchbridge_export.gpu_config import Plans, gpu_config
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.verify_command import add_arguments, run
from sketchbridge_preprocess import INTERFACE_SIDE_PX
from sketchbridge_server import TritonServer
from tests.export.conftest import Pix2PixUNet, randomise


def verify(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> Path:
    repository = tmp_path_factory.mktemp("exported") / "models"
    export_checkpoint(small_checkpoint, name="bags", repository=repository)
    return repository


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "models")
    return tmp_path / "models"


def edit_manifest(repository: Path, change: Any) -> None:
    path = repository / "bags_generator" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_was_just_exported_is_in_order(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(exported) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "ok    bags_generator/1/onnx: digests",
        "ok    bags_generator/1/onnx: fp32 certificate",
        "ok    bags_generator/1/onnx: fp32 golden pictures",
        "ok    bags_generator: config.pbtxt",
        "4 checks, 0 problems",
    ]
    assert verify(exported, "--no-paint", "--json") == 0
    assert [finding["checked"] for finding in json.loads(capsys.readouterr().out)] == [
        "digests",
        "fp32 certificate",
        "config.pbtxt",
    ]


def test_one_flipped_bit_is_found_and_that_file_is_not_run(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artefact = repository / "bags_generator" / "1" / "model.onnx"
    content = bytearray(artefact.read_bytes())
    content[len(content) // 2] ^= 1
    artefact.write_bytes(content)
    assert verify(repository) == 1
    out = capsys.readouterr().out
    assert "BAD   bags_generator/1/onnx: digests\n      `model.onnx` is not the file that was certified" in out
    assert "golden" not in out


def test_an_artefact_that_paints_something_else_is_found_even_if_its_digest_was_changed_too(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = repository / "bags_generator" / "1" / "golden.png"
    pictures, expected = read_golden(golden)
    write_golden(pictures, (255 - expected).astype(np.uint8), golden)
    assert verify(repository) == 1
    assert "BAD   bags_generator/1/onnx: fp32 golden pictures\n      batch 1: off by" in capsys.readouterr().out


def test_figures_out_of_tolerance_are_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def worsen(manifest: Any) -> None:
        manifest["artefacts"]["onnx"]["certificates"][0]["batches"][1]["max_levels"] = 40

    edit_manifest(repository, worsen)
    assert verify(repository, "--no-paint") == 1
    assert "batch 2: off by up to 40 levels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda version: (version / "model.onnx").unlink(), "`model.onnx` is missing"),
        (lambda version: (version / "manifest.json").unlink(), "No such file"),
        (lambda version: (version / "manifest.json").write_text("{"), "no manifest"),
        (lambda version: (version / "manifest.json").write_text("[]"), "no manifest"),
        (lambda version: (version / "manifest.json").write_text('{"schema": 1}'), "of schema 1; this version reads 2"),
        (lambda version: (version / "manifest.json").write_text('{"schema": 2}'), "no manifest: KeyError"),
        (lambda version: (version / "golden.png").write_bytes(b"no picture"), "golden.png` is damaged"),
        (lambda version: (version / "golden.png").unlink(), "golden.png` can't be read"),
        (shutil.rmtree, "it has none. Export one"),
        (lambda version: (version.parent.rename(version.parents[1] / "x"), version.parent.touch()), "it has none."),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    spoil: Any, message: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(repository / "bags_generator" / "1")
    assert verify(repository) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    "file",
    ["../../../outside", "/etc/hostname", "manifest.json/../model.onnx", "..", "", "x" * 300, "a\0b"],
)
def test_a_manifest_can_not_name_files_outside_its_folder(
    file: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(manifest: Any) -> None:
        certificate = manifest["artefacts"]["onnx"]["certificates"][0] | {"precision": "fp16", "tolerance": {}}
        manifest["artefacts"]["tensorrt"] = {"files": {file: {"sha256": "0"}}, "certificates": [certificate]}

    edit_manifest(repository, rename)
    assert verify(repository, "--no-paint") == 1
    out = capsys.readouterr().out
    assert "BAD   bags_generator/1/tensorrt: digests" in out
    assert f"`{file}` is missing" in out or f"`{file}` can't be read: File name too long" in out


def certificate(manifest: Any) -> Any:
    return manifest["artefacts"]["onnx"]["certificates"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: certificate(one)["batches"][0].update(max_levels=math.nan), "can't have been measured"),
        (lambda one: certificate(one)["batches"][0].update(mean_levels=-0.1), "can't have been measured"),
        (lambda one: certificate(one)["batches"][1].update(max_levels=-4), "can't have been measured"),
        (lambda one: certificate(one)["batches"][2].update(ssim=1e999), "can't have been measured"),
        (lambda one: certificate(one)["batches"][0].update(psnr_db=math.nan), "can't have been measured"),
        (lambda one: certificate(one)["batches"][0].update(pictures=0), "can't have been measured"),
        (lambda one: certificate(one)["batches"][0].update(max_levels="few"), "no manifest: TypeError"),
        (lambda one: certificate(one).update(batches=certificate(one)["batches"][:2]), "not of 1, 2, 5 pictures"),
        (lambda one: certificate(one).update(batches=[]), "not of 1, 2, 5 pictures"),
        (lambda one: certificate(one).update(precision="int8", tolerance={"min_ssim": -5}), "SSIM of -5 was asked"),
        (lambda one: certificate(one).update(precision="int8", tolerance={"min_ssim": math.nan}), "SSIM of nan was"),
        (lambda one: certificate(one).update(precision="int8", tolerance={"min_ssim": 0.1}), "expected fp32 or fp16"),
        (lambda one: one["artefacts"]["onnx"].update(certificates=[]), "onnx has certificates of []"),
        (lambda one: one["artefacts"]["onnx"].update(files={}), "onnx has the files []; expected model.onnx"),
        (lambda one: one["artefacts"]["onnx"]["files"].update({"b": {"sha256": "0"}}), "has the files ['b', 'model."),
        (lambda one: one["artefacts"].update({"tflite": one["artefacts"]["onnx"]}), "there is no artefact 'tflite'"),
        (lambda one: one["artefacts"].clear(), "names no artefact"),
    ],
)
def test_a_manifest_that_no_export_would_write_is_refused(
    change: Any, message: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(repository, change)
    assert verify(repository, "--no-paint") == 1
    out = capsys.readouterr().out
    assert message in out
    assert "manifest.json" in out


def test_an_artefact_swapped_together_with_its_golden_pictures_is_found(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(randomise(Pix2PixUNet(downs=8, ngf=2), seed=7).state_dict(), tmp_path / "other.pth")
    other = export_checkpoint(tmp_path / "other.pth", name="bags", repository=tmp_path / "others").path
    for name in ("model.onnx", "golden.png"):
        shutil.copy(other / name, repository / "bags_generator" / "1" / name)
    assert verify(repository) == 1
    assert "`model.onnx` is not the file that was certified" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["manifest.json", "golden.png", "model.onnx"])
def test_a_pipe_in_the_place_of_a_file_is_not_read(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "bags_generator" / "1" / name
    path.unlink()
    os.mkfifo(path)
    assert verify(repository) == 1
    assert re.search(rf"{name}` is (not a file|missing)", capsys.readouterr().out)


def test_golden_pictures_are_four_at_most(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = repository / "bags_generator" / "1" / "golden.png"
    assert cv2.imwrite(str(golden), np.zeros((512, 5 * 256, 3), np.uint8))
    assert verify(repository) == 1
    assert "is 1280 x 512 pixels; expected up to 4 pairs of 256 x 512" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config.pbtxt` can't be read: No such file"),
        ("backend [", "is no model configuration"),
        ('backend: "onnxruntime" default_model_filename: "other.onnx"', "`other.onnx`, which has no certificate"),
        ('backend: "openvino"', "serves `model.xml` as openvino, which has no certificate"),
    ],
)
def test_a_configuration_that_serves_what_was_not_certified_is_found(
    config: str | None, message: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "bags_generator" / "config.pbtxt"
    path.unlink()
    if config is not None:
        path.write_text(config)
    (repository / "bags_generator" / "1" / "other.onnx").write_text("not certified")
    assert verify(repository, "--no-paint") == 1
    assert message in capsys.readouterr().out


def test_plans_that_were_not_certified_are_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = repository / "bags_generator" / "configs" / "gpu.pbtxt"
    path.parent.mkdir()
    path.write_text(gpu_config("bags", Plans({"9.0": "model.sm90.trt11.4.0.plan"})))
    assert verify(repository, "--no-paint") == 1
    assert "serves model.sm90.trt11.4.0.plan, which has no certificate" in capsys.readouterr().out


def test_an_artefact_that_is_not_for_this_machine_is_left_out_with_the_reason(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise BuildFailed("it is for another GPU")

    monkeypatch.setattr(verification, "painter_of", refuse)
    assert verify(exported) == 0
    assert "left out, this machine can't run it: it is for another GPU" in capsys.readouterr().out


def test_a_folder_that_is_no_repository_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path / "nothing") == 1
    assert verify(tmp_path) == 1
    err = capsys.readouterr().err
    assert "is not a model repository: No such file" in err
    assert "has no generators; their names end with `_generator`" in err


def test_golden_pictures_are_drawings_above_and_paintings_below(exported: Path) -> None:
    pictures, expected = read_golden(exported / "bags_generator" / "1" / "golden.png")
    assert np.array_equal(pictures, shipped_pictures()[:4])
    assert expected.shape == (4, INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3)


@pytest.mark.server
def test_the_shipped_repository_paints_its_golden_pictures_through_the_server(
    server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Path(__file__).resolve().parents[2] / "model_repository"
    assert verify(repository, "--url", server.endpoints.grpc_url) == 0
    assert "ok    shoes_generator/1: golden pictures, as served" in capsys.readouterr().out


@pytest.mark.server
def test_a_server_that_does_not_have_the_model_is_a_finding(
    server: TritonServer, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(exported, "--url", server.endpoints.grpc_url) == 1
    assert "`bags_generator` at " in capsys.readouterr().out
