"""Refuse a TensorRT plan on the wrong machine before Triton starts, with what to run instead.

A plan is machine code for one compute capability and one TensorRT. Its file's name says which, as `sketchbridge export`
writes it: `model.sm90.trt11.4.0.plan`, `sm80-or-later` (hardware compatible), `sm90-all` (with every GPU of 9.0) and
`trt11.4.0-or-later` (version compatible). Names of another form are left to Triton.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchbridge_server.errors import ModelLoadFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)

NVIDIA_SMI = "nvidia-smi"
NVIDIA_SMI_PATIENCE_S = 30
DEFAULT_FILE = "model.plan"  # what Triton looks for where a configuration names no file

Version = tuple[int, ...]

_FILE = re.compile(
    r"model\.sm(?P<capability>\d{2,3})(?P<hardware>-or-later|-all)?"
    r"\.trt(?P<version>\d+\.\d+\.\d+)(?P<later>-or-later)?\.plan"
)
_LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
_GPU = re.compile(r"(\d+\.\d+), ([\d.]+), (.+)")


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine. compute_capability: such as "9.0"."""

    name: str
    compute_capability: str
    driver_version: str


@dataclass(frozen=True)
class Machine:
    """What plans have to fit. tensorrt_version: three numbers, as "11.4.0"; None if it can't be told."""

    gpus: tuple[Gpu, ...]
    tensorrt_version: str | None

    def __str__(self) -> str:
        if not self.gpus:
            return f"no GPU that {NVIDIA_SMI} shows"
        kinds = dict.fromkeys(f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in self.gpus)
        version = f" and TensorRT {self.tensorrt_version}" if self.tensorrt_version else ""
        return f"{', '.join(kinds)}{version}"


@dataclass(frozen=True)
class PlanFile:
    """What a plan's name says. capability_or_later, version_or_later: it is compatible with what came after."""

    name: str
    capability: str
    capability_or_later: bool
    version: str
    version_or_later: bool

    def __str__(self) -> str:
        hardware = " or later" if self.capability_or_later else ""
        version = " or later" if self.version_or_later else ""
        return f"{self.name}, for compute capability {self.capability}{hardware} and TensorRT {self.version}{version}"

    def fits_gpu(self, capability: str) -> bool:
        """Whether a GPU of this compute capability can run it."""
        return capability == self.capability or (
            self.capability_or_later and _numbers(capability) >= _numbers(self.capability)
        )

    def fits_version(self, version: str | None) -> bool:
        """Whether this TensorRT can load it; True if the version is not known."""
        return (
            version is None
            or version == self.version
            or (self.version_or_later and _numbers(version) >= _numbers(self.version))
        )


def check_plans(repositories: Sequence[Path], *, config_name: str, backends: Path) -> bool:
    """Ask that every model which serves plans under `config_name` has one that fits this machine.

    config_name: `gpu` for configs/gpu.pbtxt. backends: Triton's folder of backends. What can't be told, such as the
    version of TensorRT or what a file of another name is for, is left to Triton with a warning.
    Returns whether any plan is version compatible, which Triton's backend has to be told.
    Raises ModelLoadFailed with a sentence a model: what its plans are for, what this machine is, and what to run.
    """
    found = [
        (repository, path)
        for repository in repositories
        for path in sorted(repository.glob(f"*/configs/{config_name}.pbtxt"))
    ]
    if not found:
        logger.warning("no model has a configs/%s.pbtxt, so all are served as their config.pbtxt says", config_name)
    models = [
        (repository, path.parents[1], config)
        for repository, path in found
        if (config := _read_config(path)) is not None and config.backend == "tensorrt"
    ]
    if not models:
        return False
    machine = find_machine(backends)
    if machine.tensorrt_version is None and machine.gpus:
        logger.warning("the version of TensorRT was not found, so plans are not compared with it")
    reasons: dict[str, str] = {}
    version_compatible = False
    for repository, model, config in models:
        folder = _newest_version(model)
        if folder is None:
            continue  # Triton says so itself
        chosen = [_chosen_plan(config, gpu) for gpu in machine.gpus]
        plans = [plan for name in chosen if (plan := read_plan_name(name)) and (folder / name).is_file()]
        unknown = [name for name in chosen if read_plan_name(name) is None and (folder / name).is_file()]
        fitting = [
            plan
            for plan in plans
            if plan.fits_version(machine.tensorrt_version)
            and any(plan.fits_gpu(gpu.compute_capability) for gpu in machine.gpus)
        ]
        version_compatible |= any(plan.version_or_later for plan in fitting)
        if unknown:
            logger.warning("%s of %s: its name does not say which machine it is for", unknown[0], model.name)
        elif not fitting:
            reasons[model.name] = _refusal(repository, model.name, folder, machine)
        elif len(fitting) < len(chosen):
            logger.warning("%s has no plan for every GPU of this machine, which has %s", model.name, machine)
    if reasons:
        lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise ModelLoadFailed(
            f"{len(reasons)} model(s) can't run here, so nothing is served:\n{lines}", reasons=reasons
        )
    return version_compatible


