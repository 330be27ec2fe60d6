"""Comparison of two runs: equal cases paired, ratios of medians with intervals, verdicts, likely causes.

Every ratio is B/A: the second run divided by the first. Its interval covers what processes differ by, and on
a shared CPU hours, so that equal runs differ in at most 1 of 20 pairs.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.analysis.repeats import causes
from bench.records.base import Record, Skipped
from bench.records.quantities import GROUPS, PEAKS, SPEEDS, SUSTAINED, TIMES, Quantity
from bench.stats import intervals, noise, processes, ratios
from bench.stats.series import FEWEST
from bench.store.codec import case_key
from bench.tables.numbers import fixed_interval
from bench.tables.table import Column, Table, fields

WITHIN = 0.02  # default relative tolerance of two medians that agree
AGREE, DIFFER, OPEN = "agree", "differ", "cannot tell"
VERDICTS = (AGREE, DIFFER, OPEN)


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Two records of one case."""

    a: Record
    b: Record


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One quantity of one case in two runs."""

    records: Matched
    quantity: str
    group: str
    unit: str
    a: float  # medians
    b: float
    samples: tuple[int, int]
    processes: tuple[int, int]
    interval: tuple[float, float] | None  # of the ratio of other such runs; None with too few samples
    within_runs: tuple[float, float] | None  # of the ratio, for the noise within these processes alone
    within: float  # the relative tolerance
    causes: tuple[str, ...]  # differences of this pair that not all pairs have

    @property
    def case(self) -> str:
        return self.records.b.name

    @property
    def device(self) -> str:
        return self.records.b.environment.device

    @property
    def dates(self) -> tuple[str, str]:
        return self.records.a.environment.date, self.records.b.environment.date

    @property
    def ratio(self) -> float:
        return self.b / self.a

    @property
    def distance(self) -> float:
        """|log ratio|: 0 for equal medians."""
        return abs(math.log(self.ratio))

    @property
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

    def date(heading: str, side: int) -> Column[Pair]:
        return Column(heading, lambda pair: pair.dates[side], raw=not dated)

    return Table(
        title="Two runs compared at a relative tolerance",
        columns=(
            *fields("case", "quantity"),
            *fields("device", raw=True),
            date("date A", 0),
            date("date B", 1),
            Column("A", "a"),
            Column("B", "b"),
            *fields("unit"),
            Column("samples A", lambda pair: pair.samples[0], raw=True),
            Column("samples B", lambda pair: pair.samples[1], raw=True),
            Column("B/A", "ratio", "{:.4f}".format),
            Column("95 % within these runs", "within_runs", _interval),
            Column("95 % interval", "interval", _interval),
            Column("processes", "processes", lambda n: " and ".join(map(str, n))),
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


# pairing


def match(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> list[Matched]:
    """Pair the newest records of each case in two runs, if `across` of different devices too."""
    one, other = _newest(first, across), _newest(second, across)
    return [Matched(a=one[name], b=other[name]) for name in one if name in other and one[name] != other[name]]


def repeats(records: Iterable[Record]) -> list[Matched]:
    """Pair the newest record of every case and device with each older one."""
    histories: dict[tuple[str, str], dict[tuple[str, str], Record]] = {}
    for record in _measured(records):
        histories.setdefault(_identity(record, across=False), {})[record.age] = record
    found = []
    for history in histories.values():
        *older, newest = history.values()
        found += [Matched(a=one, b=newest) for one in older]
    return found


def unpaired(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> tuple[int, int]:
    one, other = _newest(first, across).keys(), _newest(second, across).keys()
    return len(one - other), len(other - one)


def devices(records: Iterable[Record]) -> list[str]:
    return sorted({record.environment.device for record in records} - {""})


def _newest(records: Iterable[Record], across: bool) -> dict[tuple[str, str], Record]:
    return {_identity(record, across): record for record in _measured(records)}


def _measured(records: Iterable[Record]) -> list[Record]:
    """Records of measured or failed cases of a device, oldest first."""
    kept = [
        record
        for record in records
        if (record.case.device != "meta" if isinstance(record, Skipped) else record.quantities)
    ]
    return sorted(kept, key=lambda record: record.age)


def _identity(record: Record, across: bool) -> tuple[str, str]:
    return case_key(record.case), "" if across else record.environment.device


# comparing


def compare(matched: Sequence[Matched], within: float) -> Agreement:
    """Compare every quantity of every pair of records at a relative tolerance."""
    pairs: list[Pair] = []
    one_sided: list[str] = []
    lost: list[str] = []
    for both in matched:
        a = {quantity.name: quantity for quantity in both.a.quantities}
        b = {quantity.name: quantity for quantity in both.b.quantities}
        common = [name for name in a if name in b]
        pairs += [_pair(both, a[name], b[name], within) for name in common]
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


def _pair(both: Matched, a: Quantity, b: Quantity, within: float) -> Pair:
    medians = processes.middle(a.processes), processes.middle(b.processes)
    ratio = medians[1] / medians[0]
    within_runs = processes.within_ratio_interval(a.processes, b.processes)
    is_speed, device = b.group == SPEEDS, both.b.environment.device_type
    others = processes.ratio_interval(
        a.processes,
        b.processes,
        process_sd=processes.RATIO_PROCESS_SD if is_speed else processes.PROCESS_SD,
        hour_sd=0.0 if is_speed else processes.HOUR_SD.get(device, 0.0),
    )
    return Pair(
        records=both,
        quantity=b.name,
        group=b.group,
        unit=b.unit,
        a=medians[0],
        b=medians[1],
        samples=(len(a.samples), len(b.samples)),
        processes=(len(a.processes), len(b.processes)),
        interval=(ratio, ratio) if b.exact else others if within_runs else None,
        within_runs=(ratio, ratio) if b.exact else within_runs,
        within=within,
        causes=(*causes.of_records(both.a, both.b), *_of_samples(both, a, b)),
    )


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
