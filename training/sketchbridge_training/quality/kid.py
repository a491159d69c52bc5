"""Kernel distance of two sets of pictures in a feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchbridge_training.errors import DataInvalid

Features = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class KernelDistance:
    """Mean and deviation over subsets; about 0 for sets of one distribution, and then as often below as above it.

    The deviation is that of one subset's distance. It is no standard error of the mean: subsets share rows.
    """

    mean: float
    deviation: float
    subset_size: int
    subsets: int


def polynomial_mmd2(first: Features, second: Features, *, paired: bool = False) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3.

    first: (M, d), second: (N, d), each at least two rows. May be negative. Raises DataInvalid for other shapes.
    paired: row i of both is of one thing, as a painting and the photo whose lines it was painted from. The two are then
    not independent, and such pairs are left out across the sets as they are within; kept, they flatter the paintings.
    Source: Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018, section 4; the estimate is
    equation 3 of Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, and if paired equation 4.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise DataInvalid(f"Features are {first.shape} and {second.shape}; expected two rows or more, of one width.")
    if paired and len(first) != len(second):
        raise DataInvalid(f"Features are {first.shape} and {second.shape}; pairs need as many rows in both.")
    width = first.shape[1]
    x, y = first.astype(np.float64), second.astype(np.float64)

    def kernel(a: Features, b: Features) -> npt.NDArray[np.float64]:
        return np.asarray((a @ b.T / width + 1) ** 3, np.float64)

    def mean_of_others(gram: npt.NDArray[np.float64]) -> float:
        count = len(gram)
        return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))

    across = kernel(x, y)
    between = mean_of_others(across) if paired else float(across.mean())
    return mean_of_others(kernel(x, x)) + mean_of_others(kernel(y, y)) - 2 * between


def kernel_distance(
    first: Features, second: Features, *, seed: int, paired: bool = False, subsets: int = 100, subset_size: int = 50
) -> KernelDistance:
    """`polynomial_mmd2` over random subsets of both, without replacement, as the paper's authors report it.

    first: (M, d), second: (N, d). subset_size: lowered to the smaller set's rows if there are fewer. paired: see
    `polynomial_mmd2`; both subsets are then of the same rows.
    """
    size = min(subset_size, len(first), len(second))
    random = np.random.default_rng(seed)

    def one_distance() -> float:
        rows = random.choice(len(first), size, replace=False)
        others = rows if paired else random.choice(len(second), size, replace=False)
        return polynomial_mmd2(first[rows], second[others], paired=paired)

    values = [one_distance() for _ in range(subsets)]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), size, subsets)
