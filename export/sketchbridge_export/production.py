"""Makes each kind of artefact and has it certified. What a kind is made of is said in its own file in artefacts/."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import ModelProto, load_model, save_model

from sketchbridge_export.artefacts import int8, int8_qdq, onnx, openvino, tensorrt
from sketchbridge_export.calibration import calibration_pictures
from sketchbridge_export.certificate import Certificate, certify, tolerance_for
from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.parity import Paint, Pictures, Precision, measure, out_of_tolerance, paint_with_onnx
from sketchbridge_export.parity_pictures import picture_files

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
    return tuple(known.make(order) for kind, known in _KINDS.items() if kind == onnx.KIND or kind in kinds)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise OptionInvalid for a kind that does not exist, and for two that would be one file."""
    for kind in kinds:
        if kind not in KINDS:
            raise OptionInvalid(f"There is no artefact {kind!r}; there are: {', '.join(KINDS)}.")
    for builder in tensorrt.BUILDERS:
        both = [kind for kind in (builder, f"{builder}-int8") if kind in kinds]
        if len(both) == 2:
            raise OptionInvalid(f"{' and '.join(both)} are one file in two precisions. Choose one.")


def check_options(
    kinds: Collection[str], *, calibration: Path | None, min_ssim: float | None, plan_options: PlanOptions
) -> None:
    """Raise OptionInvalid for what is out of range, and for what is asked of artefacts that `kinds` does not make.

    Raises BuildFailed for plans that can't be built here. So that it is known before the long work, and nothing that
    was asked for is silently left out.
    """
    if min_ssim is not None and not 0 < min_ssim <= 1:
        raise OptionInvalid(f"The SSIM that INT8 must reach is {min_ssim}; it must be above 0 and at most 1.")
    if not any(_KINDS[kind].held_to == ("int8",) for kind in kinds):
        for option, given in (("Calibration pictures are", calibration), ("The SSIM to reach is", min_ssim)):
            if given is not None:
                raise OptionInvalid(f"{option} for INT8, and no INT8 artefact is made. Add one, such as openvino-int8.")
    if calibration is not None:
        picture_files(calibration)
    if plan_options.hardware_compatibility != "none" or plan_options.version_compatible:
        if not {"tensorrt", "tensorrt-int8"} & set(kinds):
            raise OptionInvalid("Compatibility is for TensorRT plans, and none is made. Add tensorrt or tensorrt-int8.")
        if {"tensorrt-rtx", "tensorrt-rtx-int8"} & set(kinds):
            raise OptionInvalid("An engine of tensorrt-rtx knows no compatibility. Export it without that option.")
    for builder in tensorrt.BUILDERS:
        if {builder, f"{builder}-int8"} & set(kinds):
            tensorrt.check_builder(builder, hardware_compatibility=plan_options.hardware_compatibility)
    if f"{openvino.KIND}-bf16" in kinds and not openvino.computes_in("bf16"):
        raise OptionInvalid("This processor does not compute in bf16, so what openvino-bf16 paints can't be compared.")


def recorded_problem(kind: str, files: Collection[str], precisions: Collection[str]) -> str | None:
    """What an artefact that `make_artefacts` made would not have, in words; None if there is nothing.

    files: names in the version's folder. precisions: of its certificates.
    """
    if kind not in _KINDS:
        return f"there is no artefact {kind!r}"
    known = _KINDS[kind]
    if (known.files and set(files) != set(known.files)) or len(files) != max(len(known.files), 1):
        return f"{kind} has the files {sorted(files)}; expected {', '.join(known.files) or 'one plan'}"
    if not precisions or not set(precisions) <= set(known.held_to):
        return f"{kind} has certificates of {sorted(precisions)}; expected {' or '.join(known.held_to)}"
    return None


def painter_of(kind: str, files: Sequence[Path], precision: Precision) -> Paint | None:
    """A painter that runs an artefact's files; None if this machine can't.

    precision: of the certificate that it is to be held against. Raises ParityFailed if the artefact is broken, and
    BuildFailed if it is a plan that is not for this machine's GPU or TensorRT.
    """
    if kind == onnx.KIND:
        return paint_with_onnx(files[0])
    if kind.startswith(openvino.KIND):
        computing = _computing(precision)
        if not openvino.computes_in(computing):
            return None
        graph = next(path for path in files if path.suffix == ".xml")
        return openvino.paint_with_openvino(graph, precision=computing)
    builder: tensorrt.BuilderName = "tensorrt-rtx" if kind.startswith("tensorrt-rtx") else "tensorrt"
    return tensorrt.paint_with_plan(files[0], builder=builder, version_compatible=True)


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
    order.progress(f"{kind}: largest difference {worst} of 255 levels, SSIM {similarity:.4f} or more")
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
    _save(model, graph)
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
        _save(model, graph)
        found = measure(order.expected, paint_with_onnx(graph), order.pictures, batch_sizes=(1,))
        order.progress(f"with {len(kept)} convolutions in float16: SSIM {found.batches[0].ssim:.4f}")
        if not out_of_tolerance(found.batches, tolerance):
            break
        names = names or int8_qdq.convolution_names(load_model(order.onnx_path))
        if len(names) <= count + 1:
            break
    return model, kept


def _save(model: ModelProto, path: Path) -> None:
    try:
        save_model(model, path)
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc


def _stored(order: Order) -> Precision:
    return "fp32" if order.weights == "fp32" else "fp16-weights"


def _computing(precision: Precision) -> openvino.Computing:
    return precision if precision in ("bf16", "fp16", "int8") else "fp32"


def _onnx_runtime() -> str:
    return f"ONNX Runtime {version('onnxruntime')} CPU"


@dataclass(frozen=True)
class _Kind:
    """held_to: the rows of TOLERANCES it can have certificates of. files: () is one plan, named by what it fits."""

    make: Callable[[Order], Artefact]
    held_to: tuple[Precision, ...]
    files: tuple[str, ...] = ()


_AS_STORED: tuple[Precision, ...] = ("fp32", "fp16-weights")
_KINDS: Mapping[str, _Kind] = {
    onnx.KIND: _Kind(_make_onnx, _AS_STORED, (onnx.FILE_NAME,)),
    openvino.KIND: _Kind(
        partial(_make_openvino, kind=openvino.KIND, precision="fp32"), _AS_STORED, openvino.FILE_NAMES
    ),
    f"{openvino.KIND}-bf16": _Kind(
        partial(_make_openvino, kind=f"{openvino.KIND}-bf16", precision="bf16"), ("bf16",), openvino.FILE_NAMES
    ),
    f"{openvino.KIND}-int8": _Kind(_make_openvino_int8, ("int8",), openvino.INT8_FILE_NAMES),
    "tensorrt": _Kind(partial(_make_plan, builder="tensorrt", precision="fp16"), ("fp16",)),
    "tensorrt-int8": _Kind(partial(_make_plan, builder="tensorrt", precision="int8"), ("int8",)),
    "tensorrt-rtx": _Kind(partial(_make_plan, builder="tensorrt-rtx", precision="fp16"), ("fp16",)),
    "tensorrt-rtx-int8": _Kind(partial(_make_plan, builder="tensorrt-rtx", precision="int8"), ("int8",)),
}
KINDS = tuple(_KINDS)
