"""A generator as a TensorRT plan, built from an ONNX graph that itself says what is computed in which precision.

Three libraries build by the same steps: `tensorrt` 10 and 11, which time kernels on the GPU that is there and build for
that one, and `tensorrt_rtx`, which builds without a GPU, for many, and compiles the rest where the engine is loaded.
Where they differ is said once: networks of TensorRT 10 are weakly typed unless asked otherwise; only the full library
has a timing cache and levels of compatibility; only TensorRT-RTX takes target compute capabilities.

A plan is machine code: load only those that you or someone you trust has built.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto

from sketchbridge_export.artefacts.half_precision import half_precision_graph, plain_weights, replace_nodes
from sketchbridge_export.artefacts.int8_qdq import quantised_graph
from sketchbridge_export.artefacts.plan_progress import Bars, Step, make_monitor, run_build
from sketchbridge_export.errors import BuildFailed, OptionInvalid, RepositoryError
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME
from sketchbridge_export.parity import Paint, Pictures
from sketchbridge_preprocess import INTERFACE_SIDE_PX

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
BuilderName = Literal["tensorrt", "tensorrt-rtx"]
BUILDERS: tuple[BuilderName, ...] = ("tensorrt", "tensorrt-rtx")
HardwareCompatibility = Literal["none", "ampere+", "same-cc"]
HARDWARE_COMPATIBILITIES: tuple[HardwareCompatibility, ...] = ("none", "ampere+", "same-cc")

# What an engine of TensorRT-RTX runs on where nothing else is asked for, and what else it can be built for.
RTX_COMPUTE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
_RTX_KNOWN = ("7.5", *RTX_COMPUTE_CAPABILITIES, "12.1")

_MODULES: dict[BuilderName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_LEVELS: dict[HardwareCompatibility, str] = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}
_OLDEST: dict[HardwareCompatibility, tuple[int, int]] = {"none": (0, 0), "ampere+": (8, 0), "same-cc": (7, 5)}
_LARGEST_BATCH = 1024  # of the ONNX graph
_LARGEST_TIMING_CACHE_BYTES = 1024**3


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine. compute_capability: such as "9.0"."""

    name: str
    compute_capability: str
    driver_version: str


@dataclass(frozen=True)
class Plan:
    """A plan or engine on disk, and what it fits.

    compute_capabilities: the GPU's it was built on, or the targets of a TensorRT-RTX engine. gpu, driver_version: what
    it was built on; None for TensorRT-RTX. version: of the library, four numbers.
    """

    path: Path
    precision: Precision
    builder: BuilderName
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    driver_version: str | None
    version_compatible: bool
    hardware_compatibility: HardwareCompatibility
    min_batch: int
    opt_batch: int
    max_batch: int
    size_bytes: int
    duration_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for the manifest; of the path, the file's name."""
        return asdict(self) | {
            "path": self.path.name,
            "compute_capabilities": list(self.compute_capabilities),
            "duration_s": round(self.duration_s, 1),
        }


