"""Decides whether an artefact paints what its checkpoint paints. Until it has a certificate, it does not exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import ParityFailed
from sketchbridge_export.parity import (
    BATCH_SIZES,
    TOLERANCES,
    Comparison,
    Measurement,
    Paint,
    Pictures,
    Precision,
    Tolerance,
    measure,
    out_of_tolerance,
)
from sketchbridge_export.parity_sheet import write_sheet

_LARGEST_LEVEL = 255


@dataclass(frozen=True)
class Certificate:
    """That an artefact was compared and found close enough.

    precision: the row of TOLERANCES it was held to; tolerance: that row, with what the caller asked for.
    measured_on: what ran the artefact, such as "ONNX Runtime 1.31.1 CPU".
    """

    precision: Precision
    tolerance: Tolerance
    measured_on: str
    batches: tuple[Comparison, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        bounds = {key: value for key, value in asdict(self.tolerance).items() if value is not None and key != "reason"}
        return {
            "precision": self.precision,
            "measured_on": self.measured_on,
            "tolerance": bounds,
            "batches": [batch.as_json() for batch in self.batches],
        }


def read_certificate(described: Mapping[str, Any]) -> Certificate:
    """A certificate from a manifest. Raises KeyError, TypeError or ValueError if it is none that `certify` gives.

    Its tolerance is today's row of the table, with the similarity that the artefact's owner asked for.
    """
    precision = next((known for known in TOLERANCES if known == described["precision"]), None)
    if precision is None:
        raise ValueError(f"precision {described['precision']!r} is not known")
    min_ssim = described["tolerance"].get("min_ssim")
    if min_ssim is not None and not 0 < min_ssim <= 1:
        raise ValueError(f"an SSIM of {min_ssim} was asked for")
    batches = tuple(Comparison(**batch) for batch in described["batches"])
    if tuple(batch.batch_size for batch in batches) != BATCH_SIZES:
        raise ValueError(f"its batches are not of {', '.join(map(str, BATCH_SIZES))} pictures")
    for batch in batches:
        if not _is_measured(batch):
            raise ValueError(f"{batch} can't have been measured")
    return Certificate(precision, tolerance_for(precision, min_ssim), str(described["measured_on"]), batches)


def _is_measured(batch: Comparison) -> bool:
    return (
        batch.pictures >= 1
        and 0 <= batch.mean_levels <= batch.max_levels <= _LARGEST_LEVEL
        and -1 <= batch.ssim <= 1
        and (batch.psnr_db is None or 0 <= batch.psnr_db < math.inf)
    )


def tolerance_for(precision: Precision, min_ssim: float | None) -> Tolerance:
    """The table's row; for INT8, where it is a matter of taste, a caller's `min_ssim` takes the place of the row's."""
    row = TOLERANCES[precision]
    return row if min_ssim is None or precision != "int8" else replace(row, min_ssim=min_ssim)


def certify(
    what: str,
    *,
    expected: Pictures,
    paint: Paint,
    pictures: Pictures,
    precision: Precision,
    min_ssim: float | None,
    measured_on: str,
    evidence: Path,
) -> Certificate:
    """Compare, and certify what is within tolerance.

    what: names the artefact in messages. expected: what the checkpoint paints of `pictures`, each alone.
    evidence: where the worst picture is written, side by side with what it should be, if the artefact fails.
    Raises ParityFailed with all figures.
    """
    tolerance = tolerance_for(precision, min_ssim)
    found = measure(expected, paint, pictures)
    problems = out_of_tolerance(found.batches, tolerance)
    if problems:
        shown = _show(what, found, expected, pictures, evidence)
        raise ParityFailed(
            f"{what} does not paint what the checkpoint paints: {'; '.join(problems)}. Allowed: {tolerance} "
            f"({tolerance.reason}). {shown}"
        )
    return Certificate(precision, tolerance, measured_on, found.batches)


def _show(what: str, found: Measurement, expected: Pictures, pictures: Pictures, evidence: Path) -> str:
    try:
        write_sheet(
            evidence,
            [("drawing", pictures[found.worst]), ("checkpoint", expected[found.worst]), (what, found.worst_painted)],
        )
    except OSError as exc:
        return f"The worst picture could not be written to `{evidence}`: {exc.strerror}."
    return f"See the worst picture: `{evidence}`."
