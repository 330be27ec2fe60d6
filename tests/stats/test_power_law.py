"""Power laws: known exponents and cross-overs, and the coverage of their intervals."""

import math
import random
from dataclasses import replace

import pytest

from bench.analysis.scaling.resolution import side_of
from bench.stats import power_law
from bench.stats.cross_overs import cross_overs
from bench.stats.power_law import Curve, Drift, Point, counted, exponent

SIDES = (128.0, 256.0, 512.0, 1024.0)


def curve(slope: float, *, at: float = 1.0, noise: float = 0.02, drift: float = 0.0, seed: int = 0) -> Curve:
    """Two visits of fifteen samples at every side of a cost that is 1 at one side."""
    draw = random.Random(seed)
    points = []
    for side in SIDES:
        visits = []
        for _ in range(2):
            level = (side / at) ** slope * math.exp(draw.gauss(0, drift))
            visits.append(tuple(level * math.exp(draw.gauss(0, noise)) for _ in range(15)))
        points.append(Point(side=side, visits=tuple(visits)))
    return Curve(points=tuple(points), drift=power_law.drift_of(points))


def inside(value: float, interval: power_law.Interval | None) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


# exponents


def test_the_exponent_of_a_power_law_is_found() -> None:
    exact = Curve(points=tuple(counted(side, 3 * side**2.5) for side in SIDES), exact=True)
    fit = exponent(exact)
    assert fit is not None
    assert fit.slope == pytest.approx(2.5)
    assert fit.per_doubling == pytest.approx(2**2.5)
    assert fit.interval is None
    assert fit.by_residuals is None
    assert fit.local == pytest.approx((2.5,) * 3)
    assert fit.misfit == pytest.approx(0)


def test_a_nonlinear_count_has_local_exponents_and_no_interval() -> None:
    bent = of_counts(*(side + side**2 / 200 for side in SIDES))
    fit = exponent(bent)
    assert fit is not None
    assert (fit.interval, fit.by_residuals) == (None, None)
    assert list(fit.local) == sorted(fit.local)
    assert fit.local[0] < fit.slope < fit.local[-1]
    assert 0.01 < fit.misfit < 0.2


@pytest.mark.parametrize(("noise", "drift"), [(0.01, 0.0), (0.1, 0.0), (0.02, 0.05)])
def test_intervals_cover_a_known_exponent_at_their_nominal_rate(noise: float, drift: float) -> None:
    fits = [exponent(curve(2.1, noise=noise, drift=drift, seed=seed)) for seed in range(60)]
    assert sum(inside(2.1, fit.interval) for fit in fits if fit) >= 50
    assert sum(inside(2.1, fit.by_residuals) for fit in fits if fit) >= 50


def test_intervals_of_two_sizes_cover_at_their_nominal_rate() -> None:
    covered = 0
    for seed in range(150):
        two = curve(2.1, drift=0.1, seed=seed).points[:2]
        fit = exponent(Curve(points=two, drift=power_law.drift_of(two)))
        assert fit is not None
        covered += inside(2.1, fit.interval)
    assert covered >= 135  # of 150; with a normal instead of Student's t: 127


def test_one_visit_of_each_size_gives_no_interval() -> None:
    points = tuple(replace(point, visits=point.visits[:1]) for point in curve(2).points)
    once = Curve(points=points, drift=power_law.drift_of(points))
    assert power_law.drift_of(points) is None
    assert power_law.intervals(once) == [None] * len(SIDES)
    fit = exponent(once)
    assert fit is not None
    assert fit.interval is None


def test_visits_that_differ_widen_the_interval() -> None:
    quiet, drifting = exponent(curve(2)), exponent(curve(2, drift=0.1))
    assert quiet is not None
    assert drifting is not None
    assert quiet.interval is not None
    assert drifting.interval is not None
    assert drifting.interval[1] - drifting.interval[0] > 3 * (quiet.interval[1] - quiet.interval[0])


