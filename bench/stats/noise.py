"""What disturbed a series of timed passes, named with its size. No torch here, and no SciPy.

Limits are set so that independent normal samples are named in fewer than one series of a hundred.
"""

import math
from collections.abc import Sequence

from bench.stats import intervals

MIN_SAMPLES = 10  # fewer show nothing
DRIFT_Z = 3.3  # of the rank correlation with time: p < 0.001
DRIFT_SIZE = 0.02  # of the last third's median against the first third's
MODE_SHARE = 0.1  # of the samples, and three of them, in the smaller of two modes
MODE_GAP = 0.02  # between the means of two modes, as a share of the lower
MODE_SEPARATION = 4.5  # distance of the means of two modes in their standard deviations; halves of normal
# samples lie 2.6 apart, those of evenly spread ones 3.5. Of few samples deviations are uncertain:
FEW = 25  # this limit grows by sqrt(1 + FEW / n)
OUTLIER_SIZE = 0.05  # away from the median, as a share of it
OUTLIER_LIMIT = 7.0  # and in robust standard deviations, growing alike
CLOCK_DROP = 0.75  # of the highest clock
# of profiles, whose shares are not to be relied on beyond:
MAX_SPREAD = 0.2  # of their passes, which are too few for the limits above
MAX_EXCESS = 0.01  # of the operators' time over that of the pass which they are in


def noise(times_s: Sequence[float], clocks_mhz: Sequence[float] = ()) -> tuple[str, ...]:
    """Name what disturbed the passes of one case: nothing for a quiet one.

    Args:
        times_s: seconds of each pass, in the order they were made.
        clocks_mhz: readings of the device's clock while they were made, if there are any.

    Returns:
        Any of "drift +4.1 %" (last third of the passes against the first), "bimodal 30 % at +22 %" (share of
        the smaller mode, and where it lies from the other), "3 outliers" and "clock down to 61 %" (of the
        highest reading), in this order. Of two modes no outliers are told.
    """
    found = []
    if len(times_s) >= MIN_SAMPLES:
        shift = drift(times_s)
        if shift is not None:
            found.append(f"drift {100 * shift:+.1f} %")
        split = modes(times_s)
        if split is not None:
            share, at = split
            found.append(f"bimodal {100 * share:.0f} % at {100 * at:+.0f} %")
        elif number := outliers(times_s):
            found.append(f"{number} outlier{'s' if number > 1 else ''}")
    if clocks_mhz and min(clocks_mhz) < CLOCK_DROP * max(clocks_mhz):
        found.append(f"clock down to {100 * min(clocks_mhz) / max(clocks_mhz):.0f} %")
    return tuple(found)


def spread(times_s: Sequence[float]) -> float | None:
    """From the fastest to the slowest, as a share of the median; None of fewer than two, or without time.

    A mean is one sample, whatever it is of.
    """
    if len(times_s) < 2:
        return None
    middle = intervals.median(times_s)
    return (max(times_s) - min(times_s)) / middle if middle > 0 else None


def drift(times_s: Sequence[float]) -> float | None:
    """Change from the first third's median to the last third's, as a share of it; None if it is no trend.

    A trend has a rank correlation with time that is significant (Spearman's, by Fisher's transformation)
    and a change of at least `DRIFT_SIZE`: of many samples, a trend too small to matter is significant too.
    """
    n = len(times_s)
    third = n // 3
    change = intervals.median(times_s[-third:]) / intervals.median(times_s[:third]) - 1
    ranks = _ranks(times_s)
    centre = (n - 1) / 2
    spread = sum((rank - centre) ** 2 for rank in ranks)
    if abs(change) < DRIFT_SIZE or spread == 0:
        return None
    together = sum((i - centre) * (rank - centre) for i, rank in enumerate(ranks))
    correlation = together / math.sqrt(spread * n * (n * n - 1) / 12)
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation))) * math.sqrt((n - 3) / 1.06)
    return change if abs(z) > DRIFT_Z and z * change > 0 else None


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end + 1 < len(order) and values[order[end + 1]] == values[order[begin]]:
            end += 1
        for i in order[begin : end + 1]:
            ranks[i] = (begin + end) / 2
        begin = end + 1
    return ranks


def modes(times_s: Sequence[float]) -> tuple[float, float] | None:
    """Share of the smaller of two modes, and how far it lies from the other as a share; None for one mode.

    The samples are cut in two where that leaves the least variance within the parts; the parts are modes if
    each holds its share and their means lie `MODE_SEPARATION` standard deviations and `MODE_GAP` apart.
    """
    ordered = sorted(times_s)
    n = len(ordered)
    # relative to the median, so that the squares keep their digits
    centre = intervals.median(ordered)
    scaled = [time / centre - 1 for time in ordered]
    total, total_square = sum(scaled), sum(x * x for x in scaled)
    below = below_square = 0.0
    best, cut, means = math.inf, 0, (0.0, 0.0)
    for i, x in enumerate(scaled[:-1], start=1):
        below += x
        below_square += x * x
        above, above_square = total - below, total_square - below_square
        within = (below_square - below * below / i) + (above_square - above * above / (n - i))
        if within < best:
            best, cut, means = within, i, (below / i, above / (n - i))
    smaller = min(cut, n - cut)
    deviation = math.sqrt(max(best, 0.0) / (n - 2))
    low, high = 1 + means[0], 1 + means[1]
    needed = max(MODE_GAP * low, _limit(MODE_SEPARATION, n) * deviation)
    if smaller < max(3, MODE_SHARE * n) or high - low < needed:
        return None
    return smaller / n, high / low - 1 if cut >= n - cut else low / high - 1


def _limit(base: float, n: int) -> float:
    return base * math.sqrt(1 + FEW / n)


def outliers(times_s: Sequence[float]) -> int:
    """Count the samples far from the median, by its absolute deviations and as a share of it."""
    centre = intervals.median(times_s)
    deviations = [abs(time - centre) for time in times_s]
    deviation = 1.4826 * intervals.median(deviations)  # a standard deviation, were they normal
    limit = max(_limit(OUTLIER_LIMIT, len(times_s)) * deviation, OUTLIER_SIZE * centre)
    return sum(far > limit for far in deviations)