def read_plan_name(name: str) -> PlanFile | None:
    """What the file's name says; None for names of another form."""
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    return PlanFile(
        name=name,
        capability=f"{found['capability'][:-1]}.{found['capability'][-1]}",
        capability_or_later=found["hardware"] == "-or-later",
        version=found["version"],
        version_or_later=found["later"] is not None,
    )


def find_machine(backends: Path) -> Machine:
    """This machine's GPUs, and the TensorRT that Triton's backend will load: beside it, or where the loader looks."""
    inherited = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    system = (f"/usr/lib/{os.uname().machine}-linux-gnu", "/usr/lib64", "/usr/local/tensorrt/lib")
    return Machine(
        gpus=find_gpus(),
        tensorrt_version=find_tensorrt(
            [backends / "tensorrt", *(Path(folder) for folder in (*inherited, *system) if folder)]
        ),
    )


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's driver lists; () if there are none, or it can't be asked."""
    program = shutil.which(NVIDIA_SMI)
    if program is None:
        return ()
    command = [program, "--query-gpu=compute_cap,driver_version,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_PATIENCE_S
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as exc:
        logger.warning("%s can't be asked for GPUs: %s", NVIDIA_SMI, exc)
        return ()
    rows = [_GPU.fullmatch(line.strip()) for line in answer.stdout.splitlines()]
    return tuple(Gpu(name=row[3], compute_capability=row[1], driver_version=row[2]) for row in rows if row)


def find_tensorrt(folders: Iterable[Path]) -> str | None:
    """The version of the first libnvinfer.so.N.N.N in `folders`; None if there is none, or two in that folder."""
    for folder in folders:
        names = (path.name for path in folder.glob("libnvinfer.so.*"))
        versions = {found[1] for name in names if (found := _LIBRARY.fullmatch(name))}
        if versions:
            return versions.pop() if len(versions) == 1 else None
    return None


def _read_config(path: Path) -> Any:
    """The configuration; None if it can't be read, which Triton says with line and column."""
    from google.protobuf import text_format  # noqa: PLC0415 - takes half a second, which only plans are worth
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as exc:
        logger.warning("%s can't be read: %s", path, exc)
        return None


def _newest_version(model: Path) -> Path | None:
    versions = [entry for entry in model.iterdir() if entry.is_dir() and re.fullmatch(r"[1-9]\d*", entry.name)]
    return max(versions, key=lambda entry: int(entry.name), default=None)


def _chosen_plan(config: Any, gpu: Gpu) -> str:
    """The file that Triton takes on this GPU."""
    name: str = config.cc_model_filenames.get(gpu.compute_capability) or config.default_model_filename or DEFAULT_FILE
    return name


def _refusal(repository: Path, model: str, folder: Path, machine: Machine) -> str:
    names = sorted(path.name for path in folder.glob("*.plan"))
    has = "; ".join(str(read_plan_name(name) or name) for name in names) or "none"
    command = ["sketchbridge", "export", _checkpoint(folder), "--name", model.removesuffix("_generator")]
    command += ["--repository", str(repository), "--artefacts", ",".join(_kinds(folder)), *_options(folder)]
    where = "here" if machine.gpus else "on the machine with the GPU"
    cpu = "" if machine.gpus else ", or serve on the CPU without --model-config-name"
    return f"its plans are {has}; this machine has {machine}. Build one {where} with `{shlex.join(command)}`{cpu}."


def _options(folder: Path) -> list[str]:
    """What else the version was exported with, as its manifest says: without it another network would come out."""
    try:
        options = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("options", {})
        given = [(f"--{key}", value) for key, value in options.items()]
    except (OSError, ValueError, AttributeError):
        return []
    return [word for key, value in given for word in ([key] if value is True else [key, str(value)])]


def _checkpoint(folder: Path) -> str:
    """The file that the version was made from, as its manifest says."""
    try:
        file = _manifest(folder)["checkpoint"]["file"]
    except (KeyError, TypeError):
        return "CHECKPOINT"
    return str(file)


def _kinds(folder: Path) -> list[str]:
    """What to make: a plan, and what the version has beside it, since config.pbtxt may name that."""
    try:
        there = [str(kind) for kind in _manifest(folder)["artefacts"] if kind != "onnx"]  # which is always made
    except (KeyError, TypeError):
        there = []
    return there if {"tensorrt", "tensorrt-int8"} & set(there) else [*there, "tensorrt"]


def _manifest(folder: Path) -> Any:
    """What the version's manifest holds; None if it can't be read."""
    try:
        return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))
