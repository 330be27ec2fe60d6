"""The timing loop, driven by a clock that only the timed calls move."""

import random
from collections.abc import Callable, Iterable, Iterator

import pytest

from bench.measure import timing
from bench.measure.timing import Policy, Samples, WarmUp
from bench.stats import intervals, series


class Simulated:
    """A clock; each call takes the next of the given durations, the last one for ever."""

    def __init__(self, durations: Iterable[float]) -> None:
        self.now = 0.0
        self.calls = 0
        self.synchronised = 0
        self._durations: Iterator[float] = iter(durations)
        self._last = 0.0

    def call(self) -> None:
        self._last = next(self._durations, self._last)
        self.now += self._last
        self.calls += 1

    def synchronise(self) -> None:
        self.synchronised += 1

    def time(self, policy: Policy, device_timer: timing.DeviceTimer | None = None) -> tuple[WarmUp, Samples]:
        warm = timing.warm_up(self.call, policy, clock=lambda: self.now, synchronise=self.synchronise)
        return warm, timing.sample(
            self.call,
            policy,
            spent_s=self.now,
            clock=lambda: self.now,
            synchronise=self.synchronise,
            device_timer=device_timer,
        )


def test_steady_passes_stop_once_the_median_is_known() -> None:
    device = Simulated([0.1])
    warm, timed = device.time(Policy(budget_s=100))
    assert timed.stopped_by == "precision"
    assert timed.unmet == ()
    assert warm.stationary
    assert len(timed.wall_s) == 10
    assert device.calls == len(warm.wall_s) + len(timed.wall_s)


def test_warm_up_goes_on_until_passes_stop_getting_faster() -> None:
    durations = [2.0, 1.5, 1.2, 1.1, 1.05, *[1.0] * 100]
    warm, timed = Simulated(durations).time(Policy(budget_s=300))
    assert warm.stationary
    assert len(warm.wall_s) > 5
    assert set(timed.wall_s) == {1.0}


def test_fast_passes_are_sampled_for_half_a_second_at_least() -> None:
    warm, timed = Simulated([0.001]).time(Policy(budget_s=100))
    assert sum(timed.wall_s) >= 0.5
    assert sum(warm.wall_s) >= 0.5


def test_noisy_passes_stop_at_the_budget_with_the_unmet_goal() -> None:
    warm, timed = Simulated([1.0, 1.5] * 1000).time(Policy(budget_s=60))
    assert timed.stopped_by == "budget"
    assert timed.unmet == ("95 % interval within 1 % of the median",)
    assert sum(warm.wall_s) + sum(timed.wall_s) <= 60
    assert sum(warm.wall_s) <= 20


def test_pass_longer_than_the_budget_is_warmed_up_and_timed_once() -> None:
    device = Simulated([30.0])
    _warm, timed = device.time(Policy(budget_s=10))
    assert device.calls == 2
    assert timed.wall_s == (30.0,)
    assert timed.stopped_by == "budget"
    assert "at least 10 samples" in timed.unmet


def test_every_pass_is_synchronised_before_and_after() -> None:
    device = Simulated([0.1])
    device.time(Policy(budget_s=100))
    assert device.synchronised == 2 * device.calls


def test_device_events_are_read_beside_the_wall_clock() -> None:
    device = Simulated([0.1])

    def timer(call: Callable[[], object]) -> Callable[[], float]:
        call()
        return lambda: 0.09

    _warm, timed = device.time(Policy(budget_s=100), timer)
    assert timed.device_s == (0.09,) * len(timed.wall_s)
    assert timed.wall_s == pytest.approx([0.1] * 10)


@pytest.mark.parametrize(("n", "low", "high"), [(7, 0, 6), (11, 1, 9), (21, 5, 15), (101, 40, 60)])
def test_the_interval_of_the_median_is_that_of_the_sign_test(n: int, low: int, high: int) -> None:
    alternating = [i * (n // 2) % n for i in range(n)]  # every rank once, no correlated neighbours
    assert series.median_interval(alternating) == (low, high)  # ranks of the binomial tables, from 0


def test_too_few_samples_have_no_interval() -> None:
    assert series.median_interval([1.0] * 5) is None


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(1000):
        interval = series.median_interval([draw.expovariate(1) for _ in range(15)])
        assert interval is not None
        hits += interval[0] <= 0.6931 <= interval[1]
    assert hits >= 940


def test_quantiles_interpolate() -> None:
    assert intervals.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert intervals.quantile([0.0, 10.0], 0.9) == pytest.approx(9.0)
