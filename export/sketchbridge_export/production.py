"""Makes each kind of artefact and has it certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sketchbridge_export.artefacts import onnx
from sketchbridge_export.certificate import Certificate, certify
from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.parity import Paint, Pictures, Precision, paint_with_onnx


@dataclass(frozen=True)
class Order:
    """What artefacts are made from and held to.

    folder: where their files go. write_onnx: writes the network as ONNX, the source of all other kinds. pictures: to
    compare on, and expected: what the checkpoint paints of them, each alone. evidence: the folder for the picture of a
    failure. progress: called with a line a step.
    """

    name: str
    folder: Path
    write_onnx: Callable[[Path], None]
    pictures: Pictures = field(repr=False)
    expected: Pictures = field(repr=False)
    weights: onnx.Weights
    min_ssim: float | None
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

    Raises OptionInvalid for a kind that does not exist, ParityFailed if one does not paint what the checkpoint does.
    """
    check_kinds(kinds)
    return tuple(make(order) for kind, make in _MAKERS.items() if kind == onnx.KIND or kind in kinds)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise OptionInvalid for a kind that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise OptionInvalid(f"There is no artefact {kind!r}; there are: {', '.join(KINDS)}.")


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
    order.write_onnx(order.onnx_path)
    paint = paint_with_onnx(order.onnx_path)
    precision: Precision = "fp32" if order.weights == "fp32" else "fp16-weights"
    certificate = _certify(order, onnx.KIND, paint, precision, f"ONNX Runtime {version('onnxruntime')} CPU")
    return Artefact(onnx.KIND, (order.onnx_path,), (certificate,), {"weights": order.weights, "opset": onnx.OPSET})


def painter_of(kind: str, folder: Path, precision: Precision) -> Paint | None:  # noqa: ARG001 - kinds differ
    """A painter that runs an artefact in `folder`; None if this machine can't. Raises ParityFailed if it is broken."""
    return paint_with_onnx(folder / onnx.FILE_NAME) if kind == onnx.KIND else None


_MAKERS: dict[str, Callable[[Order], Artefact]] = {onnx.KIND: _make_onnx}
KINDS = tuple(_MAKERS)
