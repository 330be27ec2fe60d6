"""Noise that is put into simulated passes is named with its size, and none is named without."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.cli.settings import columns, row
from bench.stats.noise import noise, spread
from tests.records.test_record import TIMED

Draw = Callable[[random.Random], float]


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
def test_white_noise_is_named_in_fewer_than_one_series_of_a_hundred(
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


def test_two_modes_are_named_with_the_share_of_the_smaller_and_its_place() -> None:
    assert noise([1.0, 1.0, 1.22, 1.0, 1.0, 1.22, 1.0, 1.0, 1.0, 1.22]) == ("bimodal 30 % at +22 %",)
    assert noise([1.22, 1.0, 1.22, 1.22, 1.22, 1.0, 1.22, 1.22, 1.0, 1.22]) == ("bimodal 30 % at -18 %",)

    def two(source: random.Random) -> float:
        return (1.22 if source.random() < 0.3 else 1) * (1 + source.gauss(0, 0.02))

    for seed in range(20):
        (name,) = noise(series(100, two, seed))
        assert name.startswith("bimodal ")


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


def test_throughput_rows_have_the_noise_and_a_column_where_there_is_some() -> None:
    quiet, noisy = row(TIMED), row(replace(TIMED, times_s=(*[1.0] * 11, 2.0)))
    assert quiet["noise"] == []
    assert noisy["noise"] == ["1 outlier"]
    assert "noise" not in [heading for heading, _ in columns([quiet], [])]
    heading, write = columns([quiet, noisy], [])[-1]
    assert (heading, write(quiet), write(noisy)) == ("noise", "-", "1 outlier")


def test_fewer_than_two_passes_have_no_spread() -> None:
    assert [spread(times_s) for times_s in ((), (1.0,), (0.0, 0.0), (1.0, 2.0, 1.0))] == [
        None,
        None,
        None,
        1.0,
    ]
