"""Disturbances of a series of timed passes, with their sizes. Imports neither torch nor SciPy.

The limits flag fewer than one in a hundred series of independent normal samples.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import correlation

import numpy as np

from bench.stats import intervals

MIN_SAMPLES = 10  # shorter series are not tested
DRIFT_Z = 3.3  # of the rank correlation with time: p < 0.001
DRIFT_SIZE = 0.02  # of the last third's median against the first third's
MODE_SHARE = 0.1  # minimum share of the samples in the smaller of two modes, which has at least three
MODE_GAP = 0.02  # between the means of two modes, as a share of the lower
# distance of the means of two modes in their standard deviations: 2.6 for halves of normal samples, 3.5 for
# halves of uniform ones
MODE_SEPARATION = 4.5
FEW = 25  # MODE_SEPARATION and OUTLIER_LIMIT grow by sqrt(1 + FEW / n): few samples have uncertain deviations
OUTLIER_SIZE = 0.05  # distance from the median, as a share of it
OUTLIER_LIMIT = 7.0  # distance from the median in robust standard deviations
CLOCK_DROP = 0.75  # of the highest clock
# limits of profiles, beyond which shares are unreliable:
MAX_SPREAD = 0.2  # of the passes, which are too few for the limits above
MAX_EXCESS = 0.01  # of the operators' time over that of their pass


def noise(processes: Sequence[Sequence[float]], clocks_mhz: Sequence[float] = ()) -> tuple[str, ...]:
    """Name the disturbances of the passes of one case; empty without any.

    Args:
        processes: seconds of each pass of each process, in order of time.
        clocks_mhz: readings of the device's clock during the passes; empty without readings.

    Returns:
        Any of "drift +4.1 %" (last third of a process's passes against its first; the largest), "two regimes:
        20.1 ms (70 %), 24.5 ms (30 %)" (of all passes, the larger share first), "3 outliers" and "clock down
        to 61 %" (of the highest reading), in this order. With two regimes, outliers are not counted.
    """
    found = []
    long_enough = [times for times in processes if len(times) >= MIN_SAMPLES]
    shifts = [shift for times in long_enough if (shift := drift(times)) is not None]
    if shifts:
        found.append(f"drift {100 * max(shifts, key=abs):+.1f} %")
    if split := regimes([time for times in processes for time in times]):
        found.append(
            "two regimes: " + ", ".join(f"{_three_digits(1e3 * s)} ms ({100 * p:.0f} %)" for s, p in split)
        )
    elif number := sum(map(outliers, long_enough)):
        found.append(f"{number} outlier{'s' if number > 1 else ''}")
    if clocks_mhz and min(clocks_mhz) < CLOCK_DROP * max(clocks_mhz):
        found.append(f"clock down to {100 * min(clocks_mhz) / max(clocks_mhz):.0f} %")
    return tuple(found)


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def spread(times_s: Sequence[float]) -> float | None:
    """Range of the times as a share of the median; None with fewer than two samples or a zero median."""
    if len(times_s) < 2:
        return None
    middle = intervals.median(times_s)
    return (max(times_s) - min(times_s)) / middle if middle > 0 else None


def drift(times_s: Sequence[float]) -> float | None:
    """Relative change from the first third's median to the last third's; None without a trend.

    A trend has a significant rank correlation with time (Spearman's, by Fisher's transformation) and a change
    of at least `DRIFT_SIZE`: with many samples, negligible trends are significant too.
    """
    n = len(times_s)
    third = n // 3
    change = intervals.median(times_s[-third:]) / intervals.median(times_s[:third]) - 1
    if abs(change) < DRIFT_SIZE:
        return None
    ordered = sorted(times_s)
    ranks = [(bisect_left(ordered, time) + bisect_right(ordered, time)) / 2 for time in times_s]
    found = correlation(range(n), ranks)
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, found))) * math.sqrt((n - 3) / 1.06)
    return change if abs(z) > DRIFT_Z and z * change > 0 else None


def regimes(times_s: Sequence[float]) -> tuple[tuple[float, float], ...] | None:
    """Mean seconds and share of the samples of two regimes, the larger share first; None for one regime.

    The samples are split at the value that minimises the variance within the parts. The parts are regimes if
    each has `MODE_SHARE` of the samples and their means differ by at least `MODE_SEPARATION` standard
    deviations and `MODE_GAP`. With fewer than `MIN_SAMPLES` samples the result is None.
    """
    n = len(times_s)
    if n < MIN_SAMPLES:
        return None
    # relative to the median, to avoid cancellation in the sums of squares
    centre = intervals.median(times_s)
    scaled = np.sort(times_s) / centre - 1
    sizes, sums, squares = np.arange(1, n), np.cumsum(scaled), np.cumsum(scaled**2)
    below, above = sums[:-1] / sizes, (sums[-1] - sums[:-1]) / (n - sizes)  # means of the parts
    within = squares[-1] - below**2 * sizes - above**2 * (n - sizes)
    best = int(within.argmin())
    cut, low, high = best + 1, 1 + float(below[best]), 1 + float(above[best])
    deviation = math.sqrt(max(within[best], 0.0) / (n - 2))
    needed = max(MODE_GAP * low, _limit(MODE_SEPARATION, n) * deviation)
    if min(cut, n - cut) < max(3, MODE_SHARE * n) or high - low < needed:
        return None
    fast, slow = (centre * low, cut / n), (centre * high, 1 - cut / n)
    return (fast, slow) if cut >= n - cut else (slow, fast)


def _limit(base: float, n: int) -> float:
    return base * math.sqrt(1 + FEW / n)


def outliers(times_s: Sequence[float]) -> int:
    """Count the samples beyond both `OUTLIER_SIZE` and `OUTLIER_LIMIT` from the median."""
    centre = intervals.median(times_s)
    distances = [abs(time - centre) for time in times_s]
    deviation = 1.4826 * intervals.median(distances)  # the standard deviation of normal samples
    limit = max(_limit(OUTLIER_LIMIT, len(times_s)) * deviation, OUTLIER_SIZE * centre)
    return sum(distance > limit for distance in distances)
