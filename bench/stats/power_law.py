"""How does a cost grow with resolution? Exponents, slow-downs and cross-overs with their intervals.

A cost is seconds, MACs or bytes of one image; a side is that of a square of as many pixels. Imports no torch.

Bootstrap intervals are 95 % and come from the timed samples: the median of every visit is resampled, and
what visits of one case differ by beyond that, pooled over all cases of a run, is added as noise of its own,
as Student's t with the degrees of freedom of that pool. Where nothing was visited twice that is not known,
and there are no intervals: samples of one visit hardly tell what the next one brings.
They say how well the machine let itself be measured; how well a straight line on log-log paper describes
the sizes is another matter: of that speak the residuals, as an interval where there is noise in them, and the
exponents from each size to the next. Counts have no noise, and a line that misses them no interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import geometric_mean
from typing import TYPE_CHECKING

from bench.stats import intervals as stats
from bench.stats import ratios

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

CONFIDENCE = 0.95
MIN_SAMPLES = 6  # of a size that was visited once; fewer give no interval
FARTHEST = 4.0  # sides beyond the largest that are still worth an extrapolation, as a multiple of it
_POOL_SEED = 2  # of what the pooled drift may be off by, apart from the seeds of the curves

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The cost of one image at one size."""

    side: float  # pixels, of a square of as many
    visits: tuple[tuple[float, ...], ...]  # samples of each visit; a count is one of one

    def __post_init__(self) -> None:
        if self.side <= 0 or not self.visits or not all(self.visits) or min(map(min, self.visits)) <= 0:
            raise ValueError(f"a point needs a side and costs above zero, got {self}")

    @property
    def cost(self) -> float:
        """The geometric mean of the visits' medians."""
        return geometric_mean([stats.median(visit) for visit in self.visits])

    @property
    def resamplable(self) -> bool:
        """Whether its median can be resampled: one visit needs samples enough."""
        return len(self.visits) > 1 or len(self.visits[0]) >= MIN_SAMPLES


def counted(side: float, cost: float) -> Point:
    """A cost that is known without noise."""
    return Point(side=side, visits=((cost,),))


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What visits of one case differ by, pooled over the cases of a run.

    It holds the noise of the medians too, so that intervals made with it are rather too wide.
    """

    sd: float  # standard deviation of log(cost)
    freedom: int  # its degrees of freedom: visits less cases

    def __post_init__(self) -> None:
        if self.sd < 0 or self.freedom < 1:
            raise ValueError(f"drift: needs sd >= 0 from a case that was visited twice, got {self}")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One cost at several sizes, from the smallest."""

    points: tuple[Point, ...]
    drift: Drift | None = None  # of the run; None: of counts, or not known
    exact: bool = False  # counts: there is no noise to speak of

    def __post_init__(self) -> None:
        sides = [point.side for point in self.points]
        if sides != sorted(set(sides)):
            raise ValueError(f"a curve needs one point for each side, in order, got {sides}")

    @property
    def sides(self) -> tuple[float, ...]:
        return tuple(point.side for point in self.points)

    @property
    def resamplable(self) -> bool:
        """Whether every point has an interval."""
        return not self.exact and self.drift is not None and all(point.resamplable for point in self.points)

    def among(self, sides: Sequence[float]) -> "Curve":
        """The curve at these sides only."""
        kept = tuple(point for point in self.points if point.side in sides)
        return Curve(points=kept, drift=self.drift, exact=self.exact)


def drift_of(points: Sequence[Point]) -> Drift | None:
    """What visits of these points differ by; None where none was visited twice."""
    squares, freedom = 0.0, 0
    for point in points:
        logs = [math.log(stats.median(visit)) for visit in point.visits]
        mean = sum(logs) / len(logs)
        squares += sum((log - mean) ** 2 for log in logs)
        freedom += len(logs) - 1
    return Drift(sd=math.sqrt(squares / freedom), freedom=freedom) if freedom else None


def draws(curve: Curve, seed: int) -> "NDArray[float64]":
    """Resampled log(cost) of a resamplable curve, one row a resample and one column a point; seeded.

    The drift is an estimate: a resample's is off by the same factor at every point of every curve, so that
    a sum of points that drift is spread as Student's t.
    """
    import numpy

    assert curve.drift is not None
    freedom = curve.drift.freedom
    off = numpy.sqrt(freedom / numpy.random.default_rng(_POOL_SEED).chisquare(freedom, ratios.RESAMPLES))
    draw = numpy.random.default_rng(seed)
    columns = []
    for point in curve.points:
        medians = [numpy.log(ratios.resampled_medians(visit, draw)) for visit in point.visits]
        noise = curve.drift.sd / math.sqrt(len(medians)) * draw.standard_normal(ratios.RESAMPLES)
        columns.append(sum(medians) / len(medians) + off * noise)
    return numpy.stack(columns, axis=1)


