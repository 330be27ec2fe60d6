"""Costs as powers of the image side: exponents and growth ratios, with 95 % bootstrap intervals.

A cost is seconds, MACs or bytes of one image. A side is that of a square with the same number of pixels.

Two kinds of interval. The bootstrap interval describes the measurement noise: it resamples the median of
every visit and adds the difference between visits of one case, pooled over a run, as noise that follows
Student's t; it needs a second visit. The interval from residuals, and the exponents from size to size,
describe the fit of the power law. Counts have no noise, and therefore no interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import geometric_mean

import numpy as np
from numpy.typing import NDArray

from bench.stats import intervals as stats

CONFIDENCE = 0.95
RESAMPLES = 20_000
MIN_SAMPLES = 6  # of a size with one visit; fewer give no interval
_POOL_SEED = 2  # for the error of the pooled drift; differs from the seeds of the curves

Interval = tuple[float, float]
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The cost of one image at one size."""

    side: float  # sqrt(pixels)
    visits: tuple[tuple[float, ...], ...]  # samples above 0 of each visit; a count is one visit of one sample

    @property
    def cost(self) -> float:
        return geometric_mean([stats.median(visit) for visit in self.visits])

    @property
    def is_resamplable(self) -> bool:
        """Whether its median can be resampled: a single visit needs enough samples."""
        return len(self.visits) > 1 or len(self.visits[0]) >= MIN_SAMPLES


def counted(side: float, cost: float) -> Point:
    return Point(side=side, visits=((cost,),))


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The difference between visits of one case, pooled over a run, with the noise of the medians."""

    sd: float  # standard deviation of log(cost)
    freedom: int  # its degrees of freedom: visits minus cases


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One cost at several sizes, from the smallest, one point for each side."""

    points: tuple[Point, ...]
    drift: Drift | None = None  # of the run; None for counts, or if unknown
    exact: bool = False  # counts

    @property
    def sides(self) -> tuple[float, ...]:
        return tuple(point.side for point in self.points)

    @property
    def is_resamplable(self) -> bool:
        """Whether every point has an interval."""
        return (
            not self.exact and self.drift is not None and all(point.is_resamplable for point in self.points)
        )

    def among(self, sides: Sequence[float]) -> "Curve":
        kept = tuple(point for point in self.points if point.side in sides)
        return Curve(points=kept, drift=self.drift, exact=self.exact)


def drift_of(points: Sequence[Point]) -> Drift | None:
    """Pool the drift between visits of these points; None if no point has two visits."""
    squares, freedom = 0.0, 0
    for point in points:
        logs = [math.log(stats.median(visit)) for visit in point.visits]
        mean = sum(logs) / len(logs)
        squares += sum((log - mean) ** 2 for log in logs)
        freedom += len(logs) - 1
    return Drift(sd=math.sqrt(squares / freedom), freedom=freedom) if freedom else None


def resampled_medians(values: Sequence[float], generator: np.random.Generator) -> Array:
    """Medians of `RESAMPLES` resamples with replacement.

    The rank of a resample's k-th smallest value follows the k-th smallest of n uniform numbers, which has a
    beta distribution. Only this rank is drawn, so the cost does not grow with n.
    """
    ordered = np.sort(values)
    n = len(ordered)
    k = (n + 1) // 2
    middle = generator.beta(k, n - k + 1, RESAMPLES)
    if n % 2:
        return ordered[_rank(middle, n)]
    # the smallest of the n - k larger ones
    above = 1 - (1 - middle) * generator.random(RESAMPLES) ** (1 / (n - k))
    return (ordered[_rank(middle, n)] + ordered[_rank(above, n)]) / 2


def _rank(uniform: Array, n: int) -> NDArray[np.int64]:
    return (uniform * n).astype(int).clip(max=n - 1)


@lru_cache(maxsize=64)  # 10 to 40 MB
def draws(curve: Curve, seed: int) -> Array:
    """Resampled log(cost) of a resamplable curve: (resamples, points); seeded.

    The drift is an estimate: each resample scales it by one random factor at every point of every curve, so
    that sums of drifting points follow Student's t.
    """
    assert curve.drift is not None
    scale = _scales(curve.drift.freedom)
    rng = np.random.default_rng(seed)
    columns = []
    for point in curve.points:
        medians = [np.log(resampled_medians(visit, rng)) for visit in point.visits]
        noise = curve.drift.sd / math.sqrt(len(medians)) * rng.standard_normal(RESAMPLES)
        columns.append(sum(medians) / len(medians) + scale * noise)
    drawn = np.stack(columns, axis=1)
    drawn.flags.writeable = False
    return drawn


