"""A generator as `model.xml` and `model.bin`, OpenVINO's own format, for CPUs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sketchbridge_export.errors import OptionInvalid, ParityFailed, RepositoryError
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME
from sketchbridge_export.parity import Paint, Pictures
from sketchbridge_export.quiet_openvino import openvino
from sketchbridge_preprocess import INTERFACE_SIDE_PX

KIND = "openvino"
FILE_NAMES = ("model.xml", "model.bin")
INT8_FILE_NAMES = ("model_int8.xml", "model_int8.bin")
DEVICE = "CPU"
LARGEST_BATCH = 8  # what the server asks for at most; transposed convolutions are slow where the batch has no bound

Computing = Literal["fp32", "bf16", "fp16", "int8"]

# OpenVINO's own default is bf16 where the processor has it, so it is always told. What INT8 leaves in float is float32.
_HINTS: dict[Computing, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_CAPABILITIES: dict[Computing, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}


def write_openvino(onnx_path: Path, folder: Path) -> tuple[Path, ...]:
    """Write `model.xml` and `model.bin` into `folder` from the ONNX file that `write_onnx` wrote.

    Weights keep the precision they are stored in: float16 ones are half as large here too. The same file gives the
    same bytes. Raises ParityFailed if OpenVINO cannot read it, RepositoryError if the files can't be written.
    """
    return save_graph(read_graph(onnx_path), folder, FILE_NAMES)


def paint_with_openvino(xml: Path, *, precision: Computing) -> Paint:
    """A painter that runs `xml` (an IR, or an ONNX file) on the CPU, in batches of up to 8.

    precision: what it computes in; "int8" is for a file that quantise_openvino wrote. Raises OptionInvalid if this
    processor cannot compute in it, ParityFailed if the file can't be loaded, or if its names, types or shapes are not
    the interface's.
    """
    if not computes_in(precision):
        raise OptionInvalid(f"This processor does not compute in {precision}, so what that paints can't be compared.")
    graph = read_graph(xml)
    problems = _signature_problems(graph)
    if problems:
        raise ParityFailed(f"The artefact has another signature than the contract: {'; '.join(problems)}.")
    return painter(graph, precision)


def computes_in(precision: Computing) -> bool:
    """Whether this processor does; OpenVINO would fall back to float32 without a word."""
    return _CAPABILITIES[precision] in openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def describe_runtime() -> str:
    """What paints, for the certificate."""
    processor = openvino.Core().get_property(DEVICE, "FULL_DEVICE_NAME").strip()
    return f"OpenVINO {openvino.__version__.partition('-')[0]} CPU ({processor})"


def read_graph(path: Path) -> openvino.Model:
    """Read an IR or an ONNX file. Raises ParityFailed if OpenVINO cannot."""
    try:
        graph = openvino.Core().read_model(path)
    except RuntimeError as exc:
        raise ParityFailed(f"OpenVINO {openvino.__version__} can't read `{path}`: {exc}") from exc
    _number_nodes(graph)
    return graph


def save_graph(graph: openvino.Model, folder: Path, names: tuple[str, str]) -> tuple[Path, Path]:
    """Write a graph as the two files of an IR. Raises RepositoryError if they can't be written."""
    xml, weights = (folder / name for name in names)
    for key in list(graph.get_rt_info()):
        del graph.rt_info[key]  # how it was made; the manifest says that
    _number_nodes(graph)
    try:
        openvino.save_model(graph, xml, compress_to_fp16=False)
    except RuntimeError as exc:
        raise RepositoryError(f"`{xml}` can't be written: {exc}") from exc
    return xml, weights


def painter(graph: openvino.Model, precision: Computing) -> Paint:
    """Compile a graph with the interface's signature; the graph itself is left as it is."""
    bounded = graph.clone()
    bounded.reshape(openvino.PartialShape([openvino.Dimension(1, LARGEST_BATCH), *[INTERFACE_SIDE_PX] * 2, 3]))
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    request = openvino.Core().compile_model(bounded, DEVICE, properties).create_infer_request()

    def paint(batch: Pictures) -> NDArray[Any]:
        return np.asarray(request.infer({INPUT_NAME: batch})[OUTPUT_NAME])

    return paint


def _number_nodes(graph: openvino.Model) -> None:
    """Number nodes without a name by their place: OpenVINO counts over all graphs that the process has ever read."""
    for number, node in enumerate(graph.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{number}")


def _signature_problems(graph: openvino.Model) -> list[str]:
    expected = f"[?,{INTERFACE_SIDE_PX},{INTERFACE_SIDE_PX},3]"
    problems = []
    for side, ports, name in (("input", graph.inputs, INPUT_NAME), ("output", graph.outputs, OUTPUT_NAME)):
        found = [(port.any_name, port.element_type.get_type_name(), str(port.partial_shape)) for port in ports]
        if found != [(name, "u8", expected)]:
            problems.append(f"{side}s are {found}, expected `{name}` u8 {expected}")
    return problems