def _between(values: "NDArray[float64]") -> Interval:
    import numpy

    # order statistics, so that an end that lies beyond all sizes stays infinite
    low, high = numpy.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return float(low), float(high)


def intervals(curve: Curve) -> list[Interval | None]:
    """The interval of the cost at every size; None for counts, with too few samples or one visit of each."""
    import numpy

    if curve.exact or curve.drift is None or not curve.points:
        return [None] * len(curve.points)
    drawn = numpy.exp(draws(curve, 0))
    return [_between(drawn[:, i]) if point.resamplable else None for i, point in enumerate(curve.points)]


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """cost ~ side ** slope, fitted by least squares on logarithms; twice the exponent in pixels."""

    slope: float
    interval: Interval | None  # from the samples; None where the curve is not resamplable
    by_residuals: Interval | None  # noise and misfit together; None for counts, or with two sizes
    local: tuple[float, ...]  # the exponent from each size to the next
    misfit: float  # by what share the cost that is farthest from the line lies off it
    sides: tuple[float, ...]

    @property
    def per_doubling(self) -> float:
        """By how many times the cost grows when the side doubles, along the fitted line."""
        return 2**self.slope


def exponent(curve: Curve) -> Exponent | None:
    """Fit the exponent of a curve; None with fewer than two sizes."""
    if len(curve.points) < 2:
        return None
    x = [math.log(side) for side in curve.sides]
    y = [math.log(point.cost) for point in curve.points]
    middle = sum(x) / len(x)
    spread = sum((at - middle) ** 2 for at in x)
    weights = [(at - middle) / spread for at in x]
    slope = sum(w * at for w, at in zip(weights, y, strict=True))
    interval = None
    if curve.resamplable:
        interval = _between(draws(curve, 0) @ weights)
    level = sum(y) / len(y)
    left = [b - level - slope * (a - middle) for a, b in zip(x, y, strict=True)]
    by_residuals, freedom = None, len(x) - 2
    if freedom and not curve.exact:
        variance = sum(residual**2 for residual in left) / freedom
        reach = stats.student_t(freedom, CONFIDENCE) * math.sqrt(variance / spread)
        by_residuals = slope - reach, slope + reach
    return Exponent(
        slope=slope,
        interval=interval,
        by_residuals=by_residuals,
        local=tuple((y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)),
        misfit=max(abs(math.expm1(residual)) for residual in left),
        sides=curve.sides,
    )


@dataclass(frozen=True, kw_only=True)
class Growth:
    """By how many times a cost grows from one side to another."""

    from_side: float
    to_side: float
    ratio: float
    interval: Interval | None


def doublings(curve: Curve) -> list[Growth]:
    """The growth between any two sizes of which one has twice the other's side."""
    return [growth(curve, a, b) for a, b in doubled(curve.sides)]


def doubled(sides: Sequence[float]) -> list[tuple[float, float]]:
    """Any two sides of which the second is twice the first."""
    return [(a, b) for a in sides for b in sides if math.isclose(b, 2 * a, rel_tol=1e-6)]


def growth(curve: Curve, from_side: float, to_side: float) -> Growth:
    """The growth between two sizes of a curve."""
    ends = curve.among((from_side, to_side))
    low, high = ends.points
    interval = None
    if ends.resamplable:
        import numpy

        interval = _between(numpy.exp(_growths(ends, 0)))
    return Growth(from_side=from_side, to_side=to_side, ratio=high.cost / low.cost, interval=interval)


def cost_ratio(over: Point, under: Point, drift: Drift | None) -> tuple[float, Interval | None]:
    """The ratio of two costs that were sampled apart, with its interval as that of a curve.

    Args:
        over: the numerator.
        under: the denominator.
        drift: of the run; None where it is not known, so that there is no interval.
    """
    import numpy

    ratio = over.cost / under.cost
    curves = [Curve(points=(point,), drift=drift) for point in (over, under)]
    if not all(curve.resamplable for curve in curves):
        return ratio, None
    drawn = [draws(curve, seed)[:, 0] for seed, curve in enumerate(curves)]
    return ratio, _between(numpy.exp(drawn[0] - drawn[1]))


def _growths(ends: Curve, seed: int) -> "NDArray[float64]":
    drawn = draws(ends, seed)
    return drawn[:, 1] - drawn[:, 0]


def growth_ratio(a: Curve, b: Curve, from_side: float, to_side: float) -> tuple[float, Interval | None]:
    """How many times as much the cost of a grows as that of b between two sizes, with its interval."""
    import numpy

    ends_a, ends_b = a.among((from_side, to_side)), b.among((from_side, to_side))
    ratio = growth(a, from_side, to_side).ratio / growth(b, from_side, to_side).ratio
    if not (ends_a.resamplable and ends_b.resamplable):
        return ratio, None
    return ratio, _between(numpy.exp(_growths(ends_a, 0) - _growths(ends_b, 1)))


