"""Comparison of two runs: equal cases paired, ratios of medians with intervals, verdicts, likely causes.

Every ratio is B/A: the second run divided by the first. Its interval covers what processes differ by, and on
a shared CPU hours, so that equal runs differ in at most 1 of 20 pairs.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from bench.analysis.repeats import causes
from bench.analysis.repeats.pairing import Matched
from bench.records.base import Record, Skipped
from bench.records.quantities import GROUPS, PEAKS, SPEEDS, SUSTAINED, TIMES, Quantity
from bench.stats import intervals, noise, processes, ratios
from bench.stats.processes import Interval
from bench.stats.series import FEWEST
from bench.tables.numbers import fixed_interval
from bench.tables.table import Column, Table, fields

WITHIN = 0.02  # default relative tolerance of two medians that agree
AGREE, DIFFER, OPEN = "agree", "differ", "cannot tell"
VERDICTS = (AGREE, DIFFER, OPEN)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One quantity of one case in two runs."""

    records: Matched
    quantities: tuple[Quantity, Quantity]  # of A and of B
    within: float  # the relative tolerance
    causes: tuple[str, ...]  # differences of this pair that not all pairs have

    @property
    def case(self) -> str:
        return self.records.b.name

    @property
    def quantity(self) -> str:
        return self.quantities[1].name

    @property
    def group(self) -> str:
        return self.quantities[1].group

    @property
    def device(self) -> str:
        return self.records.b.environment.device

    @property
    def dates(self) -> tuple[str, str]:
        return self.records.a.environment.date, self.records.b.environment.date

    @cached_property
    def medians(self) -> tuple[float, float]:
        a, b = (processes.middle(one.processes) for one in self.quantities)
        return a, b

    @property
    def ratio(self) -> float:
        return self.medians[1] / self.medians[0]

    @cached_property
    def within_runs(self) -> Interval | None:
        """Interval of the ratio for the noise within these processes alone; None with too few samples."""
        a, b = self.quantities
        if b.exact:
            return self.ratio, self.ratio
        return processes.within_ratio_interval(a.processes, b.processes)

    @cached_property
    def interval(self) -> Interval | None:
        """Interval of the ratio of other such runs; None with too few samples."""
        a, b = self.quantities
        if b.exact or not self.within_runs:
            return self.within_runs
        is_speed, device = b.group == SPEEDS, self.records.b.environment.device_type
        return processes.ratio_interval(
            a.processes,
            b.processes,
            process_sd=processes.RATIO_PROCESS_SD if is_speed else processes.PROCESS_SD,
            hour_sd=0.0 if is_speed else processes.HOUR_SD.get(device, 0.0),
        )

    @property
    def distance(self) -> float:
        """|log ratio|: 0 for equal medians."""
        return abs(math.log(self.ratio))

    @cached_property
    def verdict(self) -> str:
        """Agree: these runs are equal within the tolerance. Differ: so would be others. Else cannot tell.

        Runs agree if the whole interval of the noise within them lies within the tolerance of 1. They differ
        if none of the interval for other processes and hours does.
        """
        if ratios.verdict(self.within_runs, self.within) == ratios.SAME:
            return AGREE
        differ = ratios.verdict(self.interval, self.within) in (ratios.FASTER, ratios.SLOWER)
        return DIFFER if differ else OPEN

    @property
    def likely_causes(self) -> tuple[str, ...]:
        return () if self.verdict == AGREE else self.causes

    def is_slower(self, limit: float) -> bool:
        """Whether the whole interval of B is slower than A by more than a share; always false for memory."""
        if self.interval is None or self.group == PEAKS:
            return False
        low, high = self.interval
        return high < 1 / (1 + limit) if self.group == SPEEDS else low > 1 + limit


_interval = partial(fixed_interval, 4)


