from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from sketchbridge_export.artefacts.tensorrt import BUILDERS, HARDWARE_COMPATIBILITIES, plan_name
from sketchbridge_export.gpu_config import Plans, gpu_config
from sketchbridge_server import ModelLoadFailed, ServerConfig, TritonServer
from sketchbridge_server.config import Endpoints, command_line
from sketchbridge_server.installation import Installation
from sketchbridge_server.plans import check_plans, find_gpus, find_tensorrt, read_plan_name

H100 = "9.0, 570.86.15, NVIDIA H100 80GB HBM3"
A10 = "8.6, 570.86.15, NVIDIA A10"


class Workshop:
    """A machine with a faked nvidia-smi and library, and a repository with faked plans."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = root / "bin"
        self.backends = root / "backends"
        self.repository = root / "models"
        self.version = self.repository / "shoes_generator" / "1"
        for folder in (self.programs, self.backends / "tensorrt", self.version, self.version.parent / "configs"):
            folder.mkdir(parents=True)
        (self.version.parent / "config.pbtxt").write_text('backend: "onnxruntime"')
        manifest = {"checkpoint": {"file": "latest net_G.pth"}}
        (self.version / "manifest.json").write_text(json.dumps(manifest))
        monkeypatch.setenv("PATH", str(self.programs))
        monkeypatch.setenv("LD_LIBRARY_PATH", "")

    def has_gpus(self, *rows: str, code: int = 0) -> None:
        lines = "\n".join(f"echo '{row}'" for row in rows)
        self.nvidia_smi(f"{lines}\nexit {code}")

    def nvidia_smi(self, script: str) -> None:
        program = self.programs / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def has_tensorrt(self, *versions: str) -> None:
        for version in versions:
            (self.backends / "tensorrt" / f"libnvinfer.so.{version}").touch()

    def has_plans(self, *files: str, portable: str | None = None) -> None:
        found = [(name, read_plan_name(name)) for name in files]
        by_capability = {plan.capability if plan else "9.0": name for name, plan in found}
        for name in (*files, *([portable] if portable else [])):
            (self.version / name).touch()
        text = gpu_config("shoes", Plans(by_capability, portable=portable))
        (self.version.parent / "configs" / "gpu.pbtxt").write_text(text)

    def check(self) -> bool:
        return check_plans([self.repository], config_name="gpu", backends=self.backends)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_a_plan_for_this_machine_is_served(workshop: Workshop) -> None:
    workshop.has_gpus(H100)
    workshop.has_tensorrt("11.4.0")
    workshop.has_plans("model.sm86.trt11.4.0.plan", "model.sm90.trt11.4.0.plan")
    assert workshop.check() is False


def test_a_plan_for_another_gpu_is_refused_with_what_to_run(workshop: Workshop) -> None:
    workshop.has_gpus(H100)
    workshop.has_tensorrt("11.4.0")
    workshop.has_plans("model.sm86.trt11.4.0.plan")
    with pytest.raises(ModelLoadFailed) as caught:
        workshop.check()
    assert caught.value.reasons == {
        "shoes_generator": "its plans are model.sm86.trt11.4.0.plan, for compute capability 8.6 and TensorRT 11.4.0; "
        "this machine has NVIDIA H100 80GB HBM3 (compute capability 9.0) and TensorRT 11.4.0. Build one here with "
        f"`sketchbridge export 'latest net_G.pth' --name shoes --repository {workshop.repository} "
        "--artefacts tensorrt`."
    }
    assert "shoes_generator: its plans are" in str(caught.value)


@pytest.mark.parametrize(
    ("built", "runs", "fits"),
    [
        ("trt11.4.0", "11.4.0", True),
        ("trt11.4.0", "11.4.1", False),
        ("trt11.4.0", "10.16.1", False),
        ("trt11.4.0-or-later", "11.4.0", True),
        ("trt11.4.0-or-later", "11.10.0", True),
        ("trt10.9.0-or-later", "11.4.0", True),
        ("trt11.4.0-or-later", "11.3.9", False),
    ],
)
def test_a_plan_has_to_fit_the_version_of_tensorrt(workshop: Workshop, built: str, runs: str, *, fits: bool) -> None:
    workshop.has_gpus(H100)
    workshop.has_tensorrt(runs)
    workshop.has_plans(f"model.sm90.{built}.plan")
    if fits:
        assert workshop.check() is ("later" in built)
    else:
        with pytest.raises(ModelLoadFailed, match=rf"and TensorRT {runs}\. Build one here"):
            workshop.check()


@pytest.mark.parametrize(
    ("built", "gpu", "fits"),
    [
        ("sm80-or-later", H100, True),
        ("sm80-or-later", "12.0, 580.1, NVIDIA RTX PRO 6000", True),
        ("sm80-or-later", "7.5, 570.86.15, Tesla T4", False),
        ("sm90-all", H100, True),
        ("sm90-all", A10, False),
        ("sm120", "12.0, 580.1, NVIDIA RTX PRO 6000", True),
    ],
)
def test_a_hardware_compatible_plan_fits_what_its_name_says(
    workshop: Workshop, built: str, gpu: str, *, fits: bool
) -> None:
    workshop.has_gpus(gpu)
    workshop.has_tensorrt("11.4.0")
    workshop.has_plans(portable=f"model.{built}.trt11.4.0.plan")
    if fits:
        workshop.check()
    else:
        with pytest.raises(ModelLoadFailed, match="its plans are model"):
            workshop.check()


@pytest.mark.parametrize(
    "script",
    ["exit 9", "echo 'No devices were found'", "printf '\\377\\n'", "echo '9.0'", "exec no-such-program", "kill -9 $$"],
)
def test_a_driver_without_a_gpu_or_gone_wrong_means_that_there_is_none(workshop: Workshop, script: str) -> None:
    workshop.nvidia_smi(script)
    workshop.has_plans("model.sm90.trt11.4.0.plan")
    with pytest.raises(ModelLoadFailed, match=r"no GPU that nvidia-smi shows.*or serve on the CPU without --model"):
        workshop.check()


def test_a_driver_that_hangs_is_given_up(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketchbridge_server.plans.NVIDIA_SMI_PATIENCE_S", 0.2)
    workshop.nvidia_smi("exec /bin/sleep 60")
    assert find_gpus() == ()


def test_a_machine_without_nvidias_driver_has_no_gpu(workshop: Workshop) -> None:
    assert find_gpus() == ()


def test_an_unknown_version_only_warns(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.has_gpus(H100)
    workshop.has_tensorrt("11.4.0", "10.9.0")  # which of them is loaded can't be told
    workshop.has_plans("model.sm90.trt11.4.0.plan")
    with caplog.at_level(logging.WARNING):
        workshop.check()
    assert "the version of TensorRT was not found" in caplog.text


def test_a_name_of_another_form_is_left_to_triton(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.has_gpus(H100)
    workshop.has_plans("mine.plan")
    with caplog.at_level(logging.WARNING):
        assert workshop.check() is False
    assert "its name does not say which machine it is for" in caplog.text


def test_a_gpu_without_a_plan_beside_one_that_has_one_only_warns(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.has_gpus(H100, A10)  # CUDA_VISIBLE_DEVICES may hide it, which nvidia-smi does not know
    workshop.has_plans("model.sm90.trt11.4.0.plan")
    with caplog.at_level(logging.WARNING):
        workshop.check()
    assert "shoes_generator has no plan for every GPU" in caplog.text


def test_a_configured_plan_that_is_not_in_the_newest_version_is_missed(workshop: Workshop) -> None:
    workshop.has_gpus(H100)
    workshop.has_plans("model.sm90.trt11.4.0.plan")
    workshop.version.rename(workshop.version.with_name("9"))
    workshop.version.with_name("10").mkdir()
    with pytest.raises(ModelLoadFailed, match=r"its plans are none; .*`sketchbridge export CHECKPOINT --name shoes"):
        workshop.check()


def test_the_command_makes_what_the_version_has_beside_its_plans_too(workshop: Workshop) -> None:
    manifest = {"checkpoint": {"file": "g.pth"}, "artefacts": {"onnx": {}, "openvino-int8": {}, "tensorrt-int8": {}}}
    (workshop.version / "manifest.json").write_text(json.dumps(manifest))
    workshop.has_gpus(H100)
    workshop.has_plans("model.sm86.trt11.4.0.plan")
    with pytest.raises(ModelLoadFailed, match=r"--artefacts openvino-int8,tensorrt-int8`\.$"):
        workshop.check()


def test_the_command_repeats_what_the_version_was_exported_with(workshop: Workshop) -> None:
    options = {"norm": "running", "dropout": 7, "version-compatible": True}
    manifest = {"checkpoint": {"file": "g.pth"}, "options": options, "artefacts": {"onnx": {}, "tensorrt": {}}}
    (workshop.version / "manifest.json").write_text(json.dumps(manifest))
    workshop.has_gpus(H100)
    workshop.has_plans("model.sm86.trt11.4.0.plan")
    with pytest.raises(
        ModelLoadFailed, match=r"--artefacts tensorrt --norm running --dropout 7 --version-compatible`\.$"
    ):
        workshop.check()


def test_a_name_that_no_model_has_a_configuration_of_is_said(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    assert workshop.check() is False
    assert "no model has a configs/gpu.pbtxt, so all are served as their config.pbtxt says" in caplog.text


@pytest.mark.parametrize("text", ['backend: "onnxruntime"', "no configuration {", ""])
def test_other_backends_are_not_looked_at_and_broken_configurations_are_left_to_triton(
    workshop: Workshop, text: str
) -> None:
    (workshop.version.parent / "configs" / "gpu.pbtxt").write_text(text)
    workshop.nvidia_smi("exit 1")
    assert workshop.check() is False


@pytest.mark.parametrize("hardware", HARDWARE_COMPATIBILITIES)
@pytest.mark.parametrize("version_compatible", [False, True])
def test_names_are_read_as_the_export_writes_them(hardware: str, *, version_compatible: bool) -> None:
    compatibility = next(known for known in HARDWARE_COMPATIBILITIES if known == hardware)
    for capability in ("7.5", "9.0", "12.0"):
        name = plan_name(
            builder="tensorrt",
            version="11.4.0.106",
            compute_capabilities=[capability],
            version_compatible=version_compatible,
            hardware_compatibility=compatibility,
        )
        plan = read_plan_name(name)
        assert plan is not None
        assert plan.capability == ("8.0" if hardware == "ampere+" else capability)
        assert plan.capability_or_later == (hardware == "ampere+")
        assert (plan.version, plan.version_or_later) == ("11.4.0", version_compatible)


def test_engines_of_tensorrt_rtx_are_no_plans() -> None:
    assert BUILDERS == ("tensorrt", "tensorrt-rtx")
    name = plan_name(builder="tensorrt-rtx", version="1.7.1.116", compute_capabilities=["8.6", "8.9"])
    assert name == "model.sm86-sm89.rtx1.7.1.engine"
    assert read_plan_name(name) is None


def test_the_first_folder_that_has_the_library_decides(tmp_path: Path) -> None:
    for folder, file in (("a", "libnvinfer.so.11"), ("b", "libnvinfer.so.11.4.0"), ("c", "libnvinfer.so.10.9.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    assert find_tensorrt([tmp_path / name for name in "xabc"]) == "11.4.0"


def test_the_server_does_not_start_with_a_plan_for_another_machine(
    workshop: Workshop, make_config: Callable[..., ServerConfig]
) -> None:
    workshop.has_gpus(H100)
    workshop.has_plans("model.sm86.trt11.4.0.plan")
    program = workshop.programs / "tritonserver"  # is not there: it must not come to that
    installation = Installation(program, workshop.backends, stub=None, libraries=(), description="a fake")
    server = TritonServer(make_config(workshop.repository, model_config_name="gpu"), installation=installation)
    with pytest.raises(ModelLoadFailed, match=r"compute capability 8\.6"):
        server.start()
    server.stop()


@pytest.mark.parametrize("compatible", [False, True])
def test_the_backend_is_told_of_version_compatible_plans(*, compatible: bool) -> None:
    command = command_line(
        ServerConfig((Path("models"),), model_config_name="gpu"),
        Endpoints("127.0.0.1", http_port=1, grpc_port=2, metrics_port=3),
        program=Path("tritonserver"),
        backend_directory=Path("backends"),
        shared_memory_prefix="ours_",
        has_gpu_backends=True,
        version_compatible_plans=compatible,
    )
    assert ("--backend-config=tensorrt,version-compatible=true" in command) is compatible