def test_residuals_show_a_nonlinear_curve_where_samples_do_not() -> None:
    points = tuple(Point(side=s, visits=((s + s**2 / 200,) * 20,) * 2) for s in SIDES)
    bent = Curve(points=points, drift=power_law.drift_of(points))
    fit = exponent(bent)
    assert fit is not None
    assert fit.interval is not None
    assert fit.by_residuals is not None
    assert fit.interval[1] - fit.interval[0] < 1e-6
    assert fit.by_residuals[1] - fit.by_residuals[0] > 0.1


def test_one_size_has_no_exponent_and_few_samples_no_interval() -> None:
    few = Curve(
        points=tuple(Point(side=s, visits=((s, s * 1.01),)) for s in SIDES[:2]),
        drift=Drift(sd=0.01, freedom=4),
    )
    assert exponent(few.among(SIDES[:1])) is None
    fit = exponent(few)
    assert fit is not None
    assert (fit.interval, fit.by_residuals) == (None, None)


def test_a_doubling_is_found_between_non_square_sizes_too() -> None:
    sides = [side_of(res) for res in ((128, 256), 256, (256, 512))]
    costs = Curve(points=tuple(counted(side, side**2) for side in sides), exact=True)
    (growth,) = power_law.doublings(costs)
    assert (growth.from_side, growth.to_side) == (sides[0], sides[2])
    assert growth.ratio == pytest.approx(4)


def test_the_same_curves_give_the_same_intervals() -> None:
    assert exponent(curve(2)) == exponent(curve(2))


# cross-overs


def test_a_known_cross_over_is_found_within_its_interval() -> None:
    found = 0
    for seed in range(30):
        (crossing,) = cross_overs(curve(2.2, at=300, seed=seed), curve(1.8, at=300, seed=100 + seed))
        assert crossing.below == "first"
        assert crossing.certain
        found += inside(300, crossing.interval)
    assert found >= 26


def test_curves_without_a_crossing_are_extrapolated() -> None:
    (distant,) = cross_overs(curve(2), curve(2, at=50, seed=1))
    assert (distant.side, distant.certain, distant.extrapolated) == (None, True, None)
    (later,) = cross_overs(curve(2.2, at=2000), curve(1.8, at=2000, seed=1))
    assert later.side is None
    assert later.extrapolated == pytest.approx(2000, rel=0.1)
    (far,) = cross_overs(curve(2.2, at=50_000), curve(1.8, at=50_000, seed=1))
    assert far.extrapolated is None


def test_curves_that_are_too_close_are_uncertain() -> None:
    for crossing in cross_overs(curve(2), curve(2.001, seed=1)):
        assert not crossing.certain


def of_counts(*costs: float) -> Curve:
    return Curve(
        points=tuple(counted(side, cost) for side, cost in zip(SIDES, costs, strict=False)), exact=True
    )


def test_equal_counts_have_no_smaller_one() -> None:
    (found,) = cross_overs(of_counts(3, 12, 48), of_counts(3, 12, 48))
    assert (found.below, found.side, found.extrapolated) == ("neither", None, None)
    assert found.equal == SIDES[:3]


@pytest.mark.parametrize(
    ("costs", "below", "side", "equal"),
    [
        ((2, 4, 9), "first", 256, (256,)),
        ((2, 4, 8, 17), "first", math.sqrt(256 * 512), (256, 512)),
        ((2, 4, 7), "first", None, (256,)),
        ((3, 4, 9), "second", None, (128, 256)),
        ((2, 3, 8), "first", None, (512,)),
    ],
    ids=["at a size", "over two sizes", "touching", "parting", "meeting at the end"],
)
def test_equal_costs_are_a_crossing_if_the_order_changes(
    costs: tuple[float, ...], below: str, side: float | None, equal: tuple[float, ...]
) -> None:
    (found,) = cross_overs(of_counts(*costs), of_counts(3, 4, 8, 16))
    assert (found.below, found.equal, found.extrapolated) == (below, equal, None)
    assert found.side == (None if side is None else pytest.approx(side))