def table(*, dated: bool) -> Table[Pair]:
    """The table of pairs, with the dates of both records if `dated`."""

    return Table(
        title="Two runs compared at a relative tolerance",
        columns=(
            *fields("case", "quantity"),
            *fields("device", raw=True),
            Column("date A", lambda pair: pair.dates[0], raw=not dated),
            Column("date B", lambda pair: pair.dates[1], raw=not dated),
            Column("A", lambda pair: pair.medians[0]),
            Column("B", lambda pair: pair.medians[1]),
            Column("unit", lambda pair: pair.quantities[1].unit),
            Column("samples A", lambda pair: len(pair.quantities[0].samples), raw=True),
            Column("samples B", lambda pair: len(pair.quantities[1].samples), raw=True),
            Column("B/A", "ratio", "{:.4f}".format),
            Column("95 % within these runs", "within_runs", _interval),
            Column("95 % interval", "interval", _interval),
            Column(
                "processes",
                lambda pair: [len(one.processes) for one in pair.quantities],
                lambda numbers: " and ".join(map(str, numbers)),
            ),
            *fields("within", raw=True),
            *fields("verdict"),
            Column("likely causes", "likely_causes"),
        ),
        records=lambda pair: (pair.records.a, pair.records.b),
    )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two runs compared at a relative tolerance."""

    within: float
    pairs: tuple[Pair, ...]
    shared: tuple[str, ...]  # differences that all pairs have; the summary names them once
    one_sided: tuple[str, ...]  # cases with a number in one run only
    lost: tuple[str, ...]  # the one-sided cases whose number is in A

    @property
    def verdicts(self) -> Mapping[str, int]:
        return Counter(pair.verdict for pair in self.pairs)

    @property
    def differs(self) -> bool:
        return bool(self.verdicts[DIFFER] or self.one_sided)

    def slower(self, limit: float) -> list[Pair]:
        return [pair for pair in self.pairs if pair.is_slower(limit)]

    def findings(self) -> list[str]:
        """The comparison in sentences."""
        found = [self._summary(group) for group in GROUPS if any(p.group == group for p in self.pairs)]
        if self.shared:
            found.append(f"differs in all pairs: {'; '.join(self.shared)}")
        unequal = [pair for pair in self.pairs if pair.verdict != AGREE]
        counted = Counter(word for pair in unequal for word in {cause.split()[0] for cause in pair.causes})
        if counted:
            named = [f"{cause} ({n})" for cause, n in sorted(counted.items(), key=lambda i: (-i[1], i[0]))]
            found.append(f"possible causes in the {len(unequal)} other pairs: {', '.join(named)}")
        return [*found, *(f"a number in one run only: {case}" for case in self.one_sided)]

    def _summary(self, group: str) -> str:
        """Count the verdicts of a group. Pairs with enough samples give the largest difference."""
        pairs = [pair for pair in self.pairs if pair.group == group]
        bounded = [pair for pair in pairs if pair.interval is not None] or pairs
        counts = Counter(pair.verdict for pair in pairs)
        worst = max(bounded, key=lambda pair: pair.distance)
        middle = intervals.median([abs(pair.ratio - 1) for pair in bounded])
        return (
            f"{group}: {len(pairs)} pair{'s' if len(pairs) > 1 else ''}, {counts_text(counts)}; "
            f"median |B/A - 1| {percent(middle)}; largest difference {worst.ratio:.4f}: {worst.case}, "
            f"{worst.quantity}"
        )


def counts_text(verdicts: Mapping[str, int]) -> str:
    """Verdict counts in words: 9 agree, 1 differ, 0 cannot tell."""
    return ", ".join(f"{verdicts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def compare(matched: Sequence[Matched], within: float) -> Agreement:
    """Compare every quantity of every pair of records at a relative tolerance."""
    pairs: list[Pair] = []
    one_sided: list[str] = []
    lost: list[str] = []
    for both in matched:
        a = {quantity.name: quantity for quantity in both.a.quantities}
        b = {quantity.name: quantity for quantity in both.b.quantities}
        common = [name for name in a if name in b]
        between = causes.of_records(both.a, both.b)
        pairs += [
            Pair(
                records=both,
                quantities=(a[name], b[name]),
                within=within,
                causes=(*between, *_of_samples(both, a[name], b[name])),
            )
            for name in common
        ]
        if not common and (a or b):
            one_sided.append(f"{both.a.name}: A {_outcome(both.a)}, B {_outcome(both.b)}")
            lost += one_sided[-1:] if a else []
    first = pairs[0].causes if len(pairs) > 1 else ()
    shared = tuple(cause for cause in first if all(cause in pair.causes for pair in pairs))
    return Agreement(
        within=within,
        pairs=tuple(
            replace(pair, causes=tuple(cause for cause in pair.causes if cause not in shared))
            for pair in pairs
        ),
        shared=shared,
        one_sided=tuple(one_sided),
        lost=tuple(lost),
    )


def _outcome(record: Record) -> str:
    return record.status if isinstance(record, Skipped) else "measured"


def _of_samples(both: Matched, a: Quantity, b: Quantity) -> list[str]:
    """Weaknesses of either record: noise, unfinished warm-up, spent budget, too few samples."""
    found = []
    for side, record, quantity in (("A", both.a, a), ("B", both.b, b)):
        clocks = causes.clocks_mhz(record) if quantity.group in (TIMES, SPEEDS) else ()
        disturbed = noise.noise(quantity.processes, clocks)
        found += [f"noise in {side}: {', '.join(disturbed)}"] if disturbed else []
        if quantity.group != SUSTAINED:
            found += causes.of_sampling(side, record)
        fewest = min(map(len, quantity.processes))
        if fewest < FEWEST and not quantity.exact:
            found.append(f"samples of {side}: only {fewest}")
    return found
