"""Crossings of two cost curves, interpolated between measured sizes on log-log axes."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.stats.power_law import CONFIDENCE, Array, Curve, Interval, central, draws

MAX_EXTRAPOLATION = 4.0  # limit of extrapolation, as a multiple of the largest measured side


@dataclass(frozen=True, kw_only=True)
class CrossOver:
    """One crossing of two curves, or the absence of one.

    Interval ends are infinite where the measured sizes do not bound them. Without a crossing in the range,
    `side` is None, and `extrapolated` is the crossing of the line through the last two sizes, if within
    MAX_EXTRAPOLATION.
    """

    below: str  # first, second or neither: the cheaper curve below the crossing, or at every size
    side: float | None = None
    interval: Interval | None = None
    certain: bool  # both interval ends lie in the range; without a crossing: the order is significant
    extrapolated: float | None = None
    equal: tuple[float, ...] = ()  # sizes at which both costs are exactly equal (possible for counts)


def cross_overs(first: Curve, second: Curve) -> list[CrossOver]:
    """Every crossing of two curves over two or more shared sizes; one without a side if none exists.

    Curves that are equal at one size, or at several neighbouring sizes, cross in the middle of these sizes if
    the order of the curves changes. Curves that touch, or are equal at an end, do not cross.
    """
    shared = sorted(set(first.sides) & set(second.sides))
    first, second = first.among(shared), second.among(shared)
    x = np.log(shared)
    costs = np.array([[point.cost for point in curve.points] for curve in (first, second)])
    gaps = np.log(costs[0]) - np.log(costs[1])  # negative where the first is cheaper
    drawn = None
    if first.is_resamplable and second.is_resamplable:
        drawn = draws(first, 0) - draws(second, 1)
    exact = first.exact and second.exact
    equal = tuple(side for side, gap in zip(shared, gaps, strict=True) if gap == 0)
    different = [i for i in range(len(shared)) if gaps[i] != 0]
    if not different:
        return [CrossOver(below="neither", certain=exact, equal=equal)]
    below = ["first" if gap < 0 else "second" for gap in gaps]
    turns = [(i, j) for i, j in pairwise(different) if below[i] != below[j]]
    if not turns:
        # exact counts have a certain sign; times without an interval do not
        agree = drawn is not None and float(np.mean((drawn < 0).all(1) | (drawn > 0).all(1)))
        certain = exact if drawn is None else bool(agree >= CONFIDENCE)
        extrapolated = _extrapolated(x, gaps)
        return [CrossOver(below=below[different[0]], certain=certain, extrapolated=extrapolated, equal=equal)]
    found = []
    for i, j in turns:
        place = float(_zero(x[i], x[j], gaps[i], gaps[j]) if j == i + 1 else (x[i + 1] + x[j - 1]) / 2)
        interval = None if drawn is None else _interval(place, float(np.sign(gaps[i])), x, drawn)
        bounded = interval is not None and interval[0] > 0 and all(map(math.isfinite, interval))
        found.append(
            CrossOver(
                below=below[i],
                side=math.exp(place),
                interval=interval,
                certain=exact if interval is None else bounded,
                equal=equal,
            )
        )
    return found


def _zero(x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
    """Zero of the line through two points."""
    return x0 + (x1 - x0) * y0 / (y0 - y1)


def _interval(place: float, before: float, x: Array, drawn: Array) -> Interval:
    """Interval of a crossing from the nearest crossing in the same direction in each resample.

    A resample without such a crossing counts as infinity if its first order equals that before the crossing,
    and as zero otherwise.
    """
    left, right = before * drawn[:, :-1], before * drawn[:, 1:]
    crossing = (left > 0) & (right <= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.where(crossing, _zero(x[:-1], x[1:], left, right), np.inf)
    nearest = np.abs(places - place).argmin(1)
    chosen = places[np.arange(len(places)), nearest]
    missing = ~crossing.any(1)
    chosen[missing] = np.where(left[missing, 0] > 0, np.inf, -np.inf)
    low, high = central(chosen)
    return math.exp(low), math.exp(high)


def _extrapolated(x: Array, gaps: Array) -> float | None:
    """Zero of the line through the last two gaps, beyond the largest size and within MAX_EXTRAPOLATION."""
    if not 0 < abs(gaps[-1]) < abs(gaps[-2]):
        return None
    place = float(_zero(x[-2], x[-1], gaps[-2], gaps[-1]))
    return math.exp(place) if place <= x[-1] + math.log(MAX_EXTRAPOLATION) else None
