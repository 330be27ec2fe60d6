"""Where two costs are equal: crossings of two curves, interpolated between measured sizes on log-log axes."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.stats.power_law import CONFIDENCE, Array, Curve, Interval, central, draws

MAX_EXTRAPOLATION = 4.0  # the largest side worth extrapolating to, as a multiple of the largest measured one


@dataclass(frozen=True, kw_only=True)
class CrossOver:
    """One crossing of two curves, or the statement that there is none.

    Ends of the interval are infinite where the measured sizes do not bound them. Without a crossing in the
    range, `side` is None, and `extrapolated` is where the line through the last two sizes leads, if that is
    not far.
    """

    below: str  # first or second: the cheaper one below the crossing, or wherever they differ; or neither
    side: float | None = None
    interval: Interval | None = None
    certain: bool  # with a crossing: both ends lie in the range; without: one is surely cheaper everywhere
    extrapolated: float | None = None
    equal: tuple[float, ...] = ()  # sizes at which both cost exactly the same, as counts may


def cross_overs(first: Curve, second: Curve) -> list[CrossOver]:
    """Every crossing of two curves at the sizes that both have; one without a side if there is none.

    Curves that are equal at one size, or at several neighbouring sizes, cross in the middle of these if their
    order changes there. Where they touch without changing order, or meet at an end, they do not cross.

    Raises:
        ValueError: they share fewer than two sizes.
    """
    shared = sorted(set(first.sides) & set(second.sides))
    if len(shared) < 2:
        raise ValueError(f"cross-over: needs two sizes that both curves have, got {shared}")
    first, second = first.among(shared), second.among(shared)
    x = np.log(shared)
    costs = np.array([[point.cost for point in curve.points] for curve in (first, second)])
    gaps = np.log(costs[0]) - np.log(costs[1])  # below zero where the first is cheaper
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
        # the sign of exact counts is sure; without an interval, that of times is not
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
    """Where the line through two points is zero."""
    return x0 + (x1 - x0) * y0 / (y0 - y1)


def _interval(place: float, before: float, x: Array, drawn: Array) -> Interval:
    """The interval of a crossing: in each resample, the nearest crossing in the same direction.

    A resample without one crosses beyond the largest size if it begins in the order that the curves have
    before the crossing, and below the smallest size otherwise.
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
    """Where the line through the last two gaps is zero, beyond the largest size and not too far."""
    if not 0 < abs(gaps[-1]) < abs(gaps[-2]):
        return None
    place = float(_zero(x[-2], x[-1], gaps[-2], gaps[-1]))
    return math.exp(place) if place <= x[-1] + math.log(MAX_EXTRAPOLATION) else None
