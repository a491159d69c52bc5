from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts import tensorrt
from sketchbridge_export.artefacts.compose import write_interface_onnx
from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.artefacts.plan_progress import Step
from sketchbridge_export.artefacts.tensorrt import (
    PRECISIONS,
    Gpu,
    Precision,
    build_plan,
    find_gpus,
    paint_with_plan,
    plan_name,
    timing_cache_folder,
    timing_cache_name,
    typed_graph,
)
from sketchbridge_export.errors import BuildFailed, OptionInvalid, RepositoryError
from sketchbridge_export.families import TANH_CONVENTION, Choices, Generator, Weights, find_family
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import paint_with_onnx, structural_similarity
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.sources import ReadyNetwork, open_source
from tests.export.conftest import Pix2PixUNet, randomise
from tests.export.mutations import onnx_network

PICTURES = shipped_pictures()
H100 = "9.0, 570.86.15, NVIDIA H100 80GB HBM3"


@pytest.fixture(scope="session")
def rtx() -> ModuleType:
    """The builder that needs no GPU."""
    library: ModuleType = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install 'sketchbridge[tensorrt-rtx]'"
    )
    return library


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """A small gray U-Net of another size, so that luma and resizing are part of it, in every precision."""
    folder = tmp_path_factory.mktemp("graphs")
    state = randomise(Pix2PixUNet(downs=7, ngf=4, channels=(1, 3))).state_dict()
    family = find_family(Weights(state))
    generator = family.rebuild(Weights(state), Choices(norm="instance"))
    write_onnx(GeneratorInterface(generator, family.convention).eval(), folder / "model.onnx", weights="fp16")
    paths = {}
    for precision in PRECISIONS:
        paths[precision] = folder / f"{precision}.onnx"
        typed = typed_graph(folder / "model.onnx", precision=precision, calibration=PICTURES[:2])
        onnx.save_model(typed, paths[precision])
    return paths


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One convolution: the least there is to build."""
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    network = Generator(nn.Conv2d(3, 3, 3, padding=1), 3, 3, 256, "none", {})
    write_onnx(GeneratorInterface(network, TANH_CONVENTION).eval(), path)
    return path


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a fake nvidia-smi with these lines on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(*rows: str, code: int = 0) -> None:
        program = folder / "nvidia-smi"
        lines = "\n".join(f"echo '{row}'" for row in rows)
        program.write_text(f"#!/bin/sh\n{lines}\nexit {code}\n")
        program.chmod(0o755)

    return install


# The real builder, on the CPU.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_is_built_without_a_gpu_and_named_by_what_it_fits(
    rtx: ModuleType, graphs: dict[Precision, Path], precision: Precision, tmp_path: Path, capfd: Any
) -> None:
    plan = build_plan(graphs[precision], tmp_path, precision=precision, builder="tensorrt-rtx", max_batch=5)
    assert plan.path == tmp_path / plan_name(
        builder="tensorrt-rtx", version=rtx.__version__, compute_capabilities=("8.0", "8.6", "8.9", "12.0")
    )
    assert list(tmp_path.iterdir()) == [plan.path]
    assert plan.path.stat().st_size == plan.size_bytes > 100_000
    assert plan.path.stat().st_mode & 0o777 == 0o644
    content = plan.path.read_bytes()
    assert all(name in content for name in (b"sketch", b"photo"))
    assert (plan.version, plan.gpu, plan.max_batch) == (rtx.__version__, None, 5)
    assert plan.as_json()["path"] == plan.path.name
    assert capfd.readouterr() == ("", ""), "the library's messages belong to logging"


def parsed(rtx: ModuleType, graph: Path) -> list[tuple[str, str]]:
    """(kind, type of the first output) of each layer that the library makes of the graph."""
    messages = tensorrt._make_logger(rtx)
    builder = rtx.Builder(messages)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, messages)
    tensorrt._parse(parser, network, rtx, graph)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return [(layer.type.name, layer.get_output(0).dtype.name) for layer in layers]


def test_the_networks_types_are_those_of_the_graph(rtx: ModuleType, graphs: dict[Precision, Path]) -> None:
    layers = {precision: parsed(rtx, path) for precision, path in graphs.items()}
    convolutions = {"CONVOLUTION", "DECONVOLUTION"}
    for precision, kind in (("fp32", "FLOAT"), ("fp16", "HALF"), ("int8", "HALF")):
        found = layers[precision]  # type: ignore[index]  # a string is as good
        assert {of for layer, of in found if layer in convolutions} == {kind}
        assert {of for layer, of in found if layer in ("NORMALIZATION", "RESIZE", "UNARY")} == {"FLOAT"}
        assert found[-1] == ("CAST", "UINT8")
    assert layers["int8"].count(("QUANTIZE", "INT8")) == 14, "one before each convolution"
    assert layers["int8"].count(("DEQUANTIZE", "HALF")) == 28, "and one for each one's weights"


@pytest.mark.parametrize(("batch", "channels"), [("batch", 1), (1, 3)])
def test_a_network_that_brings_its_own_graph_is_taken_at_any_size(
    batch: int | str, channels: int, rtx: ModuleType, tmp_path: Path
) -> None:
    onnx.save_model(onnx_network(batch=batch, side=64, channels=channels), tmp_path / "network")
    found = open_source(tmp_path / "network")
    assert isinstance(found, ReadyNetwork)
    write_interface_onnx(found, TANH_CONVENTION, tmp_path / "model.onnx")
    onnx.save_model(typed_graph(tmp_path / "model.onnx", precision="fp16"), tmp_path / "fp16.onnx")
    layers = parsed(rtx, tmp_path / "fp16.onnx")
    assert [of for layer, of in layers if layer == "CONVOLUTION"] == ["HALF"] * 2
    assert {of for layer, of in layers if layer == "RESIZE"} == {"FLOAT"}


def test_moving_the_casts_to_the_ends_changes_no_value(graphs: dict[Precision, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["fp32"])
    tensorrt._cast_at_borders(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [model.graph.node[0].op_type, model.graph.node[-1].op_type] == ["Cast", "Cast"]
    onnx.save_model(model, tmp_path / "model.onnx")
    moved, original = paint_with_onnx(tmp_path / "model.onnx"), paint_with_onnx(graphs["fp32"])
    assert (moved(PICTURES[:2]) == original(PICTURES[:2])).all()


def test_targets_and_workspace_are_taken(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    plan = build_plan(
        tiny,
        tmp_path,
        precision="fp32",
        builder="tensorrt-rtx",
        compute_capabilities=["8.6", "12.0"],
        workspace_bytes=2**28,
    )
    assert plan.path.name.startswith("model.sm86-sm120.rtx")
    assert plan.compute_capabilities == ("8.6", "12.0")


def test_steps_of_nested_phases_are_counted_to_their_end(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    build_plan(tiny, tmp_path, precision="fp32", builder="tensorrt-rtx", progress=steps.append)
    assert steps[0].parent is None
    phases = {step.phase for step in steps}
    assert {step.parent for step in steps} - {None} <= phases
    for phase in phases:
        assert [step for step in steps if step.phase == phase][-1].done == next(
            step.steps for step in reversed(steps) if step.phase == phase
        )


def test_bars_are_drawn_on_a_terminal_only(
    rtx: ModuleType, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", stream)
        build_plan(tiny, tmp_path, precision="fp32", builder="tensorrt-rtx")
        assert ("Building engine: 100%" in stream.getvalue()) is is_terminal


def test_the_librarys_messages_go_to_logging(
    rtx: ModuleType, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger=tensorrt.__name__):
        build_plan(tiny, tmp_path, precision="fp32", builder="tensorrt-rtx")
    assert any("Engine generation completed" in record.message for record in caplog.records)
    assert all(record.levelno <= logging.INFO for record in caplog.records)


def test_ctrl_c_stops_the_build_and_leaves_nothing_behind(
    rtx: ModuleType, graphs: dict[Precision, Path], tmp_path: Path
) -> None:
    seen: list[Step] = []

    def interrupt(step: Step) -> None:
        seen.append(step)
        if len(seen) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)  # the build would be over before a busy machine has passed the signal on

    with pytest.raises(KeyboardInterrupt):
        build_plan(graphs["fp32"], tmp_path, precision="fp32", builder="tensorrt-rtx", progress=interrupt)
    assert not list(tmp_path.iterdir())
    assert not [step for step in seen if step.parent is None and step.done == step.steps], "it ran to its end"


def test_a_fault_of_the_callers_callback_reaches_the_caller(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    def broken(step: Step) -> None:
        raise ZeroDivisionError(step.phase)

    with pytest.raises(ZeroDivisionError, match="Building engine"):
        build_plan(tiny, tmp_path, precision="fp32", builder="tensorrt-rtx", progress=broken)
    assert not list(tmp_path.iterdir())


def test_a_node_that_the_library_does_not_take_is_named(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    convolution.op_type = "Sketchify"
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(
        BuildFailed, match=rf"TensorRT does not take `{convolution.name}` \(Sketchify\) of `.*: INVALID_NODE; "
    ):
        build_plan(tmp_path / "model.onnx", tmp_path, precision="fp32", builder="tensorrt-rtx")


def test_a_graph_with_another_face_is_refused(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(
        BuildFailed,
        match=r"has `sketch` .*UINT8 \(1, 256, .*expected `sketch` and `photo`, \(batch, 256, 256, 3\) uint8",
    ):
        build_plan(tmp_path / "model.onnx", tmp_path, precision="fp32", builder="tensorrt-rtx")


def test_a_file_that_is_no_graph_is_refused(rtx: ModuleType, tmp_path: Path) -> None:
    for path, content in ((tmp_path / "none.onnx", None), (tmp_path / "torn.onnx", b"\x08\x0a\xff\xff")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BuildFailed, match=rf"`{path}` can't be read"):
            build_plan(path, tmp_path, precision="fp32", builder="tensorrt-rtx")


def test_a_folder_that_can_not_be_written_is_an_error_of_ours(rtx: ModuleType, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="can't be written: No such file"):
        build_plan(tiny, tmp_path / "missing", precision="fp32", builder="tensorrt-rtx")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version_compatible": True}, "runs on the version that built it only"),
        ({"hardware_compatibility": "ampere+"}, "has no levels of compatibility"),
        ({"timing_cache": Path("timing")}, "there is no timing cache; it compiles where the engine is loaded"),
        ({"compute_capabilities": ["9.0"]}, "does not build for compute capability '9.0', only for 7.5, 8.0"),
        ({"min_batch": 0}, r"The batches are \(0, 4, 8\)"),
        ({"opt_batch": 9}, r"The batches are \(1, 9, 8\)"),
        ({"max_batch": 2000}, "lie within 1 and 1024"),
        ({"hardware_compatibility": "all"}, "'all'; there are: none, ampere"),
    ],
)
def test_what_the_builder_can_not_do_is_refused(
    rtx: ModuleType, tiny: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionInvalid, match=reason):
        build_plan(tiny, tmp_path, precision="fp32", builder="tensorrt-rtx", **options)


def test_without_a_gpu_nothing_can_be_painted(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert paint_with_plan(tmp_path / "model.plan", builder="tensorrt") is None


def test_int8_needs_calibration_pictures(graphs: dict[Precision, Path]) -> None:
    with pytest.raises(OptionInvalid, match="INT8 needs calibration pictures"):
        typed_graph(graphs["fp32"], precision="int8")


# The full library's side: faults first, with TensorRT-RTX in its place where a library has to be there.


@pytest.mark.parametrize(("builder", "module"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_a_missing_library_names_the_extra(
    builder: Any, module: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BuildFailed, match=rf"not installed: `pip install 'sketchbridge\[{builder}\]'`"):
        build_plan(tiny, tmp_path, precision="fp32", builder=builder)


@pytest.fixture
def stand_in(rtx: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorRT-RTX under the name of the full library, whose interface it has."""
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    return rtx


