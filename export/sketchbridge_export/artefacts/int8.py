"""A generator with 8-bit convolutions: `model_int8.xml` and `model_int8.bin`, for CPUs with INT8 instructions.

NNCF's post-training quantisation looks at what flows through the network on calibration pictures. Convolutions become
8-bit; normalisations that a picture makes of itself, and the interface before and after the network, stay float32.
Where that costs more likeness than is allowed, the convolutions that cost most go back to float, as few as suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sketchbridge_export.artefacts.openvino import INT8_FILE_NAMES, painter, read_graph, save_graph
from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.parity import Pictures, structural_similarity
from sketchbridge_export.quiet_openvino import openvino, quiet_nncf

_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul")
# How many of the costliest layers are tried in float: one by one while it is cheap, then in strides.
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_RANKING_PICTURES = 8  # calibration pictures for one layer's rank, which need not be exact


@dataclass(frozen=True)
class Quantised:
    """What quantisation came to.

    files: the two files. layers: convolutions of the network; float_layers: those left in float, by their weights'
    names, costliest first. tries: networks quantised on the way. ssim: of the worst picture, alone, and psnr_db over
    all pictures, None if they are equal.
    """

    files: tuple[Path, ...]
    layers: int
    float_layers: tuple[str, ...]
    tries: int
    calibration_pictures: int
    ssim: float
    psnr_db: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for the manifest, without the files."""
        found = {key: value for key, value in asdict(self).items() if key != "files"}
        return found | {"float_layers": list(self.float_layers)}


@dataclass(frozen=True)
class _Attempt:
    graph: openvino.Model
    ssim: float
    psnr_db: float | None


def quantise_openvino(
    model: Path,
    folder: Path,
    *,
    calibration: Pictures,
    pictures: Pictures,
    expected: Pictures,
    min_ssim: float,
    progress: Callable[[str], None],
) -> Quantised:
    """Write `model_int8.xml` and `model_int8.bin` into `folder`, with as many 8-bit convolutions as `min_ssim` lets.

    model: the ONNX file that `write_onnx` wrote, or its IR. calibration: (P, 256, 256, 3) uint8, what callers will
    send. pictures: to score on, and expected: what the checkpoint paints of them, each alone. progress: called with a
    line a step.

    The same pictures and versions give the same network. If no try reaches `min_ssim` the best is written: holding it
    to a tolerance is the certificate's. Raises CheckpointInvalid if there is no convolution, ParityFailed if OpenVINO
    cannot read the model, RepositoryError if the files can't be written.
    """
    search = _Search(read_graph(model), pictures, expected)
    if not search.layers:
        raise CheckpointInvalid(f"`{model}` has no convolution, so there is nothing to make 8-bit.")
    progress(f"quantising {len(search.layers)} convolutions on {len(calibration)} pictures")
    best = search.attempt(calibration)
    floats: Sequence[str] = ()
    if best.ssim < min_ssim:
        progress(f"all of them in 8 bits reach SSIM {best.ssim:.4f}; looking for those that cost most")
        ranked = search.rank(calibration[:_RANKING_PICTURES], progress)
        for count in (step for step in _STEPS if step < len(ranked)):
            attempt = search.attempt(calibration, keep=ranked[:count])
            progress(f"with {count} of {len(ranked)} in float: SSIM {attempt.ssim:.4f}")
            if attempt.ssim > best.ssim:
                best, floats = attempt, ranked[:count]
            if attempt.ssim >= min_ssim:
                break
    return Quantised(
        files=save_graph(best.graph, folder, INT8_FILE_NAMES),
        layers=len(search.layers),
        float_layers=tuple(search.names[layer] for layer in floats),
        tries=search.tries,
        calibration_pictures=len(calibration),
        ssim=best.ssim,
        psnr_db=best.psnr_db,
    )


class _Search:
    """Quantises one network again and again, each time with other convolutions kept in float."""

    def __init__(self, graph: openvino.Model, pictures: Pictures, expected: Pictures) -> None:
        self._graph = graph
        self._pictures = pictures
        self._expected = expected
        nodes = graph.get_ordered_ops()
        self.layers = [node.get_friendly_name() for node in nodes if node.get_type_name() in _CONVOLUTIONS]
        self.names = _weight_names(graph, self.layers)
        self._interface = _interface_nodes(graph)
        self.tries = 0

    def rank(self, calibration: Pictures, progress: Callable[[str], None]) -> list[str]:
        """The convolutions, first the one whose return to float gains most by itself."""
        gains: dict[str, float] = {}
        for number, layer in enumerate(self.layers, start=1):
            gains[layer] = self.attempt(calibration, keep=[layer]).ssim
            progress(f"{number} of {len(self.layers)}: `{self.names[layer]}` in float gives SSIM {gains[layer]:.4f}")
        return sorted(gains, key=gains.__getitem__, reverse=True)

    def attempt(self, calibration: Pictures, *, keep: Sequence[str] = ()) -> _Attempt:
        """Quantise all convolutions but `keep`, and score what that paints on this very machine."""
        self.tries += 1
        graph = _quantise(self._graph, calibration, ignored=[*self._interface, *keep])
        paint = painter(graph, "int8")
        painted = np.concatenate([paint(picture[None]) for picture in self._pictures])
        squared = float(np.mean((painted.astype(np.float64) - self._expected) ** 2))
        return _Attempt(
            graph=graph,
            ssim=min(structural_similarity(a, b) for a, b in zip(self._expected, painted, strict=True)),
            psnr_db=20 * math.log10(255) - 10 * math.log10(squared) if squared else None,
        )


def _quantise(graph: openvino.Model, calibration: Pictures, *, ignored: Collection[str]) -> openvino.Model:
    with quiet_nncf() as nncf:
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet
        return nncf.quantize(
            graph.clone(),
            nncf.Dataset([picture[None] for picture in calibration]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=list(ignored), types=["MVN"], validate=False),
            # By default NNCF averages the extremes of all pictures, which cut white paper off at 0.9 of its value and
            # brought SSIM down from 0.99 to 0.4.
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges.MINMAX),
        )


def _weight_names(graph: openvino.Model, layers: Collection[str]) -> dict[str, str]:
    """What people know each convolution by: the name of its weights, which the exporter takes from the network."""
    names = {}
    for node in graph.get_ordered_ops():
        if node.get_friendly_name() in layers:
            weights = node.input_value(1).get_node()
            while weights.get_input_size():  # a float16 weight's conversion, a transposition
                weights = weights.input_value(0).get_node()
            names[node.get_friendly_name()] = weights.get_friendly_name().removesuffix("_fp16")
    return names


def _interface_nodes(graph: openvino.Model) -> list[str]:
    """What lies before the first and after the last convolution on every way."""
    names: dict[str, None] = {}
    ahead = [target for port in graph.inputs for target in port.get_target_inputs()]
    while ahead:
        node = ahead.pop().get_node()
        if node.get_type_name() not in _CONVOLUTIONS and node.get_friendly_name() not in names:
            names[node.get_friendly_name()] = None
            ahead += [target for output in node.outputs() for target in output.get_target_inputs()]
    behind = [result.input_value(0).get_node() for result in graph.get_results()]
    while behind:
        node = behind.pop()
        if node.get_type_name() not in _CONVOLUTIONS and node.get_friendly_name() not in names:
            names[node.get_friendly_name()] = None
            behind += [value.get_node() for value in node.input_values()]
    return list(names)
