"""The whole way, through the command."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import sketchbridge_export
from sketchbridge_export import export
from sketchbridge_export.artefacts import tensorrt
from sketchbridge_export.command import (
    ARTEFACT_KINDS,
    FAMILY_NAMES,
    HARDWARE_COMPATIBILITIES,
    SERVED_KINDS,
    VALUE_RANGE_NAMES,
    add_arguments,
    run,
)
from sketchbridge_export.families import FAMILIES
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.production import KINDS
from sketchbridge_export.reconstruction import VALUE_RANGES
from sketchbridge_export.triton_config import SERVED
from tests.conftest import PHOTOS
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
    artefact = manifest["artefacts"]["onnx"]
    content = (version / "model.onnx").read_bytes()
    assert artefact["files"] == {
        "model.onnx": {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    }
    (certificate,) = artefact["certificates"]
    assert certificate["precision"] == "fp32"
    assert certificate["tolerance"] == {"max_levels": 1, "mean_levels": 0.05}
    assert [batch["batch_size"] for batch in certificate["batches"]] == [1, 2, 5]
    assert all(batch["max_levels"] <= 1 for batch in certificate["batches"])
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
    assert (report["version"], report["norm"], report["artefacts"]["onnx"]["weights"]) == (1, "running", "fp16")
    manifest = json.loads((Path(report["path"]) / "manifest.json").read_text())
    assert manifest["checkpoint"]["metadata"] == {"norm": "running", "epochs": 3}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--name", "Shoes"), 2, "lower-case"),
        (("--name", "shoes", "--family", "dcgan"), 2, "family is 'dcgan'; there are: "),
        (("--name", "shoes", "--family", "renderx_unet"), 1, "is no renderx_unet: `encoder.0.0.weight` is missing"),
        (("--name", "shoes", "--pictures", "/nonexistent"), 2, "is not a folder"),
        (("--name", "shoes", "--artefacts", "onnx,tflite"), 2, "no artefact 'tflite'; there are: onnx"),
        (("--name", "shoes", "--min-ssim", "98"), 2, "INT8 must reach is 98.0; it must be above 0 and at most 1"),
        (("--name", "shoes", "--min-ssim", "nan"), 2, "INT8 must reach is nan; it must be above 0 and at most 1"),
        (("--name", "shoes", "--dropout", str(2**32)), 2, "dropout seed is 4294967296; it must be 0 to 4294967295"),
        (("--name", "shoes", "--size", "4096"), 2, "size is 4096; it must be 32 to 1024 pixels"),
        (("--name", "shoes", "--size", "512"), 2, "this network takes 256 x 256 pixels"),
        ((), 2, "--name is missing"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calibration", "."), "Calibration pictures are for INT8, and no INT8 artefact is made"),
        (("--artefacts", "openvino", "--min-ssim", "0.9"), "SSIM to reach is for INT8, and no INT8 artefact is made"),
        (("--artefacts", "openvino-int8", "--calibration", "/nonexistent"), "`/nonexistent` is not a folder"),
        (
            ("--serve", "openvino-int8"),
            "openvino-int8 can't be served: it is not made. Add `--artefacts openvino-int8`",
        ),
        (("--hardware-compatibility", "ampere+"), "Compatibility is for TensorRT plans, and none is made"),
        (("--artefacts", "tensorrt-rtx", "--version-compatible"), "Compatibility is for TensorRT plans, and none is"),
        (("--artefacts", "tensorrt,tensorrt-rtx", "--version-compatible"), "tensorrt-rtx knows no compatibility"),
    ],
)
def test_options_for_what_is_not_made_are_refused_before_the_file_is_read(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "none.pt", "--name", "shoes", "--repository", tmp_path / "models", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_no_picture_is_drawn_for_a_file_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw() -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(export, "shipped_pictures", draw)
    assert call(tmp_path / "none.pt", "--name", "shoes", "--repository", tmp_path / "models") == 1
    assert "none.pt" in capsys.readouterr().err


def test_weights_that_overflow_are_refused_though_every_artefact_would_paint_the_same(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torch.load(small_checkpoint, weights_only=True)
    large = {key: value * 1e30 if key.endswith("weight") else value for key, value in weights.items()}
    torch.save(large, tmp_path / "diverged.pth")
    assert call(tmp_path / "diverged.pth", "--name", "shoes", "--repository", tmp_path / "models") == 1
    assert "error: The network paints values that are no numbers" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_int8_is_calibrated_served_and_held_to_what_the_options_say(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in PHOTOS:
        shutil.copy(path, photos)
    words: list[str | Path] = [
        small_checkpoint,
        "--name",
        "shoes",
        "--repository",
        tmp_path / "models",
        "--artefacts",
        "openvino-int8",
    ]
    words += ["--serve", "openvino-int8", "--calibration", photos, "--evidence", tmp_path]
    assert call(*words, "--min-ssim", "0.9") == 0
    version = tmp_path / "models" / "shoes_generator" / "1"
    described = json.loads((version / "manifest.json").read_text())["artefacts"]["openvino-int8"]
    assert described["calibration_pictures"] == len(PHOTOS) + 3  # and textures
    assert described["certificates"][0]["tolerance"] == {"min_ssim": 0.9}
    assert 'default_model_filename: "model_int8.xml"' in (version.parent / "config.pbtxt").read_text()

    assert call(*words, "--min-ssim", "1") == 1
    evidence = tmp_path / "shoes_openvino-int8_worst.png"
    err = capsys.readouterr().err
    assert re.search(r"error: openvino-int8 does not paint.*SSIM 0\.9\d+.*Allowed: SSIM of 1\.0 or more", err)
    assert f"See the worst picture: `{evidence}`." in err
    assert evidence.is_file()
    assert [path.name for path in version.parent.iterdir() if path.is_dir()] == ["1"]


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
    assert ARTEFACT_KINDS == KINDS
    assert tuple(VALUE_RANGES) == VALUE_RANGE_NAMES
    assert tuple(SERVED) == SERVED_KINDS
    assert tensorrt.HARDWARE_COMPATIBILITIES == HARDWARE_COMPATIBILITIES


def test_inspecting_says_what_was_recognised_and_writes_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert call(small_checkpoint, "--inspect") == 0
    text = capsys.readouterr().out
    for words in ("junyanz_unet: pytorch-CycleGAN-and-pix2pix", "num_downs 8", "tanh range", "norm     instance"):
        assert words in text
    assert call(small_checkpoint, "--inspect", "--json", "--norm", "running", "--line-polarity", "light-on-dark") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["norm"], found["format"]) == ("junyanz_unet", "running", "torch.save")
    assert found["convention"]["line_polarity"] == "light-on-dark"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_callers_word_goes_before_the_checkpoints(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trained.pt"
    weights = torch.load(small_checkpoint, weights_only=True)
    said = {"norm": "running", "channel_order": "bgr", "output_range": "unit"}
    torch.save({"sketchbridge": said, "generator": weights}, path)
    assert call(path, "--inspect", "--json", "--channel-order", "rgb") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["norm"] == "running"
    assert found["convention"]["channel_order"] == "rgb"
    assert found["convention"]["output_range"] == {"low": 0.0, "high": 1.0}


@pytest.mark.parametrize("said", [{"size": "large"}, {"size": True}, {"size": 5}, {"channel_order": ["rgb"]}])
def test_metadata_that_no_option_could_say_is_the_files_fault(
    said: dict[str, object], small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trained.pt"
    torch.save({"sketchbridge": said, "generator": torch.load(small_checkpoint, weights_only=True)}, path)
    assert call(path, "--inspect") == 1
    assert f"The `sketchbridge` metadata of `{path}`" in capsys.readouterr().err


def test_dropout_by_a_seed_changes_the_picture_and_is_recorded(small_checkpoint: Path, tmp_path: Path) -> None:
    painted: list[NDArray[np.uint8]] = []
    for words in ((), ("--dropout", "off"), ("--dropout", "7"), ("--dropout", "8")):
        assert call(small_checkpoint, "--name", "shoes", "--repository", tmp_path / "models", *words) == 0
        version = tmp_path / "models" / "shoes_generator" / str(len(painted) + 1)
        session = onnxruntime.InferenceSession(version / "model.onnx")
        painted.append(session.run(None, {"sketch": shipped_pictures()[:1]})[0])
    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["network"]["dropout"] == "seed 8"
    assert manifest["options"] == {"dropout": 8}
    assert np.array_equal(painted[0], painted[1])
    assert not np.array_equal(painted[0], painted[2])
    assert not np.array_equal(painted[2], painted[3])


def test_a_seed_that_is_none_is_a_wrong_call(small_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(small_checkpoint, "--name", "shoes", "--dropout", "yes")
    assert "'yes' is neither `off` nor a whole number, such as 7" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["export", "verify"])
def test_help_needs_no_torch(command: str) -> None:
    code = (
        "import sys; from sketchbridge_cli import main; assert main([sys.argv[1], '--help']) == 0; "
        "print(sorted({'torch', 'onnx', 'cv2', 'numpy', 'grpc', 'openvino'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "exit status: 0" in done.stdout


def test_every_public_name_is_there_and_every_error_has_a_place_in_the_tree() -> None:
    for name in sketchbridge_export.__all__:
        assert getattr(sketchbridge_export, name) is not None
    errors = [name for name in sketchbridge_export.__all__ if isinstance(getattr(sketchbridge_export, name), type)]
    tree = sys.modules["sketchbridge_export.errors"].__doc__ or ""
    exceptions = [name for name in errors if issubclass(getattr(sketchbridge_export, name), Exception)]
    assert len(exceptions) == 7
    assert all(name in tree for name in exceptions)