@cache
def _scales(freedom: int) -> Array:
    """The factor of the drift in every resample."""
    scales: Array = np.sqrt(freedom / np.random.default_rng(_POOL_SEED).chisquare(freedom, RESAMPLES))
    return scales


def central(values: Array) -> Interval:
    """The central 95 % of resampled values, as order statistics: an infinite end stays infinite."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return float(low), float(high)


def intervals(curve: Curve) -> list[Interval | None]:
    """Interval of the cost at every size; None for counts, too few samples, or one visit of each size."""
    if curve.exact or curve.drift is None or not curve.points:
        return [None] * len(curve.points)
    drawn = np.exp(draws(curve, 0))
    return [central(drawn[:, i]) if point.is_resamplable else None for i, point in enumerate(curve.points)]


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """cost ~ side ** slope, fitted by least squares on logarithms; twice the exponent in pixels."""

    slope: float
    interval: Interval | None  # from the samples; None if the curve is not resamplable
    by_residuals: Interval | None  # from noise and misfit; None for counts, or with two sizes
    local: tuple[float, ...]  # the exponent from each size to the next
    misfit: float  # the largest distance of a cost from the fitted line, as a share
    sides: tuple[float, ...]

    @property
    def per_doubling(self) -> float:
        return 2**self.slope


def exponent(curve: Curve) -> Exponent | None:
    """Fit the exponent of a curve; None with fewer than two sizes."""
    if len(curve.points) < 2:
        return None
    x, y = np.log(curve.sides), np.log([point.cost for point in curve.points])
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ y)
    residuals = y - y.mean() - slope * centred
    by_residuals, freedom = None, len(x) - 2
    if freedom and not curve.exact:
        error = math.sqrt(residuals @ residuals / freedom / (centred @ centred))
        half_width = stats.student_t(freedom, CONFIDENCE) * error
        by_residuals = slope - half_width, slope + half_width
    return Exponent(
        slope=slope,
        interval=central(draws(curve, 0) @ weights) if curve.is_resamplable else None,
        by_residuals=by_residuals,
        local=tuple((np.diff(y) / np.diff(x)).tolist()),
        misfit=float(np.abs(np.expm1(residuals)).max()),
        sides=curve.sides,
    )


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The growth factor of a cost from one side to another."""

    from_side: float
    to_side: float
    ratio: float
    interval: Interval | None


def doublings(curve: Curve) -> list[Growth]:
    """Growth between every two sizes whose sides differ by a factor of two."""
    return [growth(curve, a, b) for a, b in doubled(curve.sides)]


def doubled(sides: Sequence[float]) -> list[tuple[float, float]]:
    return [(a, b) for a in sides for b in sides if math.isclose(b, 2 * a, rel_tol=1e-6)]


def growth(curve: Curve, from_side: float, to_side: float) -> Growth:
    """The growth between two sizes of a curve."""
    ends = curve.among((from_side, to_side))
    low, high = ends.points
    interval = central(np.exp(_log_growths(ends, 0))) if ends.is_resamplable else None
    return Growth(from_side=from_side, to_side=to_side, ratio=high.cost / low.cost, interval=interval)


def _log_growths(ends: Curve, seed: int) -> Array:
    drawn = draws(ends, seed)
    return drawn[:, 1] - drawn[:, 0]


def cost_ratio(over: Point, under: Point, drift: Drift | None) -> tuple[float, Interval | None]:
    """Ratio of two separately sampled costs, with its interval; none for an unknown drift."""
    ratio = over.cost / under.cost
    curves = [Curve(points=(point,), drift=drift) for point in (over, under)]
    if not all(curve.is_resamplable for curve in curves):
        return ratio, None
    drawn = [draws(curve, seed)[:, 0] for seed, curve in enumerate(curves)]
    return ratio, central(np.exp(drawn[0] - drawn[1]))


def growth_ratio(a: Curve, b: Curve, from_side: float, to_side: float) -> tuple[float, Interval | None]:
    """Growth of cost a between two sizes divided by the growth of cost b, with its interval."""
    ends_a, ends_b = a.among((from_side, to_side)), b.among((from_side, to_side))
    ratio = growth(a, from_side, to_side).ratio / growth(b, from_side, to_side).ratio
    if not (ends_a.is_resamplable and ends_b.is_resamplable):
        return ratio, None
    return ratio, central(np.exp(_log_growths(ends_a, 0) - _log_growths(ends_b, 1)))
