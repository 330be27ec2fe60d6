"""Quantiles of samples, intervals of means, inequality of shares."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from statistics import median as median  # of this module too

import numpy as np


def quantile(samples: Sequence[float], q: float) -> float:
    """Interpolate the q-quantile, q in [0, 1], linearly between order statistics."""
    return float(np.quantile(samples, q))


def mean_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the mean of normal samples by Student's t; None below three, whose interval is too wide."""
    n = len(samples)
    if n < 3:
        return None
    mean, reach = fmean(samples), student_t(n - 1, confidence) * stdev(samples) / math.sqrt(n)
    return mean - reach, mean + reach


def ratio_interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the geometric mean of positive ratios, by Student's t on their logarithms."""
    interval = mean_interval([math.log(ratio) for ratio in ratios], confidence)
    return interval and (math.exp(interval[0]), math.exp(interval[1]))


def student_t(freedom: float, confidence: float = 0.95) -> float:
    """Two-sided quantile of Student's t with `freedom` degrees of freedom, whole or not."""
    from scipy.special import stdtrit  # takes 0.6 s to import

    return float(stdtrit(freedom, (1 + confidence) / 2))


def gini(shares: Sequence[float]) -> float:
    """Gini coefficient of values >= 0: 0 for equal values (also all zeros), near 1 for one large value."""
    total, n = math.fsum(shares), len(shares)
    if total == 0:
        return 0.0
    return sum((2 * rank - n - 1) * share for rank, share in enumerate(sorted(shares), start=1)) / (n * total)


def effective_count(shares: Sequence[float]) -> float:
    """Number of equal values with the same entropy as these values >= 0; 0 if all are zero."""
    total = math.fsum(shares)
    if total == 0:
        return 0.0
    return math.exp(-math.fsum(s / total * math.log(s / total) for s in shares if s > 0))
