"""Ratios of speeds from all runs of a comparison, with intervals over processes or over runs. No torch.

Three runs or more are compared as runs, since runs of other hours differ by more than the processes of one;
fewer by their processes. One process in all does not show the spread between processes. Runs of other
commits count too, since a change of the suite rarely changes a pass; if it does, the interval is too wide
and the report's section on repeats shows it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TypeVar

from bench.records.base import Arm, Environment, ModelCase, Record
from bench.records.comparison import Comparison
from bench.records.throughput import Throughput
from bench.stats import intervals, processes, ratios
from bench.stats.processes import Interval, LogMean, Series
from bench.store.codec import case_key

AS_RUNS = 3  # runs that are compared as runs

R = TypeVar("R", bound=Record)


def by_case(records: Iterable[R]) -> list[tuple[R, ...]]:
    """All runs of each case on a device with a version of torch, the newest last; records in any order.

    Comparisons in which other arms failed are cases of their own.
    """
    found: dict[tuple[object, ...], dict[tuple[str, str], R]] = {}
    for record in sorted(records, key=lambda one: one.age):
        here, failures = record.environment, record.failures if isinstance(record, Comparison) else ()
        failed = tuple(failure.number for failure in failures)
        found.setdefault((case_key(record.case), here.device, here.torch, failed), {})[record.age] = record
    return [tuple(found[name].values()) for name in sorted(found)]


def sound(runs: Sequence[Comparison], arm: int, against: int) -> Sequence[Comparison]:
    """The runs in which the clocks of two arms did not drift apart, or the newest if they did in all."""
    return [run for run in runs if not run.why_refused(arm, against)] or runs[-1:]


def pooled(runs: Sequence[Comparison], arm: int, against: int) -> LogMean | None:
    """log(speed of `arm` / speed of `against`) over all sound runs; None for one process in all."""
    logs = [run.log_ratios(arm, against) for run in sound(runs, arm, against)]
    series = _independent(logs, lambda of_run: fmean(map(intervals.median, of_run)))
    return processes.log_mean(series) if len(series) > 1 else None


def separate(ours: Sequence[Throughput], theirs: Sequence[Throughput]) -> tuple[float, Interval]:
    """Speed of one model / another from all their separate runs, with the interval over processes."""
    a, b = (_independent([run.by_process_s for run in runs], processes.middle) for runs in (ours, theirs))
    return processes.middle(b) / processes.middle(a), processes.ratio_interval(a, b, ratios.CONFIDENCE)


def times_s(runs: Sequence[Comparison], arm: int) -> list[Series]:
    """The times of an arm over all runs: of each process, or the middle of each run."""
    return _independent([run.by_process_s(arm) for run in runs], processes.middle)


def _independent(
    runs: Sequence[Sequence[Series]], middle: Callable[[Sequence[Series]], float]
) -> list[Series]:
    """Independent series: each process of few runs, or the middle of each of AS_RUNS or more."""
    if len(runs) < AS_RUNS:
        return [series for of_run in runs for series in of_run]
    return [[middle(of_run)] for of_run in runs]


# through shared models


@dataclass(frozen=True)
class Group:
    """All runs of one interleaved comparison."""

    runs: tuple[Comparison, ...]

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        return tuple(case.arm for case in self.runs[-1].arm_cases)

    @cached_property
    def _log_ratios(self) -> dict[tuple[Arm, Arm], LogMean | None]:
        return {}

    @property
    def processes(self) -> int:
        return sum(run.processes for run in self.runs)

    def log_ratio(self, one: Arm, other: Arm) -> LogMean | None:
        """log(speed of one / speed of other); None within one process, or where clocks drifted apart."""
        if (one, other) not in self._log_ratios:
            arms = self.arms.index(one), self.arms.index(other)
            newest = sound(self.runs, *arms)[-1]
            refused = newest.why_refused(*arms)
            self._log_ratios[one, other] = None if refused else pooled(self.runs, *arms)
        return self._log_ratios[one, other]


@dataclass(frozen=True, kw_only=True, eq=False)
class InterleavedPasses:
    """Passes of one model in all runs of an interleaved comparison."""

    runs: tuple[Comparison, ...]  # the newest last
    arm: int  # place of the model

    @property
    def case(self) -> ModelCase:
        return self.runs[-1].arm_cases[self.arm]

    @property
    def environment(self) -> Environment:
        return self.runs[-1].environment

    @cached_property
    def by_process_s(self) -> Sequence[Sequence[float]]:
        """The times of each process, or the middle of each of three runs or more."""
        return times_s(self.runs, self.arm)

    @property
    def times_s(self) -> tuple[float, ...]:
        return tuple(time_s for of in self.by_process_s for time_s in of)

    @property
    def processes(self) -> int:
        return Group(self.runs).processes

    @property
    def unmet(self) -> tuple[str, ...]:
        """Blank: the criteria of a comparison are about ratios."""
        return ()

    @property
    def median_s(self) -> float:
        return processes.middle(self.by_process_s)

    @property
    def images_per_s(self) -> float:
        return self.case.batch / self.median_s

    @cached_property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        """95 % interval, like that of `TimedPasses`."""
        hour_sd = processes.HOUR_SD.get(self.environment.device_type, 0.0)
        ends = processes.interval(self.by_process_s, hour_sd=hour_sd)
        return ends and (self.case.batch / ends[1], self.case.batch / ends[0])


def runs_of(passes: Record | InterleavedPasses) -> tuple[Record, ...]:
    """The records of passes of one model, timed alone or in a comparison."""
    return passes.runs if isinstance(passes, InterleavedPasses) else (passes,)


@dataclass(frozen=True)
class Chained:
    """log(speed of one model / speed of another), and the comparisons that it comes from."""

    log: LogMean
    groups: tuple[Group, ...]  # one if both models took part in it


def chained(groups: Sequence[Group], one: Arm, other: Arm) -> Chained | None:
    """The ratio of two models in the first comparison with both, or through few shared models."""
    for group in groups:
        if {one, other} <= {*group.arms} and (log := group.log_ratio(one, other)):
            return Chained(log, (group,))
    paths: dict[Arm, Chained | None] = {one: None}
    front = [one]
    while front and other not in paths:
        reached: dict[Arm, Chained | None] = {}
        for node in front:
            for group in groups:
                new = [n for n in group.arms if n not in paths and n not in reached and node in group.arms]
                for to in new:
                    if step := group.log_ratio(node, to):
                        reached[to] = _extended(paths[node], step, group)
        paths |= reached
        front = list(reached)
    return paths.get(other)


def _extended(path: Chained | None, step: LogMean, group: Group) -> Chained:
    if path is None:
        return Chained(step, (group,))
    return Chained(processes.log_sum([path.log, step]), (*path.groups, group))
