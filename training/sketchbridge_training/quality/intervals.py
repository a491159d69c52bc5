"""How far a figure on so few photos can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Z = 1.959963984540054  # 95 % of a normal distribution lie within


@dataclass(frozen=True)
class Share:
    """`hits` of `count`, and the 95 % interval of the share, in [0, 1]."""

    hits: int
    count: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.hits / self.count


@dataclass(frozen=True)
class Difference:
    """A difference of two shares in [-1, 1], and its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, count: int) -> Share:
    """The share with Wilson's interval, which stays within [0, 1] and has a width even at 0 and 1. count: at least 1.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    share = hits / count
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / scale
    return Share(hits, count, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def paired_difference(
    after: Sequence[bool], before: Sequence[bool], groups: Sequence[str], *, seed: int, draws: int = 2000
) -> Difference:
    """The share of `after` less that of `before`, of the same things, with a bootstrap interval over whole groups.

    groups: which of them are not independent, as the photos of one cat; a draw takes whole groups, with replacement.
    With one group there is nothing to draw from and the interval is the value.
    Source: the percentile bootstrap of clusters; Davison and Hinkley, "Bootstrap Methods", 1997, section 3.8.
    """
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member, weights=change)
    sizes = np.bincount(member)
    random = np.random.default_rng(seed)
    drawn: npt.NDArray[np.int64] = random.integers(0, len(names), (draws, len(names)))
    values = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(values, [2.5, 97.5])
    return Difference(float(change.mean()), float(low), float(high))
