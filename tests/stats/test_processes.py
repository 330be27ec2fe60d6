"""Intervals over processes: simulated runs, and the stored repeated runs of one machine."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean, variance

import pytest

from baselines import load
from bench.records.throughput import Throughput, TimedPasses, merged
from bench.stats import processes, ratios
from bench.stats.series import effective_size, median_interval, standard_error
from bench.store.codec import case_key, read
from tests.records.examples import THROUGHPUT


def correlated(n: int, correlation: float, seed: int) -> list[float]:
    """Normal samples of a first-order autoregressive series, about 1 with a spread of a few per cent."""
    draw, now, found = random.Random(seed), 0.0, []
    for _ in range(n + 50):
        now = correlation * now + draw.gauss(0, 0.01)
        found.append(1 + now)
    return found[50:]


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_intervals_of_correlated_series_hold_the_median(correlation: float) -> None:
    found = [median_interval(correlated(60, correlation, seed)) for seed in range(300)]
    assert sum(low <= 1 <= high for low, high in filter(None, found)) >= 0.92 * 300


def test_effective_size_falls_with_correlation() -> None:
    sizes = [fmean(effective_size(correlated(200, r, s)) for s in range(20)) for r in (0.0, 0.5, 0.9)]
    assert sizes[0] > 150 > sizes[1] > 40 > sizes[2] > 3
    assert effective_size([1.0] * 50) == 50
    assert [effective_size(samples) for samples in ((), (1.0,), (1.0, 2.0))] == [0, 1, 2]


def test_standard_error_is_that_of_a_median() -> None:
    errors = [standard_error(correlated(40, 0.0, seed)) for seed in range(200)]
    assert fmean(errors) == pytest.approx(0.01 * math.sqrt(math.pi / 2 / 40), rel=0.2)
    assert [standard_error(samples) for samples in ((), (1.0,))] == [0, 0]


def of_processes(draw: random.Random, n: int, sd: float = 0.05) -> list[list[float]]:
    return [[level * (1 + draw.gauss(0, 0.01)) for _ in range(12)] for level in levels(draw, n, sd)]


def levels(draw: random.Random, n: int, sd: float) -> list[float]:
    return [math.exp(draw.gauss(0, sd)) for _ in range(n)]


def test_intervals_over_processes_hold_the_true_median() -> None:
    draw = random.Random(1)
    for n in (2, 3, 5):
        found = [processes.interval(of_processes(draw, n)) for _ in range(200)]
        assert sum(low <= 1 <= high for low, high in filter(None, found)) >= 0.92 * 200


@pytest.mark.parametrize("counts", [(1, 1), (1, 3), (3, 3), (5, 2)])
@pytest.mark.parametrize("sd", [0.0, 0.05])
def test_equal_runs_differ_in_at_most_1_of_20(counts: tuple[int, int], sd: float) -> None:
    draw = random.Random(2)
    found = [
        processes.ratio_interval(*(of_processes(draw, n, sd) for n in counts), process_sd=0.05)
        for _ in range(400)
    ]
    differ = [ratios.verdict(interval, 0.02) in (ratios.FASTER, ratios.SLOWER) for interval in found]
    assert sum(differ) <= 20


def timed(*times_s: float) -> Throughput:
    return replace(THROUGHPUT, times_s=times_s)


def test_one_process_is_labelled_and_others_widen_it() -> None:
    assert THROUGHPUT.interval_covers == "within one process"
    slow = [time * 1.2 for time in THROUGHPUT.times_s]
    three = merged([THROUGHPUT, timed(*slow), THROUGHPUT], 3)
    assert three.interval_covers == "3 processes"
    assert three.by_process_s[1] == pytest.approx(slow)
    assert three.images_per_s == pytest.approx(THROUGHPUT.images_per_s / 1.2 ** (1 / 3))
    alone, together = THROUGHPUT.images_per_s_interval, three.images_per_s_interval
    assert alone is not None
    assert together is not None
    assert together[0] < alone[0] / 1.2


def test_two_regimes_are_named_with_their_values() -> None:
    fast, slow = timed(0.1, 0.101, 0.1, 0.102, 0.1, 0.1), timed(0.13, 0.131, 0.13, 0.132, 0.13, 0.13)
    assert merged([fast, slow, fast], 3).noise == ("two regimes: 100 ms (67 %), 130 ms (33 %)",)


def test_starts_that_leave_a_process_no_sample_are_refused() -> None:
    for starts in ((0,), (6,), (3, 3), (4, 2)):
        with pytest.raises(ValueError, match="processes: need samples of each"):
            processes.check(starts, 6)
    processes.check((2, 4), 6)


# the stored runs


def stored() -> Iterator[dict[str, list[TimedPasses]]]:
    """For every case, its records by hour: of one file of one machine, and at most 15 minutes apart."""
    found: dict[str, dict[str, list[TimedPasses]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(load.MEASURED.glob("**/2026-11-21*.jsonl")):
        for record in read(path).records:
            if isinstance(record, TimedPasses) and len(record.times_s) > 5:
                hour = f"{path.stem} {record.environment.date[:13]}"
                found[f"{record.environment.device} {_case(record)}"][hour].append(record)
    yield from found.values()


def _case(record: TimedPasses) -> str:
    """Case without its visit: the visits of a scaling study are processes of one hour."""
    case = record.case
    return (
        f"{case.work} {case.label.partition(', from batch')[0]}" if hasattr(case, "visit") else case_key(case)
    )


def test_intervals_of_one_hour_hold_medians_of_another() -> None:
    held = total = 0
    for hours in stored():
        for hour, records in hours.items():
            if len(records) < 2:
                continue
            times = [record.times_s for record in records]
            interval = processes.interval(times, hour_sd=processes.HOUR_SD["cpu"])
            assert interval is not None
            for other, visits in hours.items():
                if other != hour:
                    median = processes.middle([visit.times_s for visit in visits])
                    held += interval[0] <= median <= interval[1]
                    total += 1
    assert total > 150
    assert held >= 0.85 * total, (held, total)


def test_known_spreads_are_those_of_the_stored_runs() -> None:
    within: list[list[float]] = []
    between: list[list[float]] = []
    for hours in stored():
        logs = [[math.log(record.median_s) for record in records] for records in hours.values()]
        within += [of for of in logs if len(of) > 1]
        if len(logs) > 1:
            between.append([fmean(of) for of in logs])
    squares = [(variance(of) * (len(of) - 1), len(of) - 1) for of in within]
    process = sum(s for s, _ in squares) / sum(n for _, n in squares)
    means = sum(variance(of) * (len(of) - 1) for of in between) / sum(len(of) - 1 for of in between)
    assert math.sqrt(process) == pytest.approx(processes.PROCESS_SD, abs=0.01)
    assert math.sqrt(means - process / 2) == pytest.approx(processes.HOUR_SD["cpu"], abs=0.02)
