"""Makes each kind of artefact and has it certified. What a kind is made of is said in its own file in artefacts/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import ModelProto, load_model, save_model

from sketchbridge_export.artefacts import int8, int8_qdq, onnx, openvino, tensorrt
from sketchbridge_export.calibration import calibration_pictures
from sketchbridge_export.certificate import Certificate, certify, tolerance_for
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.parity import Paint, Pictures, Precision, measure, out_of_tolerance, paint_with_onnx

# How many convolutions are left in float16, the first ones, until INT8 for TensorRT holds its certificate.
_KEPT = (0, 1, 2, 4, 8)


@dataclass(frozen=True)
class PlanOptions:
    """How TensorRT plans are built; see `build_plan`. timing_cache: a folder; None keeps none."""

    hardware_compatibility: tensorrt.HardwareCompatibility = "none"
    version_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Order:
    """What artefacts are made from and held to.

    folder: where their files go; its parent is for what is needed on the way. write_onnx: writes the network as ONNX,
    which all other kinds are made from. pictures: to compare on, and expected: what the checkpoint paints of them, each
    alone. calibration: a folder of pictures to quantise with, None for the shipped drawings. evidence: the folder for
    the picture of a failure. progress: called with a line a step.
    """

    name: str
    folder: Path
    write_onnx: Callable[[Path, onnx.Weights], None]
    pictures: Pictures = field(repr=False)
    expected: Pictures = field(repr=False)
    weights: onnx.Weights
    calibration: Path | None
    min_ssim: float | None
    plan_options: PlanOptions
    evidence: Path
    progress: Callable[[str], None]

    @property
    def onnx_path(self) -> Path:
        """The file that every other kind is made from."""
        return self.folder / onnx.FILE_NAME


@dataclass(frozen=True)
class Artefact:
    """An artefact that holds its certificates. files: in the version's folder. details: more for the manifest."""

    kind: str
    files: tuple[Path, ...]
    certificates: tuple[Certificate, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


def make_artefacts(order: Order, kinds: Sequence[str]) -> tuple[Artefact, ...]:
    """Make and certify the ONNX file and then each of `kinds`, in the order of KINDS.

    Raises OptionInvalid as `check_kinds` does, ParityFailed if one does not paint what the checkpoint does, and
    BuildFailed if a plan can't be built here.
    """
    check_kinds(kinds)
    return tuple(make(order) for kind, make in _MAKERS.items() if kind == onnx.KIND or kind in kinds)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise OptionInvalid for a kind that does not exist, and for two that would be one file."""
    for kind in kinds:
        if kind not in KINDS:
            raise OptionInvalid(f"There is no artefact {kind!r}; there are: {', '.join(KINDS)}.")
    for builder in tensorrt.BUILDERS:
        both = [kind for kind in (builder, f"{builder}-int8") if kind in kinds]
        if len(both) == 2:
            raise OptionInvalid(f"{' and '.join(both)} are one file in two precisions. Choose one.")


def painter_of(kind: str, folder: Path, precision: Precision) -> Paint | None:
    """A painter that runs an artefact in `folder`; None if this machine can't. Raises ParityFailed if it is broken.

    precision: of the certificate that it is to be held against.
    """
    if kind == onnx.KIND:
        return paint_with_onnx(folder / onnx.FILE_NAME)
    if kind.startswith(openvino.KIND):
        computing = _computing(precision)
        files = openvino.INT8_FILE_NAMES if precision == "int8" else openvino.FILE_NAMES
        if not openvino.computes_in(computing):
            return None
        return openvino.paint_with_openvino(folder / files[0], precision=computing)
    builder: tensorrt.BuilderName = "tensorrt-rtx" if kind.startswith("tensorrt-rtx") else "tensorrt"
    pattern = "model.sm*.engine" if builder == "tensorrt-rtx" else "model.sm*.plan"
    paths = sorted(folder.glob(pattern))
    return tensorrt.paint_with_plan(paths[0], builder=builder, version_compatible=True) if paths else None


def _certify(order: Order, kind: str, paint: Paint, precision: Precision, measured_on: str) -> Certificate:
    order.progress(f"comparing {kind} with the checkpoint on {len(order.pictures)} pictures")
    certificate = certify(
        kind,
        expected=order.expected,
        paint=paint,
        pictures=order.pictures,
        precision=precision,
        min_ssim=order.min_ssim,
        measured_on=measured_on,
        evidence=order.evidence / f"{order.name}_{kind}_worst.png",
    )
    worst = max(batch.max_levels for batch in certificate.batches)
    similarity = min(batch.ssim for batch in certificate.batches)
    order.progress(f"{kind} differs by {worst} grey levels at most, SSIM {similarity:.4f} or more")
    return certificate


def _make_onnx(order: Order) -> Artefact:
    order.progress(f"exporting {onnx.FILE_NAME} with {order.weights} weights")
    order.write_onnx(order.onnx_path, order.weights)
    paint = paint_with_onnx(order.onnx_path)
    certificate = _certify(order, onnx.KIND, paint, _stored(order), _onnx_runtime())
    return Artefact(onnx.KIND, (order.onnx_path,), (certificate,), {"weights": order.weights, "opset": onnx.OPSET})


def _make_openvino(order: Order, *, kind: str, precision: Precision) -> Artefact:
    files = tuple(order.folder / name for name in openvino.FILE_NAMES)
    if not all(path.exists() for path in files):
        order.progress(f"writing {' and '.join(openvino.FILE_NAMES)}")
        openvino.write_openvino(order.onnx_path, order.folder)
    held_to = _stored(order) if precision == "fp32" else precision
    paint = openvino.paint_with_openvino(files[0], precision=_computing(precision))
    certificate = _certify(order, kind, paint, held_to, openvino.describe_runtime())
    return Artefact(kind, files, (certificate,), {"weights": order.weights, "computes_in": precision})


def _make_openvino_int8(order: Order) -> Artefact:
    kind = f"{openvino.KIND}-int8"
    min_ssim = tolerance_for("int8", order.min_ssim).min_ssim
    if min_ssim is None:
        raise AssertionError("the table asks a likeness of INT8")
    quantised = int8.quantise_openvino(
        order.onnx_path,
        order.folder,
        calibration=calibration_pictures(order.calibration),
        pictures=order.pictures,
        expected=order.expected,
        min_ssim=min_ssim,
        progress=order.progress,
    )
    paint = openvino.paint_with_openvino(quantised.files[0], precision="int8")
    certificate = _certify(order, kind, paint, "int8", openvino.describe_runtime())
    return Artefact(kind, quantised.files, (certificate,), quantised.as_json())


def _make_plan(order: Order, *, builder: tensorrt.BuilderName, precision: tensorrt.Precision) -> Artefact:
    """The graph with its types is certified on ONNX Runtime, and the plan itself where there is a GPU to run it."""
    kind = builder if precision == "fp16" else f"{builder}-{precision}"
    graph = order.folder.parent / f"{kind}.onnx"
    model, kept = _typed_graph(order, graph, precision)
    save_model(model, graph)
    certificates = [_certify(order, kind, paint_with_onnx(graph), precision, f"{_onnx_runtime()}, the typed graph")]
    order.progress(f"building a plan with {builder}")
    options = order.plan_options
    plan = tensorrt.build_plan(
        graph,
        order.folder,
        precision=precision,
        builder=builder,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        timing_cache=options.timing_cache if builder == "tensorrt" else None,
    )
    paint = tensorrt.paint_with_plan(plan.path, builder=builder, version_compatible=plan.version_compatible)
    if paint is None:
        order.progress(f"no GPU here runs `{plan.path.name}`: only the graph it was built from was compared")
    else:
        certificates.append(_certify(order, kind, paint, precision, f"{builder} {plan.version} on {plan.gpu}"))
    details = {key: value for key, value in plan.as_json().items() if key not in ("path", "size_bytes")}
    return Artefact(kind, (plan.path,), tuple(certificates), details | {"float_layers": list(kept)})


def _typed_graph(order: Order, graph: Path, precision: tensorrt.Precision) -> tuple[ModelProto, Sequence[str]]:
    """The graph of `precision`; in INT8 with as many of the first convolutions in float16 as its certificate needs."""
    order.progress(f"giving the graph the types of {precision}")
    if precision != "int8":
        return tensorrt.typed_graph(order.onnx_path, precision=precision), ()
    calibration = calibration_pictures(order.calibration)
    tolerance = tolerance_for("int8", order.min_ssim)
    names: Sequence[str] = ()
    for count in _KEPT:
        kept = names[:count]
        model = tensorrt.typed_graph(order.onnx_path, precision=precision, calibration=calibration, keep=kept)
        save_model(model, graph)
        found = measure(order.expected, paint_with_onnx(graph), order.pictures, batch_sizes=(1,))
        order.progress(f"with {len(kept)} convolutions in float16: SSIM {found.batches[0].ssim:.4f}")
        if not out_of_tolerance(found.batches, tolerance):
            break
        names = names or int8_qdq.convolution_names(load_model(order.onnx_path))
        if len(names) <= count + 1:
            break
    return model, kept


def _stored(order: Order) -> Precision:
    return "fp32" if order.weights == "fp32" else "fp16-weights"


def _computing(precision: Precision) -> openvino.Computing:
    return precision if precision in ("bf16", "fp16", "int8") else "fp32"


def _onnx_runtime() -> str:
    return f"ONNX Runtime {version('onnxruntime')} CPU"


_MAKERS: dict[str, Callable[[Order], Artefact]] = {
    onnx.KIND: _make_onnx,
    openvino.KIND: partial(_make_openvino, kind=openvino.KIND, precision="fp32"),
    f"{openvino.KIND}-bf16": partial(_make_openvino, kind=f"{openvino.KIND}-bf16", precision="bf16"),
    f"{openvino.KIND}-int8": _make_openvino_int8,
    "tensorrt": partial(_make_plan, builder="tensorrt", precision="fp16"),
    "tensorrt-int8": partial(_make_plan, builder="tensorrt", precision="int8"),
    "tensorrt-rtx": partial(_make_plan, builder="tensorrt-rtx", precision="fp16"),
    "tensorrt-rtx-int8": partial(_make_plan, builder="tensorrt-rtx", precision="int8"),
}
KINDS = tuple(_MAKERS)