@dataclass(frozen=True, kw_only=True)
class CrossOver:
    """Where two costs are equal, interpolated between measured sizes on log-log paper.

    Ends of the interval are infinite where the sizes do not bound them. Without a crossing in the range,
    `side` is None, and `extrapolated` is where the last two sizes lead, if that is not far; never measured.
    """

    below: str  # first or second: the cheaper one below the crossing, or wherever they differ; or neither
    side: float | None = None
    interval: Interval | None = None
    certain: bool  # with a crossing: both ends lie in the range; without: one is surely cheaper everywhere
    extrapolated: float | None = None
    equal: tuple[float, ...] = ()  # sizes at which both cost the same to the last digit, as counts may


def cross_overs(first: Curve, second: Curve) -> list[CrossOver]:
    """Every crossing of two curves at the sizes that both have; one without a side if there is none.

    Curves that are equal at a size between two at which they differ the other way round cross there, and in
    the middle of several such sizes; where they meet without changing sides, or at an end, they do not cross.

    Raises:
        ValueError: they share fewer than two sizes.
    """
    import numpy

    shared = sorted(set(first.sides) & set(second.sides))
    if len(shared) < 2:
        raise ValueError(f"cross-over: needs two sizes that both curves have, got {shared}")
    first, second = first.among(shared), second.among(shared)
    x = numpy.log(shared)
    costs = numpy.array([[point.cost for point in curve.points] for curve in (first, second)])
    gaps = numpy.log(costs[0]) - numpy.log(costs[1])  # below zero where the first is cheaper
    drawn = None
    if first.resamplable and second.resamplable:
        drawn = draws(first, 0) - draws(second, 1)
    exact = first.exact and second.exact
    equal = tuple(side for side, gap in zip(shared, gaps, strict=True) if gap == 0)
    apart = [i for i in range(len(shared)) if gaps[i] != 0]
    if not apart:
        return [CrossOver(below="neither", certain=exact, equal=equal)]
    below = ["first" if gap < 0 else "second" for gap in gaps]
    turns = [(i, j) for i, j in pairwise(apart) if below[i] != below[j]]
    if not turns:
        # of exact counts the sign is sure; of times without an interval nothing is
        agree = drawn is not None and float(numpy.mean((drawn < 0).all(1) | (drawn > 0).all(1)))
        certain = exact if drawn is None else bool(agree >= CONFIDENCE)
        led = _extrapolated(x, gaps)
        return [CrossOver(below=below[apart[0]], certain=certain, extrapolated=led, equal=equal)]
    found = []
    for i, j in turns:
        place = float(_zero(x[i], x[j], gaps[i], gaps[j]) if j == i + 1 else (x[i + 1] + x[j - 1]) / 2)
        interval = None if drawn is None else _around(place, float(numpy.sign(gaps[i])), x, drawn)
        found.append(
            CrossOver(
                below=below[i],
                side=math.exp(place),
                interval=interval,
                certain=exact if interval is None else all(map(math.isfinite, interval)) and interval[0] > 0,
                equal=equal,
            )
        )
    return found


def _zero(
    x0: "NDArray[float64]", x1: "NDArray[float64]", y0: "NDArray[float64]", y1: "NDArray[float64]"
) -> "NDArray[float64]":
    """Where the line through two points is zero."""
    return x0 + (x1 - x0) * y0 / (y0 - y1)


def _around(place: float, before: float, x: "NDArray[float64]", drawn: "NDArray[float64]") -> Interval:
    """The interval of a crossing: in each resample, of those in its direction, the nearest to it.

    A resample that has none crosses beyond the largest size if it begins as the curves do before the
    crossing, and below the smallest otherwise.
    """
    import numpy

    left, right = before * drawn[:, :-1], before * drawn[:, 1:]
    crossing = (left > 0) & (right <= 0)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        places = numpy.where(crossing, _zero(x[:-1], x[1:], left, right), numpy.inf)
    nearest = numpy.abs(places - place).argmin(1)
    chosen = places[numpy.arange(len(places)), nearest]
    missing = ~crossing.any(1)
    chosen[missing] = numpy.where(left[missing, 0] > 0, numpy.inf, -numpy.inf)
    low, high = _between(chosen)
    return math.exp(low), math.exp(high)


def _extrapolated(x: "NDArray[float64]", gaps: "NDArray[float64]") -> float | None:
    """Where the line through the last two gaps is zero, beyond the largest size and not too far."""
    if not 0 < abs(gaps[-1]) < abs(gaps[-2]):
        return None
    place = float(_zero(x[-2], x[-1], gaps[-2], gaps[-1]))
    return math.exp(place) if place <= x[-1] + math.log(FARTHEST) else None
