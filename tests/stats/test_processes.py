"""Intervals over processes: simulated runs, and the stored repeated runs of one machine."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, median, variance

import pytest

from baselines import load
from bench.records.base import Record
from bench.records.comparison import Comparison
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


Hours = dict[str, list[Sequence[float]]]  # hour -> times of each process in it


def stored(day: str) -> list[Hours]:
    """The repeated runs of a day: for every case, the times of its processes by hour."""
    found: dict[str, Hours] = defaultdict(lambda: defaultdict(list))
    for path in sorted(load.MEASURED.glob(f"**/{day}*.jsonl")):
        for record in read(path).records:
            hour = f"{path.stem} {record.environment.date[:13]}"  # runs at most 15 minutes apart
            for case, times in _processes(record):
                found[f"{record.environment.device} {case}"][hour] += times
    return list(found.values())


def _processes(record: Record) -> Iterator[tuple[str, Sequence[Sequence[float]]]]:
    """Cases of a record with the times of each process; visits of a scaling study are processes."""
    case = record.case
    if isinstance(record, TimedPasses) and len(record.times_s) > 5:
        label = case.label.partition(", from batch")[0]
        yield f"{case.work} {label}" if hasattr(case, "visit") else case_key(case), record.by_process_s
    if isinstance(record, Comparison) and record.processes > 1:  # `fast` has changed during the day
        arms = [(number, arm) for number, arm in enumerate(record.case.arms) if arm.impl == "reference"]
        yield from ((repr(arm), record.by_process_s(number)) for number, arm in arms)


@pytest.mark.parametrize(("day", "least"), [("2026-11-21", 150), ("2026-11-29", 30)])
def test_intervals_of_one_hour_hold_medians_of_another(day: str, least: int) -> None:
    held = total = 0
    for hours in stored(day):
        for hour, times in hours.items():
            if len(times) < 2:
                continue
            interval = processes.interval(times, hour_sd=processes.HOUR_SD["cpu"])
            assert interval is not None
            others = [processes.middle(of) for other, of in hours.items() if other != hour]
            held += sum(interval[0] <= median <= interval[1] for median in others)
            total += len(others)
    assert total > least
    assert held >= 0.85 * total, (held, total)


def test_known_spreads_are_those_of_the_stored_runs() -> None:
    within: list[list[float]] = []
    between: list[list[float]] = []
    for hours in stored("2026-11-21"):
        logs = [[math.log(median(times)) for times in of] for of in hours.values()]
        within += [of for of in logs if len(of) > 1]
        if len(logs) > 1:
            between.append([fmean(of) for of in logs])
    squares = [(variance(of) * (len(of) - 1), len(of) - 1) for of in within]
    process = sum(s for s, _ in squares) / sum(n for _, n in squares)
    means = sum(variance(of) * (len(of) - 1) for of in between) / sum(len(of) - 1 for of in between)
    assert math.sqrt(process) == pytest.approx(processes.PROCESS_SD, abs=0.01)
    assert math.sqrt(means - process / 2) == pytest.approx(processes.HOUR_SD["cpu"], abs=0.02)
