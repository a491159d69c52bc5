"""Whether a generator paints many things or one, and in how much colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sketchbridge_preprocess import Image
from sketchbridge_training.errors import DataInvalid


def mean_pairwise_distance(features: npt.NDArray[np.floating[Any]]) -> float:
    """Mean Euclidean distance of two different rows of (N, d) features. Raises DataInvalid below two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise DataInvalid(f"Features are {features.shape}; expected (N, d) with two rows or more.")
    rows = features.astype(np.float64)
    squares = (rows**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0))
    np.fill_diagonal(distances, 0)
    return float(distances.sum() / (len(rows) * (len(rows) - 1)))


def colourfulness(image: Image) -> float:
    """About 0 for a gray picture, 109 and more for an extremely colourful one. image: (H, W, 3) RGB uint8.

    Source: Hasler and Suesstrunk, "Measuring Colourfulness in Natural Images", SPIE 2003, the metric M(3).
    """
    red, green, blue = (image[..., channel].astype(np.float64) for channel in range(3))
    across, along = red - green, (red + green) / 2 - blue
    spread = np.hypot(across.std(), along.std())
    mean = np.hypot(across.mean(), along.mean())
    return float(spread + 0.3 * mean)
