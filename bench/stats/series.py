"""Medians of one series of samples whose neighbours are correlated."""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from statistics import NormalDist

FEWEST = 6  # samples; fewer bound no median at 95 %
EXACT = 200  # samples up to which the binomial distribution is summed; beyond, its normal limit


def effective_size(samples: Sequence[float]) -> float:
    """Number of independent samples that bound the median as closely as this series, from 1 to its length.

    The series is taken as autoregressive of order one. Its correlation is that of neighbouring ranks, with
    the bias of a short series, -(1 + 4 r) / n (Kendall 1954), removed.
    """
    return _effective_size(tuple(samples)) if len(samples) > 2 else float(len(samples))


@lru_cache(maxsize=4096)
def _effective_size(samples: tuple[float, ...]) -> float:
    import numpy

    n = len(samples)
    ranks = numpy.argsort(numpy.argsort(samples, kind="stable"), kind="stable") - (n - 1) / 2
    found = float(ranks[:-1] @ ranks[1:] / (ranks @ ranks))
    correlation = found + (1 + 4 * max(found, 0.0)) / n
    if max(samples) == min(samples) or correlation <= 0:
        return float(n)
    correlation = min(correlation, 0.99)
    return max(1.0, n * (1 - correlation) / (1 + correlation))


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bound the median of a series without assuming a distribution; describes these minutes, no others.

    The interval of the sign test for the effective number of samples: two order statistics. A series whose
    effective size is too small for any is bounded by its least and its largest sample.

    Returns:
        (low, high) in the unit of the samples, or None with fewer samples than any interval needs (six at
        95 %).
    """
    n = len(samples)
    if _rank(n, confidence) < 0:
        return None
    ordered = sorted(samples)
    effective = int(effective_size(samples))
    share = (_rank(effective, confidence) + 1) / (effective + 1)
    rank = max(0, int(share * (n + 1)) - 1)
    return ordered[rank], ordered[n - 1 - rank]


@cache
def _rank(n: int, confidence: float) -> int:
    """The largest k with P(Binomial(n, 1/2) <= k) <= (1 - confidence) / 2; -1 if there is none."""
    if n > EXACT:
        reach = NormalDist().inv_cdf((1 + confidence) / 2)
        return int((n - reach * math.sqrt(n)) / 2) - 1
    tail, rank = 0.0, -1
    for k in range(n // 2):
        tail += math.comb(n, k) / 2**n
        if tail > (1 - confidence) / 2:
            break
        rank = k
    return rank


def standard_error(samples: Sequence[float]) -> float:
    """Standard error of the median: half its 95 % interval (below six samples, of the range) / 1.96."""
    n = len(samples)
    if n < 2:
        return 0.0
    confidence = min(0.95, 1 - 2.0 ** (1 - n))
    low, high = median_interval(samples, confidence) or (min(samples), max(samples))
    return (high - low) / 2 / NormalDist().inv_cdf((1 + confidence) / 2)
