"""Compares an artefact with the checkpoint it was made from. Until it has passed, the artefact does not exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from sketchbridge_export.errors import ParityFailed
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME
from sketchbridge_preprocess import INTERFACE_SIDE_PX

BATCH_SIZES = (1, 2, 5)  # alone, the smallest batch, and an odd one

Pictures = NDArray[np.uint8]
Paint = Callable[[Pictures], NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from its checkpoint, and why so far. None: not asked for.

    max_levels, mean_levels: absolute difference in grey levels (0 to 255) over all pictures. min_ssim: of the worst.
    """

    max_levels: int | None = None
    mean_levels: float | None = None
    min_ssim: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        bounds = (
            (self.max_levels, "at most {} levels"),
            (self.mean_levels, "{} on average"),
            (self.min_ssim, "SSIM of {} or more"),
        )
        return ", ".join(text.format(value) for value, text in bounds if value is not None)


Precision = Literal["fp32", "fp16-weights", "fp16", "bf16", "int8"]

# The one table of what is close enough.
TOLERANCES: dict[Precision, Tolerance] = {
    # Measured mean: below 0.001 for U-Nets, up to 0.013 for pix2pixHD with each picture's own statistics, which ONNX
    # Runtime sums up in float32. Allowed is about four times that.
    "fp32": Tolerance(
        max_levels=1,
        mean_levels=0.05,
        reason="the same arithmetic in another order: only a value on the edge between two levels may flip",
    ),
    # Measured: at most 1 level and 0.03 on average for U-Nets of ngf 8 to 64 with random weights, 1 and 0.005 for a
    # trained one of ngf 32. Allowed is three times that, which no eye tells apart.
    "fp16-weights": Tolerance(
        max_levels=3, mean_levels=0.1, reason="stored as float16 each weight moves by up to 1/2048 of itself"
    ),
    "fp16": Tolerance(
        min_ssim=0.995, reason="11 bits of every value: rounding adds up over the layers, but no structure may move"
    ),
    "bf16": Tolerance(min_ssim=0.995, reason="8 bits of every value: as fp16, and colours may shift by a few levels"),
    "int8": Tolerance(
        min_ssim=0.98, reason="256 steps a layer: texture may change where nobody looks, lines and colours may not"
    ),
}


@dataclass(frozen=True)
class Comparison:
    """An artefact against its checkpoint at one batch size, over all pictures.

    max_levels, mean_levels: absolute difference in grey levels. psnr_db: None if every value is equal.
    ssim: the worst picture's, 1.0 being equal.
    """

    batch_size: int
    pictures: int
    max_levels: int
    mean_levels: float
    psnr_db: float | None
    ssim: float

    def as_json(self) -> dict[str, int | float | None]:
        """Plain values, rounded for reading."""
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Measurement:
    """What was found: one comparison a batch size, and the picture that came out worst, as the artefact paints it."""

    batches: tuple[Comparison, ...]
    worst: int
    worst_painted: Pictures


def out_of_tolerance(batches: Sequence[Comparison], tolerance: Tolerance) -> list[str]:
    """Every batch size that is out of tolerance, in words; empty if all are within."""
    found = []
    for batch in batches:
        faults = []
        if _exceeds(batch.max_levels, tolerance.max_levels) or _exceeds(batch.mean_levels, tolerance.mean_levels):
            faults.append(f"off by up to {batch.max_levels} levels, {batch.mean_levels:.4f} on average")
        if tolerance.min_ssim is not None and not batch.ssim >= tolerance.min_ssim:
            faults.append(f"SSIM {batch.ssim:.4f}")
        if faults:
            found.append(f"batch {batch.batch_size}: {', '.join(faults)}")
    return found


def _exceeds(value: float, limit: float | None) -> bool:
    return limit is not None and not value <= limit  # so that what is no number exceeds it too


