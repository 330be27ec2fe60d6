"""Noise of simulated passes: each kind is named with its size, and quiet passes have none."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.records.throughput import TABLE
from bench.stats import noise as noises
from bench.stats.noise import spread
from bench.tables.render import texts
from tests.records.examples import THROUGHPUT

Draw = Callable[[random.Random], float]


def noise(times_s: list[float], clocks_mhz: tuple[float, ...] | list[float] = ()) -> tuple[str, ...]:
    """Of one process."""
    return noises.noise([times_s], clocks_mhz)


def series(n: int, draw: Draw, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [draw(source) for _ in range(n)]


def normal(size: float) -> Draw:
    return lambda source: 1 + source.gauss(0, size)


@pytest.mark.parametrize(
    ("n", "runs", "allowed"), [(10, 500, 5), (12, 500, 5), (20, 500, 5), (50, 200, 1), (500, 40, 0)]
)
@pytest.mark.parametrize(
    "draw",
    [normal(0.01), normal(0.05), lambda source: source.lognormvariate(0, 0.05)],
    ids=["normal 1 %", "normal 5 %", "lognormal 5 %"],
)
def test_white_noise_is_named_in_less_than_1_percent_of_series(
    n: int, runs: int, allowed: int, draw: Draw
) -> None:
    assert sum(bool(noise(series(n, draw, seed))) for seed in range(runs)) <= allowed


def test_evenly_spread_passes_are_not_two_modes() -> None:
    assert sum(bool(noise(series(200, lambda source: 1 + 0.1 * source.random(), s))) for s in range(50)) == 0


def test_a_drift_is_named_with_its_size() -> None:
    slower = [(1 + 0.06 * i / 60) * time for i, time in enumerate(series(60, normal(0.005)))]
    (name,) = noise(slower)
    assert name.startswith("drift +4.")
    (name,) = noise(slower[::-1])
    assert name.startswith("drift -4.")
    assert noise([100.0 + i for i in range(30)]) == ("drift +19.1 %",)  # from 104.5 to 124.5


def test_a_drift_too_small_to_matter_is_not_named() -> None:
    assert noise([1 + 0.001 * i / 1000 for i in range(1000)]) == ()


def test_two_regimes_are_named_with_times_and_shares() -> None:
    one = [1.0, 1.0, 1.22, 1.0, 1.0, 1.22, 1.0, 1.0, 1.0, 1.22]
    assert noise(one) == ("two regimes: 1000 ms (70 %), 1220 ms (30 %)",)
    other = [0.122, 0.1, 0.122, 0.122, 0.122, 0.1, 0.122, 0.122, 0.1, 0.122]
    assert noise(other) == ("two regimes: 122 ms (70 %), 100 ms (30 %)",)

    def two(source: random.Random) -> float:
        return (1.22 if source.random() < 0.3 else 1) * (1 + source.gauss(0, 0.02))

    for seed in range(20):
        (name,) = noise(series(100, two, seed))
        assert name.startswith("two regimes: ")


def test_outliers_are_counted() -> None:
    times = series(50, normal(0.01))
    times[7] = times[30] = 1.8
    times[11] = 0.5
    assert noise(times) == ("3 outliers",)
    assert noise([*[1.0] * 11, 2.0]) == ("1 outlier",)


def test_passes_without_any_noise_are_quiet() -> None:
    assert noise([0.1] * 100) == ()


def test_fewer_than_ten_passes_show_nothing() -> None:
    assert noise([1.0, 2.0] * 4) == ()


def test_a_clock_that_drops_below_three_quarters_is_named() -> None:
    assert noise([1.0] * 10, [1980.0, 1208.0, 1900.0]) == ("clock down to 61 %",)
    assert noise([1.0], [1980.0, 1208.0]) == ("clock down to 61 %",)
    assert noise([1.0] * 10, [1980.0, 1500.0]) == ()


def test_noise_column_appears_with_noisy_records_only() -> None:
    noisy = replace(THROUGHPUT, times_s=(*[1.0] * 11, 2.0))
    assert "noise" not in texts(TABLE, [THROUGHPUT])[0]
    header, cells = texts(TABLE, [THROUGHPUT, noisy])
    column = header.index("noise")
    assert [line[column] for line in cells] == ["-", "1 outlier"]


def test_fewer_than_two_passes_have_no_spread() -> None:
    assert [spread(times_s) for times_s in ((), (1.0,), (0.0, 0.0), (1.0, 2.0, 1.0))] == [
        None,
        None,
        None,
        1.0,
    ]
