"""Medians over fresh processes of one case: value, interval, ratio of two runs.

Passes of one process share its memory layout, its place on the machine and its minutes, so their noise says
little about the next process. The spread is therefore taken over the medians of processes, by Student's t on
their logarithms. One process has no such spread: its interval covers that process alone.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, geometric_mean, median, variance
from typing import Any

from bench.stats.intervals import student_t
from bench.stats.series import FEWEST, median_interval, standard_error

ONE = "within one process"
# Standard deviations of the log median on the shared CPU of baselines/measured (AMD EPYC, 2 threads), from
# the repeated runs of five hours; tests/stats/test_processes.py computes them again.
PROCESS_SD = 0.08  # between processes of one hour: for two records of one process each
RATIO_PROCESS_SD = 0.05  # the same of ratios of interleaved models, hours included
HOUR_SD = {"cpu": 0.11}  # between hours, by type of device; of no GPU yet

Interval = tuple[float, float]
Series = Sequence[float]


class OverProcesses:
    """What was sampled in one process, or in several fresh ones."""

    process_starts: tuple[int, ...]  # index of the first sample of every process but the first
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # criteria not met when sampling ended

    @property
    def processes(self) -> int:
        return 1 + len(self.process_starts)

    @property
    def interval_covers(self) -> str:
        """What the intervals cover: "within one process", or "3 processes"."""
        return ONE if self.processes == 1 else f"{self.processes} processes"

    @property
    def ended_by(self) -> str:
        return "; ".join([self.stopped_by, *(f"not met: {criterion}" for criterion in self.unmet)])


def joined(parts: Sequence[OverProcesses], samples: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Fields of one result over the processes of several, in order of time.

    Args:
        samples: of each part, as `OverProcesses.process_starts` counts them.
        names: further fields, tuples, which are joined.
    """
    return {
        "process_starts": tuple(itertools.accumulate(samples))[:-1],
        "stopped_by": max((part.stopped_by for part in parts), key=lambda word: word == "budget"),
        "unmet": tuple(dict.fromkeys(criterion for part in parts for criterion in part.unmet)),
        **{name: tuple(value for part in parts for value in getattr(part, name)) for name in names},
    }


def split(values: Series, starts: Sequence[int]) -> tuple[Series, ...]:
    """Samples of each process; `starts` are as in `OverProcesses.process_starts`."""
    ends = [0, *starts, len(values)]
    return tuple(values[begin:end] for begin, end in itertools.pairwise(ends))


def check(starts: Sequence[int], samples: int) -> None:
    """Require increasing starts that leave every process a sample. ValueError: names the starts."""
    ends = [0, *starts, samples]
    if any(begin >= end for begin, end in itertools.pairwise(ends)):
        raise ValueError(f"processes: need samples of each, got starts {tuple(starts)} of {samples} samples")


def middle(processes: Sequence[Series]) -> float:
    """The median of one process, or the geometric mean of the medians of several; samples above zero."""
    medians = [median(samples) for samples in processes]
    return medians[0] if len(medians) == 1 else geometric_mean(medians)


def interval(
    processes: Sequence[Series], confidence: float = 0.95, *, hour_sd: float = 0.0
) -> Interval | None:
    """Interval of `middle`; see `interval_of_logs`."""
    if len(processes) == 1:
        return median_interval(processes[0], confidence)
    return interval_of_logs([[math.log(s) for s in samples] for samples in processes], confidence, hour_sd)


def interval_of_logs(
    processes: Sequence[Series], confidence: float = 0.95, hour_sd: float = 0.0
) -> Interval | None:
    """Interval of exp(mean of processes' medians of logarithms), by Student's t; of one, of its median.

    The spread between processes is at least what the noise within them explains, corrected for correlated
    neighbours, and `hour_sd` between hours is added. None for one process with too few samples.
    """
    if len(processes) == 1:
        bounds = median_interval(processes[0], confidence)
    else:
        found = log_mean(processes)
        reach = math.hypot(found.reach(confidence), _z(confidence) * hour_sd)
        bounds = found.mean - reach, found.mean + reach
    return bounds and (math.exp(bounds[0]), math.exp(bounds[1]))


