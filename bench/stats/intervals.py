"""Order statistics of samples, intervals of means, inequality of shares, with no torch and no SciPy."""

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

__all__ = [
    "effective_count",
    "gini",
    "mean_interval",
    "median",
    "median_interval",
    "quantile",
    "ratio_interval",
    "student_t",
]


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the median without assuming a distribution.

    The interval runs between two order statistics, chosen by the binomial distribution of the number of
    samples below the true median (the sign test's interval), so its coverage is at least `confidence`.

    Returns:
        (low, high) in the unit of the samples, or None where there are too few samples for any interval
        (fewer than six at 95 %).
    """
    n = len(samples)
    ordered = sorted(samples)
    tail = 0.0
    rank = -1  # the largest k with P(Binomial(n, 1/2) <= k) <= (1 - confidence) / 2
    for k in range(n // 2):
        tail += math.comb(n, k) / 2**n
        if tail > (1 - confidence) / 2:
            break
        rank = k
    if rank < 0:
        return None
    return ordered[rank], ordered[n - 1 - rank]


def quantile(samples: Sequence[float], q: float) -> float:
    """Interpolate the q-quantile, q in [0, 1], linearly between order statistics."""
    if not samples:
        raise ValueError("quantile: needs at least one sample, got none")
    if not 0 <= q <= 1:
        raise ValueError(f"quantile: q must lie in [0, 1], got {q}")
    ordered = sorted(samples)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def mean_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the mean of samples that are spread normally, by Student's t; None with fewer than three.

    Two samples give an interval too, of 12.7 standard errors at 95 %: it says nothing and is not given.
    """
    n = len(samples)
    if n < 3:
        return None
    mean, reach = fmean(samples), student_t(n - 1, confidence) * stdev(samples) / math.sqrt(n)
    return mean - reach, mean + reach


def ratio_interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the geometric mean of ratios above zero, by Student's t on their logarithms: its ends are too."""
    interval = mean_interval([math.log(ratio) for ratio in ratios], confidence)
    return interval and (math.exp(interval[0]), math.exp(interval[1]))


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t that Student's |t| with so many degrees of freedom stays below in that share of cases."""
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"student_t: needs freedom >= 1 and confidence in (0, 1), got {freedom}, {confidence}"
        )
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|t| <= sqrt(freedom) tan(angle)): the finite sums for whole degrees of freedom."""
    sine, square = math.sin(angle), math.cos(angle) ** 2
    even = freedom % 2 == 0
    term = 1.0 if even else math.cos(angle)
    total = 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * ((2 * k + 1) / (2 * k + 2) if even else (2 * k + 2) / (2 * k + 3))
    return sine * total if even else 2 / math.pi * (angle + sine * total)


def gini(shares: Sequence[float]) -> float:
    """Gini's coefficient of values from 0: 0 where all are equal, towards 1 where one has everything.

    Of nothing but zeros it is 0: they are equal.
    """
    total, n = math.fsum(shares), len(shares)
    if total == 0:
        return 0.0
    return sum((2 * rank - n - 1) * share for rank, share in enumerate(sorted(shares), start=1)) / (n * total)


def effective_count(shares: Sequence[float]) -> float:
    """How many equal values have the entropy of these, all from 0: their number where they are equal.

    Of nothing but zeros it is 0.
    """
    total = math.fsum(shares)
    if total == 0:
        return 0.0
    return math.exp(-math.fsum(s / total * math.log(s / total) for s in shares if s > 0))
