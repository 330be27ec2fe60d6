"""Ratio of two medians with an interval that allows for autocorrelated samples."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats import intervals

CONFIDENCE = 0.95
MIN_SAMPLES = 6  # of each side; fewer bound no median at this confidence
RESAMPLES = 10_000


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of median(b) / median(a), by resampling both; None with too few samples of either."""
    if min(len(a), len(b)) < MIN_SAMPLES:
        return None
    rng = np.random.default_rng(0)
    resampled = _resampled_medians(b, rng) / _resampled_medians(a, rng)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _resampled_medians(samples: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of resamples with the effective sample size of the series.

    The rank of the median of n independent samples has a beta distribution.
    """
    n, effective = len(samples), effective_size(samples)
    ranks = rng.beta((effective + 1) / 2, (effective + 1) / 2, RESAMPLES)
    return np.interp(ranks * n - 0.5, np.arange(n), np.sort(samples))


def effective_size(samples: Sequence[float]) -> float:
    """Number of independent samples that would bound the median as closely as this series does.

    Each sample is reduced to its side of the median. The autocorrelations of the sides are summed over pairs
    of lags while the sums are positive (Geyer's initial sequence), if the first is significant.
    """
    n = len(samples)
    sides = np.sign(np.asarray(samples) - intervals.median(samples))
    sides -= sides.mean()
    total = float(sides @ sides)

    def correlation(lag: int) -> float:
        return float(sides[:-lag] @ sides[lag:]) / total

    if total == 0 or correlation(1) < 2 / math.sqrt(n):
        return float(n)
    length = 1 + 2 * correlation(1)
    for lag in range(2, n - 1, 2):
        added = correlation(lag) + correlation(lag + 1)
        if added <= 0:
            break
        length += 2 * added
    return max(1.0, n / length)
