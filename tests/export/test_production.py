"""Every kind of artefact that a machine without a GPU can make, from one checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sketchbridge_export import production
from sketchbridge_export.artefacts import openvino
from sketchbridge_export.errors import BuildFailed, OptionInvalid, RepositoryError
from sketchbridge_export.export import ExportReport, export_checkpoint
from sketchbridge_export.manifest import file_sha256
from sketchbridge_export.production import KINDS, check_kinds, recorded_problem
from sketchbridge_export.reconstruction import Wishes
from sketchbridge_export.triton_config import SERVED
from sketchbridge_export.verification import verify_repository

KINDS_HERE = ("openvino", "openvino-int8", "tensorrt-rtx")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> ExportReport:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: no plan can be built without a GPU")
    repository = tmp_path_factory.mktemp("production") / "models"
    return export_checkpoint(
        small_checkpoint,
        name="bags",
        repository=repository,
        artefacts=KINDS_HERE,
        weights="fp16",
        serve="openvino-int8",
    )


def test_each_kind_has_its_files_digests_and_a_certificate_of_its_own_precision(report: ExportReport) -> None:
    manifest = json.loads((report.path / "manifest.json").read_text())
    assert list(manifest["artefacts"]) == ["onnx", *KINDS_HERE]
    for described in manifest["artefacts"].values():
        for name, file in described["files"].items():
            assert file["sha256"] == file_sha256(report.path / name)
    precisions = {
        kind: [certificate["precision"] for certificate in described["certificates"]]
        for kind, described in manifest["artefacts"].items()
    }
    assert precisions["onnx"] == precisions["openvino"] == ["fp16-weights"]
    assert precisions["openvino-int8"] == ["int8"]
    assert precisions["tensorrt-rtx"][0] == "fp16"
    assert len(precisions["tensorrt-rtx"]) == (2 if torch.cuda.is_available() else 1)
    assert "the typed graph" in manifest["artefacts"]["tensorrt-rtx"]["certificates"][0]["measured_on"]
    assert str(report.path) not in json.dumps(manifest)


def test_the_version_holds_what_the_manifest_names_and_nothing_else(report: ExportReport) -> None:
    named = {path.name for artefact in report.artefacts for path in artefact.files}
    assert {path.name for path in report.path.iterdir()} == {*named, "manifest.json", "golden.png"}
    assert SERVED["openvino-int8"].file in (report.path.parent / "config.pbtxt").read_text()
    assert not (report.path.parent / "configs").exists()  # Triton can't load engines of TensorRT-RTX


def test_all_of_them_are_verified_again_and_what_can_not_run_here_is_said_so(report: ExportReport) -> None:
    findings = verify_repository(report.path.parents[1])
    assert [finding for finding in findings if finding.problem is not None] == []
    painted = {
        finding.subject.rpartition("/")[2]: finding.checked for finding in findings if "golden" in finding.checked
    }
    assert set(painted) == {"onnx", *KINDS_HERE}
    if not torch.cuda.is_available():
        assert painted["tensorrt-rtx"].endswith("left out, this machine can't run it")


def test_bfloat16_is_certified_in_bfloat16_where_the_processor_has_it(small_checkpoint: Path, tmp_path: Path) -> None:
    if not openvino.computes_in("bf16"):
        with pytest.raises(OptionInvalid, match="does not compute in bf16"):
            export_checkpoint(
                small_checkpoint, name="bags", repository=tmp_path / "models", artefacts=["openvino-bf16"]
            )
        return
    found = export_checkpoint(
        small_checkpoint,
        name="bags",
        repository=tmp_path / "models",
        artefacts=["openvino-bf16"],
        serve="openvino-bf16",
    )
    certificate = found.artefacts[1].certificates[0]
    assert certificate.precision == "bf16"
    assert certificate.batches[0].max_levels > 1  # or it was float32 all the same
    assert "HINT_BF16" in (found.path.parent / "config.pbtxt").read_text()


def test_a_plan_that_can_not_be_built_here_installs_nothing(small_checkpoint: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so a plan can be built")
    with pytest.raises(BuildFailed, match="tensorrt"):
        export_checkpoint(small_checkpoint, name="bags", repository=tmp_path / "models", artefacts=["tensorrt"])
    assert not (tmp_path / "models").exists()  # it is known before the work


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU to build and run a TensorRT plan")
def test_a_plan_is_certified_on_the_gpu_and_served_by_a_configuration_of_its_own(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    found = export_checkpoint(small_checkpoint, name="bags", repository=tmp_path / "models", artefacts=["tensorrt"])
    assert [certificate.precision for certificate in found.artefacts[1].certificates] == ["fp16", "fp16"]
    config = (found.path.parent / "configs" / "gpu.pbtxt").read_text()
    assert found.artefacts[1].files[0].name in config


def test_a_full_disk_on_the_way_to_a_plan_installs_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(production, "save_model", fail)
    with pytest.raises(RepositoryError, match=r"tensorrt-rtx\.onnx` can't be written: No space left on device"):
        export_checkpoint(small_checkpoint, name="bags", repository=tmp_path / "models", artefacts=["tensorrt-rtx"])
    assert not list((tmp_path / "models").iterdir())


def test_two_precisions_of_one_plan_are_refused() -> None:
    with pytest.raises(OptionInvalid, match="tensorrt and tensorrt-int8 are one file in two precisions"):
        check_kinds(["tensorrt", "tensorrt-int8"])
    check_kinds([kind for kind in KINDS if kind not in ("tensorrt-int8", "tensorrt-rtx-int8")])


def test_a_ready_onnx_file_goes_the_same_way(report: ExportReport, tmp_path: Path) -> None:
    found = export_checkpoint(
        report.path / "model.onnx", name="again", repository=tmp_path / "models", artefacts=["openvino"]
    )
    assert found.family == "ready"
    assert found.artefacts[0].certificates[0].batches[0].max_levels == 0
    with pytest.raises(OptionInvalid, match=r"norm can't be chosen: .* is ONNX whose weights no family knows"):
        export_checkpoint(
            report.path / "model.onnx", name="again", repository=tmp_path / "models", wishes=Wishes(norm="running")
        )


def test_what_a_manifest_says_of_an_artefact_is_what_its_kind_can_have(report: ExportReport) -> None:
    for artefact in report.artefacts:
        files = [path.name for path in artefact.files]
        precisions = [certificate.precision for certificate in artefact.certificates]
        assert recorded_problem(artefact.kind, files, precisions) is None
        assert recorded_problem(artefact.kind, files[1:], precisions)
        assert recorded_problem(artefact.kind, [*files, "other"], precisions)
        assert recorded_problem(artefact.kind, files, [*precisions, "bf16"])
        assert recorded_problem(artefact.kind, files, [])