def test_without_a_gpu_the_full_library_says_where_to_build(
    stand_in: ModuleType, nvidia_smi: Any, tiny: Path, tmp_path: Path
) -> None:
    for answer in (None, ["No devices were found"], []):
        if answer is not None:
            nvidia_smi(*answer, code=6)
        with pytest.raises(BuildFailed, match=r"nvidia-smi shows none here\. Export on a machine .* tensorrt-rtx"):
            build_plan(tiny, tmp_path, precision="fp32")


def test_gpus_of_two_kinds_are_refused(stand_in: ModuleType, nvidia_smi: Any, tiny: Path, tmp_path: Path) -> None:
    nvidia_smi("12.0, 580.1, NVIDIA RTX PRO 6000", H100)
    with pytest.raises(BuildFailed, match=r"compute capability 9\.0 and 12\.0"):
        build_plan(tiny, tmp_path, precision="fp32")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hardware_compatibility": "ampere+"}, r"begins with compute capability 8\.0; the Tesla P4 has 6\.1"),
        ({"hardware_compatibility": "same-cc"}, r"begins with compute capability 7\.5"),
        ({"compute_capabilities": ["6.1"]}, "builds for the GPU it runs on"),
    ],
)
def test_what_the_gpu_can_not_do_is_refused(
    stand_in: ModuleType, nvidia_smi: Any, tiny: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    nvidia_smi("6.1, 535.0, Tesla P4")
    with pytest.raises(OptionInvalid, match=reason):
        build_plan(tiny, tmp_path, precision="fp32", **options)


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")  # it has no real timing cache
def test_a_plan_and_its_timing_cache_are_named_by_the_gpu(
    stand_in: ModuleType, nvidia_smi: Any, tiny: Path, tmp_path: Path
) -> None:
    nvidia_smi(H100, H100)
    cache, folder = tmp_path / "cache" / "timing", tmp_path / "version"
    folder.mkdir()
    plan = build_plan(tiny, folder, precision="fp32", timing_cache=cache)
    release = ".".join(stand_in.__version__.split(".")[:3])
    assert plan.path.name == f"model.sm90.trt{release}.plan"
    assert (plan.gpu, plan.driver_version) == ("NVIDIA H100 80GB HBM3", "570.86.15")
    (kept,) = cache.iterdir()
    assert kept.name == f"sm90.trt{stand_in.__version__}.driver570.86.15.timing"
    for damage in (kept.read_bytes()[:9], b"", b"\xff" * 400):
        kept.write_bytes(damage)
        build_plan(tiny, folder, precision="fp32", timing_cache=cache)
        assert list(cache.iterdir()) == [kept]


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_that_can_not_be_kept_only_warns(
    stand_in: ModuleType, nvidia_smi: Any, tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nvidia_smi(H100)
    (tmp_path / "file").touch()
    build_plan(tiny, tmp_path, precision="fp32", timing_cache=tmp_path / "file" / "timing")
    assert "the timing cache was not kept" in caplog.text


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"compute_capabilities": ["9.0"]}, "model.sm90.trt11.4.0.plan"),
        ({"compute_capabilities": ["12.0"], "version_compatible": True}, "model.sm120.trt11.4.0-or-later.plan"),
        ({"compute_capabilities": ["8.6"], "hardware_compatibility": "ampere+"}, "model.sm80-or-later.trt11.4.0.plan"),
        ({"compute_capabilities": ["8.6"], "hardware_compatibility": "same-cc"}, "model.sm86-all.trt11.4.0.plan"),
    ],
)
def test_a_plans_name_says_what_it_fits(options: dict[str, Any], name: str) -> None:
    assert plan_name(builder="tensorrt", version="11.4.0.106", **options) == name


