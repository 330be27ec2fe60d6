"""Selection of the records in the report: the newest of each case, counts by model, timings by setting."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import TypeVar

from bench.analysis.speed import speed_ratios
from bench.analysis.speed.settings import Setting, setting_of
from bench.analysis.speed.speed_ratios import Group, InterleavedPasses, runs_of
from bench.records.base import ModelCase, Record, Size, SizedCase, Skipped
from bench.records.columns import ENVIRONMENT, PROVENANCE
from bench.records.comparison import Comparison
from bench.records.counts import MacCount
from bench.records.throughput import Throughput, ThroughputCase
from bench.tables.table import Row, Table
from models.registry import pixel_size

R = TypeVar("R", bound=Record)
T = TypeVar("T")
K = TypeVar("K")

# counters in order of preference
PAPERS_RULES = ("torchprofile-meta", "torchprofile", "torch", "fvcore")  # compared with published counts
OUR_RULES = ("torch", "torchprofile-meta", "torchprofile", "fvcore")  # in tables with training steps


Passes = Throughput | InterleavedPasses


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key, in their order."""
    found: dict[K, list[T]] = {}
    for one in items:
        found.setdefault(key(one), []).append(one)
    return found


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A model's passes under one setting, or the reason for a missing number."""

    passes: Passes | Skipped
    case: ModelCase

    @cached_property
    def setting(self) -> Setting:
        alone = setting_of(self.case, self.passes.environment.device)
        return replace(alone, is_interleaved=isinstance(self.passes, InterleavedPasses))

    @property
    def records(self) -> tuple[Record, ...]:
        return runs_of(self.passes)

    @property
    def images_per_s(self) -> float | None:
        return None if isinstance(self.passes, Skipped) else self.passes.images_per_s


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Counts and timings, one for each case. Order and duplicates of the input do not matter."""

    counted: tuple[MacCount, ...]
    timings: tuple[Timing, ...]
    older: int  # number of records replaced by a newer one of the same case

    @cached_property
    def _counts(self) -> dict[tuple[str, Size], list[MacCount]]:
        return grouped(self.counted, lambda count: (count.case.model, count.case.res))

    @cached_property
    def _timings(self) -> dict[tuple[Setting, str, Size], Timing]:
        return {(one.setting, one.case.model, one.case.res): one for one in self.timings}

    @cached_property
    def by_setting(self) -> dict[Setting, list[Timing]]:
        """The timings of each setting, settings in order."""
        return dict(sorted(grouped(self.timings, lambda timing: timing.setting).items()))

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(self.by_setting)

    def count(self, model: str, res: Size, counters: Sequence[str] = PAPERS_RULES) -> MacCount | None:
        """Find a model's count: from the first counter that has one, at the smallest batch."""
        found = [c for c in self._counts.get((model, res), ()) if c.case.counter in counters]
        return min(found, key=lambda c: (counters.index(c.case.counter), c.case.batch), default=None)

    def timing(self, setting: Setting, model: str, res: Size) -> Timing | None:
        return self._timings.get((setting, model, res))

    def fullest(self, cases: Sequence[tuple[str, Size]], limit: int) -> list[Setting]:
        """At most `limit` settings, in order: those with the fewest switches, then with most of the cases.

        Of equal ones fp32, the papers' precision, comes first, then interleaved rounds.
        """
        known = {
            setting: sum((setting, *case) in self._timings for case in cases) for setting in self.settings
        }

        def place(one: Setting) -> tuple[object, ...]:
            return len(one.switches), -known[one], one.precision != "fp32", not one.is_interleaved

        ranked = sorted(filter(known.get, known), key=place)
        return sorted(ranked[:limit])

    def behind(
        self,
        cases: Sequence[tuple[str, Size]],
        settings: Iterable[Setting],
        counts: Sequence[MacCount | None],
    ) -> list[list[Record]]:
        """The records of the row of each case: its count, and its timings under some settings."""
        found: list[list[Record]] = [[count] if count else [] for count in counts]
        for setting in settings:
            for row, case in zip(found, cases, strict=True):
                timing = self.timing(setting, *case)
                row += timing.records if timing else ()
        return found

    def images_per_s(self, setting: Setting, model: str, res: Size) -> float | None:
        timing = self.timing(setting, model, res)
        return timing.images_per_s if timing else None


def is_own_size(record: Record) -> bool:
    """Whether the size is one that the network is for: a network on pixels is for one size only."""
    case = record.case
    return not isinstance(case, SizedCase) or pixel_size(case.model) in (None, case.res)


def remembered(of_records: Callable[[Sequence[Record]], T]) -> Callable[[Sequence[Record]], T]:
    """Keep the result for the last tuple of records: the sections of a report share it."""
    last: list[tuple[Sequence[Record], T]] = []

    @wraps(of_records)
    def found(records: Sequence[Record]) -> T:
        if not isinstance(records, tuple):  # a list may change
            return of_records(records)
        if not last or last[0][0] is not records:
            last[:] = [(records, of_records(records))]
        return last[0][1]

    return found


@remembered
def gather(records: Sequence[Record]) -> Evidence:
    """Keep the newest count and forward pass of each case, by date, then by content.

    Of several comparisons in which a model was timed the one of most processes counts, with all its runs.
    """
    counts = [record for record in records if isinstance(record, MacCount)]
    timed = [
        Timing(case=record.case, passes=record)
        for record in records
        if isinstance(record, Throughput | Skipped)
        and isinstance(record.case, ThroughputCase)
        and record.case.work == "inference"
    ]
    counts, timed = list(dict.fromkeys(counts)), list(dict.fromkeys(timed))
    newest_counts = {
        (c.case.model, c.case.res, c.case.batch, c.case.counter): c
        for c in sorted(counts, key=lambda count: count.age)
    }
    newest_timings = {
        (t.case.model, t.case.res, t.setting): t for t in sorted(timed, key=lambda t: t.records[-1].age)
    }
    older = len(counts) + len(timed) - len(newest_counts) - len(newest_timings)
    compared = speed_ratios.by_case(record for record in records if isinstance(record, Comparison))
    for runs in sorted(compared, key=lambda runs: (Group(runs).processes, runs[-1].age)):
        for arm, case in enumerate(runs[-1].arm_cases):
            one = Timing(case=case, passes=InterleavedPasses(runs=runs, arm=arm))
            newest_timings[case.model, case.res, one.setting] = one
    return Evidence(
        counted=tuple(newest_counts[case] for case in sorted(newest_counts, key=repr)),
        timings=tuple(newest_timings[case] for case in sorted(newest_timings, key=repr)),
        older=older,
    )


def latest(records: Iterable[R]) -> list[R]:
    """The newest record of each case on each device, whatever its software."""
    found = sorted(records, key=lambda record: record.age)
    return list({(record.case, record.environment.device): record for record in found}.values())


def dated(table: Table[Row]) -> Table[Row]:
    """A command's table with device, software and date in view, for a page that mixes them."""
    columns = (column for column in table.columns if column not in ENVIRONMENT)
    return replace(table, columns=(*columns, *PROVENANCE))
