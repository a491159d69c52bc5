"""A repository that is checked again, whole and damaged."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketchbridge_export.export import export_checkpoint
from sketchbridge_export.golden import read_golden, write_golden
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.verify_command import add_arguments, run
from sketchbridge_preprocess import INTERFACE_SIDE_PX
from sketchbridge_server import TritonServer


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
        "3 checks, 0 problems",
    ]
    assert verify(exported, "--no-paint", "--json") == 0
    assert [finding["checked"] for finding in json.loads(capsys.readouterr().out)] == ["digests", "fp32 certificate"]


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
    ["../../../outside", "/etc/hostname", "manifest.json/../model.onnx"],
)
def test_a_manifest_can_not_name_files_outside_its_folder(
    file: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(repository, lambda manifest: manifest["artefacts"]["onnx"].update(files={file: {"sha256": "0"}}))
    assert verify(repository, "--no-paint") == 1
    assert f"`{file}` is missing" in capsys.readouterr().out


def test_a_folder_that_is_no_repository_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path / "nothing") == 1
    assert verify(tmp_path) == 1
    err = capsys.readouterr().err
    assert "is not a folder" in err
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