@dataclass(frozen=True, kw_only=True)
class LogMean:
    """A mean of logarithms over processes or runs, with its squared standard error."""

    mean: float
    error2: float
    freedom: float  # degrees of freedom of the error

    def __neg__(self) -> "LogMean":
        return replace(self, mean=-self.mean)

    def reach(self, confidence: float) -> float:
        return student_t(self.freedom, confidence) * math.sqrt(self.error2)

    def ratio_interval(self, confidence: float) -> Interval:
        """Interval of exp(mean)."""
        reach = self.reach(confidence)
        return math.exp(self.mean - reach), math.exp(self.mean + reach)


def log_mean(processes: Sequence[Series]) -> LogMean:
    """The mean of the medians of two processes or more, given the logarithms of samples."""
    n = len(processes)
    medians = [median(samples) for samples in processes]
    within = fmean(standard_error(samples) ** 2 for samples in processes)
    return LogMean(mean=fmean(medians), error2=max(variance(medians), within) / n, freedom=n - 1)


def log_sum(parts: Sequence[LogMean]) -> LogMean:
    """The sum of independent means; its degrees of freedom are Welch and Satterthwaite's."""
    error2 = sum(part.error2 for part in parts)
    squares = sum(part.error2**2 / part.freedom for part in parts)
    return LogMean(
        mean=sum(part.mean for part in parts),
        error2=error2,
        freedom=max(1.0, error2**2 / squares) if squares else min(part.freedom for part in parts),
    )


def ratio_interval(
    a: Sequence[Series],
    b: Sequence[Series],
    confidence: float = 0.95,
    *,
    process_sd: float = PROCESS_SD,
    hour_sd: float = 0.0,
) -> Interval:
    """Interval of middle(b) / middle(a): of equal runs 1 in 20 excludes 1, of correlated samples too.

    Args:
        process_sd: standard deviation of the log median between processes if both runs have only one; else
            the spread is pooled over both runs.
        hour_sd: the same between the hours of the runs.
    """
    runs = [[[math.log(s) for s in samples] for samples in run] for run in (a, b)]
    medians = [[median(samples) for samples in run] for run in runs]
    freedom = sum(len(run) - 1 for run in medians)
    if freedom:
        squares = sum((one - fmean(run)) ** 2 for run in medians for one in run)
        between, factor = squares / freedom, student_t(freedom, confidence)
    else:
        between, factor = process_sd**2, _z(confidence)
    errors = [standard_error(samples) ** 2 for run in runs for samples in run]
    between = max(between, fmean(errors)) if freedom else between + fmean(errors)
    spread = factor * math.sqrt(between * sum(1 / len(run) for run in medians))
    reach = math.hypot(spread, _z(confidence) * hour_sd * math.sqrt(2))
    ratio = fmean(medians[1]) - fmean(medians[0])
    return math.exp(ratio - reach), math.exp(ratio + reach)


def within_ratio_interval(a: Sequence[Series], b: Sequence[Series]) -> Interval | None:
    """95 % interval of middle(b) / middle(a) for the noise within them; None with too few samples."""
    if min(len(samples) for run in (a, b) for samples in run) < FEWEST:
        return None
    runs = [[[math.log(s) for s in samples] for samples in run] for run in (a, b)]
    medians = [fmean(map(median, run)) for run in runs]
    errors = [sum(standard_error(samples) ** 2 for samples in run) / len(run) ** 2 for run in runs]
    reach = _z(0.95) * math.sqrt(sum(errors))
    return math.exp(medians[1] - medians[0] - reach), math.exp(medians[1] - medians[0] + reach)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