def test_timing_caches_lie_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert timing_cache_folder() == tmp_path / "sketchbridge" / "timing"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert timing_cache_folder() == Path.home() / ".cache" / "sketchbridge" / "timing"
    assert timing_cache_name(Gpu("a", "8.6", "1.2"), "10.9.0.34") == "sm86.trt10.9.0.34.driver1.2.timing"


# On a machine with a GPU.


@pytest.fixture
def full_library() -> ModuleType:
    if shutil.which("nvidia-smi") is None or not find_gpus():
        pytest.skip("needs an NVIDIA GPU: TensorRT times its kernels on it")
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA, to hold the pictures on the GPU")
    library: ModuleType = pytest.importorskip(
        "tensorrt", reason="needs the full TensorRT: pip install 'sketchbridge[tensorrt]'"
    )
    return library


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_plan_paints_what_the_onnx_graph_paints(
    full_library: ModuleType, graphs: dict[Precision, Path], precision: Precision, tmp_path: Path
) -> None:
    cache = tmp_path / "timing"
    plan = build_plan(graphs[precision], tmp_path, precision=precision, timing_cache=cache)
    assert [path.suffix for path in cache.iterdir()] == [".timing"]
    paint = paint_with_plan(plan.path, builder="tensorrt")
    assert paint is not None
    expected = paint_with_onnx(graphs["fp32"])(PICTURES)
    painted = np.concatenate([paint(PICTURES[:1]), paint(PICTURES[1:3]), paint(PICTURES[3:8]), paint(PICTURES[8:])])
    if precision == "fp32":
        assert np.abs(painted.astype(int) - expected.astype(int)).max() <= 1
    least = {"fp32": 0.999, "fp16": 0.995, "int8": 0.98}[precision]
    assert min(structural_similarity(a, b) for a, b in zip(painted, expected, strict=True)) >= least


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"version_compatible": True}, {"hardware_compatibility": "ampere+"}])
def test_a_compatible_plan_runs_where_it_was_built(
    full_library: ModuleType, graphs: dict[Precision, Path], options: dict[str, Any], tmp_path: Path
) -> None:
    plan = build_plan(graphs["fp16"], tmp_path, precision="fp16", **options)
    paint = paint_with_plan(plan.path, builder="tensorrt", version_compatible=plan.version_compatible)
    assert paint is not None
    expected = paint_with_onnx(graphs["fp16"])(PICTURES[:2])
    assert structural_similarity(paint(PICTURES[:2])[0], expected[0]) >= 0.995


@pytest.mark.gpu
def test_an_engine_of_tensorrt_rtx_paints_what_the_onnx_graph_paints(
    rtx: ModuleType, graphs: dict[Precision, Path], tmp_path: Path
) -> None:
    gpus = find_gpus()
    if not gpus or not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and PyTorch with CUDA")
    if gpus[0].compute_capability not in tensorrt.RTX_COMPUTE_CAPABILITIES:
        pytest.skip(f"tensorrt-rtx does not build for compute capability {gpus[0].compute_capability}")
    plan = build_plan(graphs["fp16"], tmp_path, precision="fp16", builder="tensorrt-rtx")
    paint = paint_with_plan(plan.path, builder="tensorrt-rtx")
    assert paint is not None
    expected = paint_with_onnx(graphs["fp16"])(PICTURES[:2])
    assert structural_similarity(paint(PICTURES[:2])[0], expected[0]) >= 0.995