def typed_graph(
    onnx_path: Path, *, precision: Precision, calibration: Pictures | None = None, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """The graph in `onnx_path` (as `write_onnx` writes it) with the types of `precision`.

    calibration: drawings, for "int8" only, which quantises the convolutions but `keep` and has the rest of the network
    in float16. Raises OptionInvalid if they are missing, and as `half_precision_graph` and `quantised_graph` do.
    """
    if precision == "int8":
        if calibration is None:
            raise OptionInvalid("INT8 needs calibration pictures. Give drawings like those to come.")
        return half_precision_graph(quantised_graph(onnx_path, calibration=calibration, keep=keep))
    model = onnx.load(onnx_path)
    return half_precision_graph(model) if precision == "fp16" else plain_weights(model)


def check_builder(builder: BuilderName, *, hardware_compatibility: HardwareCompatibility = "none") -> None:
    """Raise BuildFailed or OptionInvalid if `build_plan` could not even begin here: no library, no GPU."""
    _load_library(builder)
    if builder == "tensorrt":
        _require_gpu(hardware_compatibility)


def build_plan(
    graph: Path,
    folder: Path,
    *,
    precision: Precision,
    builder: BuilderName = "tensorrt",
    min_batch: int = 1,
    opt_batch: int = 4,
    max_batch: int = 8,
    version_compatible: bool = False,
    hardware_compatibility: HardwareCompatibility = "none",
    compute_capabilities: Sequence[str] = (),
    timing_cache: Path | None = None,
    workspace_bytes: int | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Plan:
    """Build a plan from an ONNX file and put it into `folder` under a name that says what it fits (`plan_name`).

    graph: as `typed_graph` makes it; `precision` says which precision that was, and keeps TF32 out of "fp32".
    min_batch, opt_batch, max_batch: pictures at once that the plan takes and is fastest at. version_compatible: let
    later versions of TensorRT load it too. hardware_compatibility: "ampere+" for every GPU of compute capability 8.0
    and later, "same-cc" for every one of the same compute capability; "none" is for this kind of GPU, and fastest.
    compute_capabilities: targets of TensorRT-RTX, such as "8.9"; () takes RTX_COMPUTE_CAPABILITIES.
    timing_cache: folder for what was measured of kernels (`timing_cache_folder` is the usual one), which makes later
    builds faster; TensorRT-RTX measures nothing.
    workspace_bytes: GPU memory that a layer may use; None leaves it to the library.
    progress: called in another thread at each step; None shows bars on stderr if that is a terminal.

    Ctrl-C ends the build at its next step. Nothing is written unless it succeeded.
    Raises OptionInvalid for what a library can't do, BuildFailed, and RepositoryError if the file can't be written.
    """
    began = time.monotonic()
    batches = (min_batch, opt_batch, max_batch)
    if not 1 <= min_batch <= opt_batch <= max_batch <= _LARGEST_BATCH:
        raise OptionInvalid(f"The batches are {batches}; they must not fall, and lie within 1 and {_LARGEST_BATCH}.")
    if hardware_compatibility not in HARDWARE_COMPATIBILITIES:
        known = ", ".join(HARDWARE_COMPATIBILITIES)
        raise OptionInvalid(f"Hardware compatibility is {hardware_compatibility!r}; there are: {known}.")
    library = _load_library(builder)
    gpu = None
    if builder == "tensorrt":
        if compute_capabilities:
            raise OptionInvalid("tensorrt builds for the GPU it runs on; only tensorrt-rtx takes compute capabilities.")
        gpu = _require_gpu(hardware_compatibility)
    else:
        _check_rtx_options(version_compatible, hardware_compatibility, compute_capabilities, timing_cache)

    messages = _make_logger(library)
    native = _start(library, builder, messages)
    # TensorRT 11 and TensorRT-RTX know nothing but strong typing, and say that the flag is deprecated.
    needs_flag = builder == "tensorrt" and _numbers(library.__version__)[0] == 10
    flags = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if needs_flag else 0
    network = native.create_network(flags)
    parser = library.OnnxParser(network, messages)  # owns the weights: it has to outlive the build
    _parse(parser, network, library, graph)
    config = _configure(native, library, precision, batches, workspace_bytes)
    if version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if hardware_compatibility != "none":
        level = getattr(library.HardwareCompatibilityLevel, _LEVELS[hardware_compatibility])
        config.hardware_compatibility_level = level
    targets = (gpu.compute_capability,) if gpu else tuple(compute_capabilities) or RTX_COMPUTE_CAPABILITIES
    if compute_capabilities:
        _set_targets(config, library, compute_capabilities)
    cache_path = None
    if timing_cache is not None and gpu is not None:
        cache_path = timing_cache / timing_cache_name(gpu, library.__version__)
        cache = _attach_timing_cache(config, cache_path)  # noqa: F841 - has to outlive the build
    with Bars(progress) as report:
        serialised = run_build(native, network, config, make_monitor(library, report))
    if serialised is None:
        reason = _first(messages.errors, "it gives no reason")
        raise BuildFailed(f"{builder} {library.__version__} can't build `{graph}`: {reason}")

    name = plan_name(
        builder=builder,
        version=library.__version__,
        compute_capabilities=targets,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
    )
    path = folder / name
    _write(path, memoryview(serialised))
    if cache_path is not None:
        _keep_timing_cache(config, cache_path)
    return Plan(
        path=path,
        precision=precision,
        builder=builder,
        version=library.__version__,
        compute_capabilities=targets,
        gpu=gpu.name if gpu else None,
        driver_version=gpu.driver_version if gpu else None,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch,
        size_bytes=path.stat().st_size,
        duration_s=time.monotonic() - began,
    )


def plan_name(
    *,
    builder: BuilderName,
    version: str,
    compute_capabilities: Sequence[str],
    version_compatible: bool = False,
    hardware_compatibility: HardwareCompatibility = "none",
) -> str:
    """The file's name, which the server reads to refuse a plan on the wrong machine before Triton starts.

    `model.sm90.trt11.4.0.plan` is for compute capability 9.0 and TensorRT 11.4.0. `sm80-or-later` is hardware
    compatible from 8.0 on, `sm90-all` with every GPU of 9.0, and `trt11.4.0-or-later` is version compatible. Engines of
    TensorRT-RTX, `model.sm86-sm89.rtx1.7.1.engine`, have another suffix: Triton's TensorRT backend can't load them.
    """
    release = ".".join(version.split(".")[:3])
    machines = "-".join(f"sm{capability.replace('.', '')}" for capability in compute_capabilities)
    if builder == "tensorrt-rtx":
        return f"model.{machines}.rtx{release}.engine"
    machines = {"none": machines, "ampere+": "sm80-or-later", "same-cc": f"{machines}-all"}[hardware_compatibility]
    return f"model.{machines}.trt{release}{'-or-later' if version_compatible else ''}.plan"


def timing_cache_folder() -> Path:
    """Where a user's timing caches lie: $XDG_CACHE_HOME/sketchbridge/timing, or below ~/.cache.

    It reads the environment, so call it where a command begins.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sketchbridge" / "timing"


def timing_cache_name(gpu: Gpu, version: str) -> str:
    """What was measured holds for one compute capability, TensorRT version and driver."""
    capability = gpu.compute_capability.replace(".", "")
    return f"sm{capability}.trt{version}.driver{gpu.driver_version}.timing"


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's driver lists; () if there are none, or no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=compute_cap,driver_version,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as exc:
        logger.info("nvidia-smi finds no GPU: %s", exc)
        return ()
    rows = [re.fullmatch(r"(\d+\.\d+), ([\d.]+), (.+)", line.strip()) for line in answer.stdout.splitlines()]
    return tuple(Gpu(name=row[3], compute_capability=row[1], driver_version=row[2]) for row in rows if row)


def paint_with_plan(path: Path, *, builder: BuilderName, version_compatible: bool = False) -> Paint | None:
    """A painter that runs a plan on this machine's GPU; None where PyTorch, which holds the pictures there, has none.

    version_compatible: allow the host code that such a plan carries.
    Raises BuildFailed if the library is not there or does not load the plan, as the painter does if it doesn't run.
    """
    if not torch.cuda.is_available():
        return None
    library = _load_library(builder)
    messages = _make_logger(library)
    runtime = library.Runtime(messages)
    if version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BuildFailed(f"{builder} does not load `{path}`: {_first(messages.errors, 'it gives no reason')}")
    context = engine.create_execution_context()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def paint(batch: Pictures) -> np.ndarray[Any, Any]:
        if not context.set_input_shape(INPUT_NAME, batch.shape):
            raise BuildFailed(f"`{path}` does not take {len(batch)} pictures at once.")
        with torch.cuda.stream(stream):
            sketch = torch.from_numpy(batch).cuda()
            photo = torch.empty_like(sketch)
            context.set_tensor_address(INPUT_NAME, sketch.data_ptr())
            context.set_tensor_address(OUTPUT_NAME, photo.data_ptr())
            if not context.execute_async_v3(stream.cuda_stream):
                raise BuildFailed(f"`{path}` does not run: {_first(messages.errors, 'it gives no reason')}")
            result: np.ndarray[Any, Any] = photo.cpu().numpy()
        return result

    return paint


_PICTURE = (INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3)


def _load_library(builder: BuilderName) -> Any:
    try:
        return importlib.import_module(_MODULES[builder])
    except ModuleNotFoundError as exc:
        advice = " It needs an NVIDIA GPU; tensorrt-rtx builds without one." if builder == "tensorrt" else ""
        raise BuildFailed(f"{builder} is not installed: `pip install 'sketchbridge[{builder}]'`.{advice}") from exc
    except (ImportError, OSError, RuntimeError) as exc:
        raise BuildFailed(f"{builder} is installed but can't be loaded: {exc}") from exc


def _require_gpu(hardware_compatibility: HardwareCompatibility) -> Gpu:
    gpus = find_gpus()
    if not gpus:
        raise BuildFailed(
            "tensorrt builds a plan on the kind of GPU that will serve it, and nvidia-smi shows none here. Export on a "
            "machine with an NVIDIA GPU, or choose the builder tensorrt-rtx, which needs none."
        )
    capabilities = sorted({gpu.compute_capability for gpu in gpus}, key=_numbers)
    if len(capabilities) > 1:
        raise BuildFailed(
            f"This machine has GPUs of compute capability {' and '.join(capabilities)}, so a plan's name could not say "
            "which it is for. Build where there is one kind, as in a container that is given one GPU."
        )
    oldest = _OLDEST[hardware_compatibility]
    if _numbers(capabilities[0]) < oldest:
        raise OptionInvalid(
            f"Hardware compatibility {hardware_compatibility!r} begins with compute capability "
            f"{'.'.join(map(str, oldest))}; the {gpus[0].name} has {capabilities[0]}."
        )
    return gpus[0]


def _check_rtx_options(
    version_compatible: bool,  # noqa: FBT001 - passed on as they came
    hardware_compatibility: HardwareCompatibility,
    compute_capabilities: Sequence[str],
    timing_cache: Path | None,
) -> None:
    if version_compatible:
        raise OptionInvalid("An engine of tensorrt-rtx runs on the version that built it only; leave that option out.")
    if hardware_compatibility != "none":
        raise OptionInvalid("tensorrt-rtx has no levels of compatibility; name compute capabilities instead.")
    if timing_cache is not None:
        raise OptionInvalid(
            "tensorrt-rtx times nothing when it builds, so there is no timing cache; it compiles where the engine is "
            "loaded, and keeps that in a runtime cache of its own."
        )
    for capability in compute_capabilities:
        if capability not in _RTX_KNOWN:
            raise OptionInvalid(
                f"tensorrt-rtx does not build for compute capability {capability!r}, only for {', '.join(_RTX_KNOWN)}."
            )


def _start(library: Any, builder: BuilderName, messages: Any) -> Any:
    try:
        return library.Builder(messages)
    except TypeError as exc:  # what the bindings make of a builder that is null
        raise BuildFailed(f"{builder} can't start: {_first(messages.errors, str(exc))}") from exc


def _configure(
    native: Any, library: Any, precision: Precision, batches: tuple[int, int, int], workspace_bytes: int | None
) -> Any:
    config = native.create_builder_config()
    profile = native.create_optimization_profile()
    profile.set_shape(INPUT_NAME, *((batch, *_PICTURE) for batch in batches))
    config.add_optimization_profile(profile)
    if precision == "fp32":
        config.clear_flag(library.BuilderFlag.TF32)  # 10 bits of a value would not hold FP32's tolerance
    if workspace_bytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    return config


def _set_targets(config: Any, library: Any, compute_capabilities: Sequence[str]) -> None:
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        config.set_compute_capability(getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}"), index)


def _parse(parser: Any, network: Any, library: Any, graph: Path) -> None:
    """Raises BuildFailed with the nodes that the library does not take."""
    try:
        model = onnx.load(graph)
    except Exception as exc:  # protobuf has its own, and a missing file is an OSError
        raise BuildFailed(f"`{graph}` can't be read: {exc}") from exc
    _cast_at_borders(model.graph)
    if not parser.parse(model.SerializeToString()):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        nodes = ", ".join(dict.fromkeys(f"`{error.node_name()}` ({error.node_operator()})" for error in found))
        lines = [line.strip() for error in found for line in (error.code().name, *error.desc().splitlines())]
        # That there is no GPU is no reason here; a bare "false" is a condition that the parser had.
        reasons = dict.fromkeys(line for line in lines if "Cuda Runtime" not in line and line not in ("", "false"))
        raise BuildFailed(f"TensorRT does not take {nodes or 'the graph'} of `{graph}`: {'; '.join(reasons)[:500]}")
    ends = [network.get_input(index) for index in range(network.num_inputs)]
    ends += [network.get_output(index) for index in range(network.num_outputs)]
    expected = [(name, library.DataType.UINT8, (-1, *_PICTURE)) for name in (INPUT_NAME, OUTPUT_NAME)]
    if [(end.name, end.dtype, tuple(end.shape)) for end in ends] != expected:
        shown = ", ".join(f"`{end.name}` {end.dtype} {tuple(end.shape)}" for end in ends)
        raise BuildFailed(
            f"`{graph}` has {shown}; expected `{INPUT_NAME}` and `{OUTPUT_NAME}`, (batch, {INTERFACE_SIDE_PX}, "
            f"{INTERFACE_SIDE_PX}, 3) uint8."
        )


def _cast_at_borders(graph: onnx.GraphProto) -> None:
    """Move the casts from and to uint8 to the very ends: nothing else in TensorRT takes that type, a Transpose neither.

    Transposing is exact in any type, so the values stay the same.
    """
    nodes = list(graph.node)
    for node in list(nodes):
        if node.op_type not in ("Cast", "Transpose"):
            continue
        after = [other for other in nodes if node.output[0] in other.input]
        if (
            node.op_type == "Transpose"
            and node.input[0] == INPUT_NAME
            and [other.op_type for other in after] == ["Cast"]
        ):
            _swap(nodes, node, after[0])
        elif node.op_type == "Cast" and [other.op_type for other in after] == ["Transpose"]:
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            if to == TensorProto.UINT8 and after[0].output[0] == OUTPUT_NAME:
                _swap(nodes, node, after[0])
    replace_nodes(graph, nodes)
    del graph.value_info[:]  # the types in between are others now


def _swap(nodes: list[onnx.NodeProto], first: onnx.NodeProto, second: onnx.NodeProto) -> None:
    """Let `second` run on what `first` got, and `first` on what `second` makes. Each has one input and one output."""
    source, between, result = first.input[0], first.output[0], second.output[0]
    second.input[0], second.output[0] = source, between
    first.input[0], first.output[0] = between, result
    here, there = nodes.index(first), nodes.index(second)
    nodes[here], nodes[there] = second, first


def _make_logger(library: Any) -> Any:
    severities = library.ILogger.Severity

    class Messages(library.ILogger):  # type: ignore[misc]  # found at run time
        """Keeps errors for the exception's message. The library calls some errors that do no harm, so none is shown."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (severities.ERROR, severities.INTERNAL_ERROR):
                self.errors.append(msg)
            level = logging.DEBUG if severity in (severities.INFO, severities.VERBOSE) else logging.INFO
            logger.log(level, "%s", msg)

    return Messages()


def _attach_timing_cache(config: Any, path: Path) -> Any:
    """A cache of what `path` holds, or an empty one if that is missing, damaged or of another machine."""
    stored = b""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= _LARGEST_TIMING_CACHE_BYTES:
            stored = path.read_bytes()
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logger.info("the timing cache `%s` is not used: the library does not take it", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _keep_timing_cache(config: Any, path: Path) -> None:
    """It only saves time, so that it can't be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, memoryview(config.get_timing_cache().serialize()))
    except (OSError, RepositoryError) as exc:
        logger.warning("the timing cache was not kept: %s", exc)


def _write(path: Path, content: memoryview) -> None:
    """Beside its place first, then renamed, so that nobody sees half of it."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(0o644)  # as other files of a version; mkstemp makes it the owner's alone
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _first(errors: Sequence[str], otherwise: str) -> str:
    return " ".join((errors[0] if errors else otherwise).split())[:500]
