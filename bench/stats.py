"""Order statistics of timed samples, with no torch and no SciPy."""

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "median_interval", "quantile"]


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
