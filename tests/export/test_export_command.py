"""The whole way, through the command."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import sketchbridge_export
from sketchbridge_export.command import FAMILY_NAMES, add_arguments, run
from sketchbridge_export.families import FAMILIES
from sketchbridge_export.parity_pictures import shipped_pictures
from tests.export.conftest import INSTANCE, Pix2PixUNet, paint, use_own_statistics


def call(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


def test_the_command_publishes_a_version_with_its_manifest(
    small_checkpoint: Path, small_unet: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    assert call(small_checkpoint, "--name", "shoes", "--repository", repository) == 0
    out, err = capsys.readouterr()
    version = repository / "shoes_generator" / "1"
    assert out == f"wrote: `{version}`\n"
    assert "recognised junyanz_unet" in err
    assert err.endswith("Restart `sketchbridge serve` to serve it.\n")

    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["checkpoint"]["file"] == small_checkpoint.name
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(small_checkpoint.read_bytes()).hexdigest()
    assert manifest["family"] == "junyanz_unet"
    assert (manifest["network"]["num_downs"], manifest["network"]["ngf"], manifest["network"]["norm"]) == (
        8,
        4,
        "instance",
    )
    artefact = manifest["artefacts"]["model.onnx"]
    content = (version / "model.onnx").read_bytes()
    assert (artefact["sha256"], artefact["size_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [batch["batch_size"] for batch in artefact["parity"]["batches"]] == [1, 2, 5]
    assert all(batch["max_levels"] <= 1 for batch in artefact["parity"]["batches"])
    assert str(small_checkpoint.parent) not in (version / "manifest.json").read_text()

    pictures = shipped_pictures()[:2]
    painted = onnxruntime.InferenceSession(content).run(None, {"sketch": pictures})[0]
    expected = paint(use_own_statistics(small_unet), pictures)
    assert np.abs(painted.astype(int) - expected.astype(int)).max() <= 1


def test_the_checkpoints_metadata_chooses_the_norm_and_json_reports_it(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trained.pt"
    torch.save(
        {
            "sketchbridge": {"norm": "running", "epochs": 3},
            "generator": torch.load(small_checkpoint, weights_only=True),
        },
        path,
    )
    assert call(path, "--name", "shoes", "--repository", tmp_path / "models", "--weights", "fp16", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["version"], report["norm"], report["weights"]) == (1, "running", "fp16")
    manifest = json.loads((Path(report["path"]) / "manifest.json").read_text())
    assert manifest["checkpoint"]["metadata"] == {"norm": "running", "epochs": 3}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--name", "Shoes"), 2, "lower-case"),
        (("--name", "shoes", "--family", "dcgan"), 2, "no family 'dcgan'"),
        (("--name", "shoes", "--family", "renderx_unet"), 1, "renderx_unet: `encoder.0.0.weight` is missing"),
        (("--name", "shoes", "--pictures", "/nonexistent"), 2, "is not a folder"),
    ],
)
def test_a_failure_is_one_line_and_its_status_and_publishes_nothing(
    words: tuple[str, ...],
    status: int,
    message: str,
    small_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(small_checkpoint, "--repository", tmp_path / "models", *words) == status
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not (tmp_path / "models").exists()


def test_metadata_with_an_unknown_norm_is_refused(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trained.pt"
    torch.save({"sketchbridge": {"norm": "group"}, "generator": torch.load(small_checkpoint, weights_only=True)}, path)
    assert call(path, "--name", "shoes", "--repository", tmp_path / "models") == 1
    assert "says norm 'group'; there are: running, instance" in capsys.readouterr().err


def test_metadata_with_a_norm_that_the_weights_do_not_have_is_the_files_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = Pix2PixUNet(downs=5, ngf=2, norm=INSTANCE).state_dict()
    path = tmp_path / "trained.pt"
    torch.save({"sketchbridge": {"norm": "running"}, "generator": state}, path)
    words = (path, "--name", "shoes", "--repository", tmp_path / "models")
    assert call(*words) == 1
    assert f"metadata of `{path}` does not fit its weights: norm is 'running'" in capsys.readouterr().err
    assert call(*words, "--norm", "running") == 2
    assert "does not fit its weights" not in capsys.readouterr().err


def test_the_repository_is_the_one_that_serve_takes_and_the_help_lists_the_families() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["a.pt", "--name", "a"]).repository == Path("model_repository")
    assert set(FAMILY_NAMES) == set(FAMILIES)


def test_help_needs_no_torch() -> None:
    code = (
        "import argparse, sys; from sketchbridge_export import command; p = argparse.ArgumentParser(); "
        "command.add_arguments(p); p.format_help(); print(sorted({'torch', 'onnx', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_every_error_has_a_place_in_the_tree() -> None:
    for name in sketchbridge_export.__all__:
        assert getattr(sketchbridge_export, name) is not None
    errors = [name for name in sketchbridge_export.__all__ if isinstance(getattr(sketchbridge_export, name), type)]
    tree = sys.modules["sketchbridge_export.errors"].__doc__ or ""
    exceptions = [name for name in errors if issubclass(getattr(sketchbridge_export, name), Exception)]
    assert len(exceptions) == 6
    assert all(name in tree for name in exceptions)