def paint_with_onnx(path: Path) -> Paint:
    """A painter that runs `model.onnx` on the CPU.

    Raises ParityFailed if it can't be loaded, or if its names, types or shapes are not the interface's.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its exceptions share no root of their own
        raise ParityFailed(f"ONNX Runtime {onnxruntime.__version__} can't load `{path}`: {exc}") from exc
    problems = _signature_problems(session)
    if problems:
        raise ParityFailed(f"The artefact has another signature than the contract: {'; '.join(problems)}.")
    return lambda batch: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0])


def measure(
    expected: Pictures, paint: Paint, pictures: Pictures, *, batch_sizes: Sequence[int] = BATCH_SIZES
) -> Measurement:
    """Compare what `paint` makes of the pictures, in batches of each size, with `expected`, one result a picture.

    `expected` was painted one picture at a time, so pictures that leak into each other show as a difference.
    Raises ParityFailed with every batch size that has another shape or type.
    """
    comparisons, problems = [], []
    worst, worst_ssim, worst_painted = 0, math.inf, expected[0]
    for batch_size in batch_sizes:
        order = _cover(len(pictures), batch_size)
        painted = []
        for chosen in order:
            result = paint(pictures[chosen])
            if result.shape != expected[chosen].shape or result.dtype != np.uint8:
                wanted = expected[chosen].shape
                problems.append(f"batch {batch_size}: it paints {result.shape} {result.dtype}, expected {wanted} uint8")
                break
            painted.append(result)
        if len(painted) < len(order):
            continue
        indices, together = np.concatenate(order), np.concatenate(painted)
        similarities = [structural_similarity(a, b) for a, b in zip(expected[indices], together, strict=True)]
        comparisons.append(_compare(expected[indices], together, similarities, batch_size, len(pictures)))
        if min(similarities) < worst_ssim:
            position = int(np.argmin(similarities))
            worst, worst_ssim, worst_painted = int(indices[position]), similarities[position], together[position]
    if problems:
        raise ParityFailed(f"The artefact does not paint what the contract says: {'; '.join(problems)}.")
    return Measurement(tuple(comparisons), worst, worst_painted)


def paint_alone(reference: nn.Module, pictures: Pictures) -> Pictures:
    """What the checkpoint paints, one picture at a time.

    reference: the interface around the rebuilt network, in float32 and with its normalisations unfolded.
    pictures: (P, 256, 256, 3) uint8; the result has the same shape.
    """
    with torch.inference_mode():
        painted = [reference(torch.from_numpy(picture[None])).numpy() for picture in pictures]
    return np.concatenate(painted)


def structural_similarity(a: Pictures, b: Pictures) -> float:
    """Mean SSIM of two (H, W, 3) uint8 pictures, channel by channel.

    Source: Wang et al. 2004, 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity.mean())


def _window(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float64)


def _cover(count: int, batch_size: int) -> list[NDArray[np.intp]]:
    """Full batches that show every picture at least once; the last one begins again at the first picture."""
    batches = -(-count // batch_size)
    return np.split(np.arange(batches * batch_size) % count, batches)


def _signature_problems(session: onnxruntime.InferenceSession) -> list[str]:
    problems = []
    for side, values, name in (
        ("input", session.get_inputs(), INPUT_NAME),
        ("output", session.get_outputs(), OUTPUT_NAME),
    ):
        found = [(value.name, value.type, value.shape) for value in values]
        sides = [INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3]
        if len(found) != 1 or found[0][:2] != (name, "tensor(uint8)") or found[0][2][1:] != sides:
            problems.append(
                f"{side}s are {found}, expected `{name}` tensor(uint8) (batch, {', '.join(map(str, sides))})"
            )
        elif not isinstance(found[0][2][0], str):
            problems.append(f"{side} `{name}` takes batches of {found[0][2][0]} only")
    return problems


def _compare(
    expected: Pictures, painted: Pictures, similarities: Sequence[float], batch_size: int, pictures: int
) -> Comparison:
    difference = np.abs(expected.astype(np.int16) - painted.astype(np.int16))
    squared = float(np.mean(difference.astype(np.float64) ** 2))
    return Comparison(
        batch_size=batch_size,
        pictures=pictures,
        max_levels=int(difference.max()),
        mean_levels=float(difference.mean()),
        psnr_db=20 * math.log10(255) - 10 * math.log10(squared) if squared else None,
        ssim=min(similarities),
    )
