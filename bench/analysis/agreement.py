"""Whether two sessions of measuring agree: their cases paired, ratios of medians with intervals, and reasons.

Every ratio is that of the second session to the first. An interval knows the noise within the two records
and nothing else: what differs between the sessions is what is looked for. No torch here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from bench.cli import tables
from bench.records import labels
from bench.records.record import (
    Ceiling,
    Interleaved,
    Memory,
    NotCompared,
    Record,
    Skipped,
    Throughput,
    case,
    failed,
    to_line,
)
from bench.stats import intervals, noise, ratios

if TYPE_CHECKING:
    from numpy import float64
    from numpy.random import Generator
    from numpy.typing import NDArray

CONFIDENCE = 0.95
WITHIN = 0.02  # of two medians that agree, where nothing else is said
MIN_SAMPLES = 6  # of each side; fewer bound no median at this confidence
RESAMPLES = 10_000
AGREE, DIFFER, OPEN = "agree", "differ", "cannot tell"
VERDICTS = (AGREE, DIFFER, OPEN)
TIMES, SUSTAINED, SPEEDS, MEMORY = "times", "sustained times", "ratios of speeds", "peaks of memory"
STEADY = "ratios of speeds agree although times differ"
GROUPS = (TIMES, SUSTAINED, SPEEDS, MEMORY)

# smaller differences of these explain nothing
CLOCK, POWER = 0.005, 0.03  # as shares
TEMPERATURE_C = 3.0
MIN_COMMON = 5  # pairs that one factor is looked for in
SAME_AS_CLOCKS = 0.01  # a factor and a change of clocks this close are one


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Samples of one thing that a record says."""

    group: str
    name: str
    unit: str  # s, x or bytes
    samples: tuple[float, ...]
    exact: bool = False  # one value without noise


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Something in the records that may be why two of them differ."""

    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what} {self.detail}".strip()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One quantity of one case in two sessions, A and B."""

    case: str
    quantity: str
    group: str
    unit: str
    device: str
    a: float  # medians
    b: float
    samples: tuple[int, int]
    dates: tuple[str, str]
    ratio: float  # b / a
    interval: tuple[float, float] | None  # of the ratio; None with too few samples
    clocks_mhz: tuple[float, float] | None  # medians; None where one was not read
    reasons: tuple[Reason, ...]

    def verdict(self, within: float) -> str:
        """Agree: all of the interval is within that share of 1; differ: none of it is; or cannot tell."""
        found = ratios.verdict(self.interval, within)
        return {ratios.SAME: AGREE, ratios.OPEN: OPEN}.get(found, DIFFER)

    @property
    def off(self) -> float:
        return abs(self.ratio - 1)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What pairs of one group come to; beside the verdicts, of those with enough samples if there are any."""

    group: str
    verdicts: Mapping[str, int]
    bounded: int  # pairs with enough samples
    median_off: float  # |ratio - 1|
    mean_ratio: float  # geometric
    worst: Pair

    def __str__(self) -> str:
        pairs = sum(self.verdicts.values())
        of = "" if self.bounded == pairs else f" (of {self.bounded})"
        return (
            f"{self.group}: {pairs} pair{'s' if pairs > 1 else ''}, {_counts(self.verdicts)}; "
            f"median |B/A - 1|{of} {percent(self.median_off)}; geometric mean of B/A{of} "
            f"{self.mean_ratio:.4f}; farthest {self.worst.case}, {self.worst.quantity}: "
            f"{self.worst.ratio:.4f}"
        )


@dataclass(frozen=True, kw_only=True)
class Common:
    """The factor that all times moved by, if they moved by one."""

    factor: float  # the median ratio
    interval: tuple[float, float]
    pairs: int
    residual: float  # median |ratio / factor - 1|
    verdicts: Mapping[str, int]  # with the factor divided out
    clocks_mhz: tuple[float, float] | None  # medians over the pairs that have readings

    @property
    def explains(self) -> bool:
        """The interval leaves 1 out, and dividing by the factor leaves less than half of what it is off."""
        moved = not self.interval[0] <= 1 <= self.interval[1]
        return moved and self.residual < abs(self.factor - 1) / 2

    def __str__(self) -> str:
        low, high = self.interval
        found = f"{self.factor:.4f} [{low:.4f}, {high:.4f}] over {self.pairs} pairs"
        left = f"median |residual| {percent(self.residual)}"
        if self.explains:
            text = f"times moved by a common factor, {found}; without it {_counts(self.verdicts)}, {left}"
        else:
            text = f"times moved by no common factor: the median of B/A is {found}, {left}"
        if self.clocks_mhz is None:
            return text
        a, b = self.clocks_mhz
        as_much = self.explains and abs(self.factor * b / a - 1) < SAME_AS_CLOCKS
        return f"{text}; clocks{' moved by as much' if as_much else ''}: {_change(a, b)}"


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Two records of one case, A and B."""

    a: Record
    b: Record


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Everything that was paired, and what it comes to at a limit."""

    within: float  # a share
    pairs: tuple[Pair, ...]
    shared: tuple[Reason, ...]  # what differs in all pairs, and is therefore not among the reasons of each
    lacking: tuple[str, ...]  # cases that gave a number in one session only, with what the other says
    common: Common | None  # None with too few pairs

    def verdict(self, pair: Pair) -> str:
        return pair.verdict(self.within)

    @property
    def verdicts(self) -> Mapping[str, int]:
        """Pairs by verdict."""
        return Counter(map(self.verdict, self.pairs))

    @property
    def differs(self) -> bool:
        """A pair differs, or a case gave a number in one session only."""
        return bool(self.verdicts[DIFFER] or self.lacking)

    @property
    def summaries(self) -> list[Summary]:
        found = []
        for group in GROUPS:
            pairs = [pair for pair in self.pairs if pair.group == group]
            if pairs:
                bounded = _bounded(pairs) or pairs
                found.append(
                    Summary(
                        group=group,
                        verdicts=Counter(map(self.verdict, pairs)),
                        bounded=len(bounded),
                        median_off=intervals.median([pair.off for pair in bounded]),
                        mean_ratio=geometric_mean([pair.ratio for pair in bounded]),
                        worst=max(bounded, key=lambda pair: abs(math.log(pair.ratio))),
                    )
                )
        return found

    def residual(self, pair: Pair) -> Pair | None:
        """The pair of a time, burst or sustained, with the common factor divided out; None without one."""
        if self.common is None or not self.common.explains:
            return None
        of_it = pair.group in (TIMES, SUSTAINED) and pair.interval is not None
        return _divided(pair, self.common.factor) if of_it else None

    def why(self, pair: Pair) -> list[str]:
        """What may be why a pair does not agree; nothing for one that does."""
        if self.verdict(pair) == AGREE:
            return []
        told = [str(reason) for reason in pair.reasons]
        residual = self.residual(pair)
        if residual is not None:
            told.insert(0, _BY_FACTOR[self.verdict(residual)])
        return told or ["only what all pairs have" if self.shared else "nothing in the records"]

    def findings(self) -> list[str]:
        """Everything there is to say beside the pairs themselves, a sentence each."""
        told = [str(summary) for summary in self.summaries]
        told += [str(self.common)] if self.common is not None else []
        told += [STEADY] if self._steady() else []
        if self.shared:
            told.append(f"differs in all pairs: {'; '.join(map(str, self.shared))}")
        off = [pair for pair in self.pairs if self.verdict(pair) != AGREE]
        if off:
            counted = Counter(what for pair in off for what in {reason.what for reason in pair.reasons})
            silent = sum(not pair.reasons for pair in off)
            causes = [
                f"{what.removesuffix(':')} ({count})" for what, count in sorted(counted.items(), key=_most)
            ]
            causes += [f"nothing of its own ({silent})"] if silent else []
            told.append(f"beside the {len(off)} pairs that do not agree stands: {', '.join(causes)}")
        told += [f"a number on one side only: {one}" for one in self.lacking]
        return told

    def _steady(self) -> bool:
        """Ratios of speeds agree, and do not differ anywhere, although times differ."""
        speeds = {self.verdict(pair) for pair in self.pairs if pair.group == SPEEDS}
        times = {self.verdict(pair) for pair in self.pairs if pair.group == TIMES}
        return AGREE in speeds and DIFFER not in speeds and DIFFER in times


_BY_FACTOR = {
    AGREE: "the common factor",
    DIFFER: "more than the common factor",
    OPEN: "the common factor, as far as noise lets tell",
}
_ENDS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def _counts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)


def _bounded(pairs: Iterable[Pair]) -> list[Pair]:
    """Those with enough samples for an interval: a single pass moves no mean."""
    return [pair for pair in pairs if pair.interval is not None]


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _divided(pair: Pair, factor: float) -> Pair:
    interval = pair.interval and (pair.interval[0] / factor, pair.interval[1] / factor)
    return replace(pair, ratio=pair.ratio / factor, interval=interval)


def percent(share: float) -> str:
    """Two digits of a share, in per cent."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def value_text(value: float, unit: str) -> str:
    """A median with its unit, for a person."""
    if unit == "s":
        return f"{tables.milliseconds(value)} ms"
    return f"{value:.4f}x" if unit == "x" else f"{value / 2**20:,.1f} MiB"


# pairing


def match(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> list[Matched]:
    """Pair the newest records of every case that two sessions hold, on the same device unless across.

    A record that both hold is no pair.
    """
    one, other = _newest(first, across), _newest(second, across)
    return [Matched(a=one[name], b=other[name]) for name in one if name in other and one[name] != other[name]]


def repeats(records: Iterable[Record]) -> list[Matched]:
    """Pair the newest record of every case and device with each older one."""
    histories: dict[tuple[str, str], dict[str, Record]] = {}
    for record in _dated(records):
        histories.setdefault(_identity(record, across=False), {})[to_line(record)] = record
    found = []
    for history in histories.values():
        *older, newest = history.values()
        found += [Matched(a=one, b=newest) for one in older]
    return found


def devices(records: Iterable[Record]) -> list[str]:
    """Devices that something was measured on."""
    found = {here.device for here in map(labels.environment, records) if here is not None}
    return sorted(found - {""})


def alone(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> tuple[int, int]:
    """How many cases only the one session holds, and only the other."""
    one, other = _newest(first, across).keys(), _newest(second, across).keys()
    return len(one - other), len(other - one)


def _newest(records: Iterable[Record], across: bool) -> dict[tuple[str, str], Record]:
    return {_identity(record, across): record for record in _dated(records)}


def _dated(records: Iterable[Record]) -> list[Record]:
    """Records of cases that were measured or tried, in the order they were made."""
    return sorted((record for record in records if quantities(record) or _failed_here(record)), key=_date)


def _failed_here(record: Record) -> bool:
    return failed(record) and not (isinstance(record, Memory) and record.predicted)


def _date(record: Record) -> str:
    here = labels.environment(record)
    return here.date if here is not None else ""


def _identity(record: Record, across: bool) -> tuple[str, str]:
    here = labels.environment(record)
    return case(record), "" if across or here is None else here.device


# comparing


def quantities(record: Record) -> list[Quantity]:
    """What may agree or not of a record; nothing for kinds that time nothing.

    Any kind with times_s has the times of its calls; those below have something else, or more.
    """
    if isinstance(record, Interleaved):
        return [*_arms(record), *_speeds(record)]
    if isinstance(record, Memory):
        if record.use is None or record.predicted:
            return []
        peak = (float(record.use.peak_bytes),)
        return [Quantity(group=MEMORY, name="peak", unit="bytes", samples=peak, exact=True)]
    if isinstance(record, Ceiling):
        unit = "1 GB" if record.what == "copy" else "1 GFLOP"
        scaled = tuple(1e9 * time / record.work for time in record.times_s)
        return [Quantity(group=TIMES, name=f"median of {unit}", unit="s", samples=scaled)]
    times: tuple[float, ...] = getattr(record, "times_s", ())
    found = [Quantity(group=TIMES, name="median", unit="s", samples=times)] if times else []
    if isinstance(record, Throughput) and record.sustained_times_s:
        held = record.sustained_times_s
        found.append(Quantity(group=SUSTAINED, name="sustained median", unit="s", samples=held))
    return found


def _arms(record: Interleaved) -> list[Quantity]:
    return [
        Quantity(group=TIMES, name=f"median of {name}", unit="s", samples=record.times_s(arm))
        for arm, name in enumerate(record.arms)
    ]


def _speeds(record: Interleaved) -> list[Quantity]:
    reference = record.arms[0]
    return [
        Quantity(
            group=SPEEDS,
            name=f"speed of {name} / {reference}",
            unit="x",
            samples=tuple(map(math.exp, ratios.log_ratios(record, arm))),
        )
        for arm, name in enumerate(record.arms)
        if arm
    ]


def compare(matched: Sequence[Matched], within: float) -> Agreement:
    """Set every quantity of every pair of records side by side, at a limit that is a share."""
    pairs: list[Pair] = []
    lacking: list[str] = []
    for both in matched:
        a = {quantity.name: quantity for quantity in quantities(both.a)}
        b = {quantity.name: quantity for quantity in quantities(both.b)}
        common = [name for name in a if name in b]
        pairs += [_pair(both, a[name], b[name]) for name in common]
        if not common and (a or b):
            lacking.append(f"{labels.name(both.a)}: {_outcome('A', both.a)}, {_outcome('B', both.b)}")
    everywhere = pairs[0].reasons if len(pairs) > 1 else ()
    shared = tuple(reason for reason in everywhere if all(reason in pair.reasons for pair in pairs))
    return Agreement(
        within=within,
        pairs=tuple(
            replace(pair, reasons=tuple(reason for reason in pair.reasons if reason not in shared))
            for pair in pairs
        ),
        shared=shared,
        lacking=tuple(lacking),
        common=_common([pair for pair in _bounded(pairs) if pair.group == TIMES], within),
    )


def _common(pairs: Sequence[Pair], within: float) -> Common | None:
    if len(pairs) < MIN_COMMON:
        return None
    import numpy

    logs = [math.log(pair.ratio) for pair in pairs]
    factor = math.exp(intervals.median(logs))
    low, high = numpy.exp(numpy.quantile(ratios.resampled_medians(logs), _ENDS))
    clocks = [pair.clocks_mhz for pair in pairs if pair.clocks_mhz is not None]
    return Common(
        factor=factor,
        interval=(float(low), float(high)),
        pairs=len(pairs),
        residual=intervals.median([abs(pair.ratio / factor - 1) for pair in pairs]),
        verdicts=Counter(_divided(pair, factor).verdict(within) for pair in pairs),
        clocks_mhz=(intervals.median([a for a, _ in clocks]), intervals.median([b for _, b in clocks]))
        if clocks
        else None,
    )


def _outcome(side: str, record: Record) -> str:
    if isinstance(record, Skipped | NotCompared | Memory) and record.status != "ok":
        return f"{side} {record.status}"
    return f"{side} measured"


def _pair(both: Matched, a: Quantity, b: Quantity) -> Pair:
    ratio = intervals.median(b.samples) / intervals.median(a.samples)
    here = labels.environment(both.b)
    assert here is not None  # quantities of a note: none
    return Pair(
        case=labels.name(both.b),
        quantity=b.name,
        group=b.group,
        unit=b.unit,
        device=here.device,
        a=intervals.median(a.samples),
        b=intervals.median(b.samples),
        samples=(len(a.samples), len(b.samples)),
        dates=(_date(both.a), _date(both.b)),
        ratio=ratio,
        interval=(ratio, ratio) if b.exact else ratio_interval(a.samples, b.samples),
        clocks_mhz=_both(_median(_clocks(both.a)), _median(_clocks(both.b))),
        reasons=tuple(_reasons(both, a, b)),
    )


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of median(b) / median(a), by resampling both; None with too few samples of either."""
    import numpy

    if min(len(a), len(b)) < MIN_SAMPLES:
        return None
    draw = numpy.random.default_rng(0)
    low, high = numpy.quantile(_medians(b, draw) / _medians(a, draw), _ENDS)
    return float(low), float(high)


def _medians(samples: Sequence[float], draw: "Generator") -> "NDArray[float64]":
    """Medians of resamples, as far apart as those of samples that follow each other.

    The rank of the median of n independent samples has a beta distribution. Passes that a drifting machine
    slows for seconds together say less than n independent ones: n is then what they are worth.
    """
    import numpy

    n, worth = len(samples), independent(samples)
    ranks = draw.beta((worth + 1) / 2, (worth + 1) / 2, RESAMPLES)
    return numpy.interp(ranks * n - 0.5, numpy.arange(n), numpy.sort(samples))


def independent(samples: Sequence[float]) -> float:
    """How many independent samples say as much of the median: fewer than there are if neighbours are alike.

    What counts for a median is on which side of it a sample lies. The correlations of that are summed over
    pairs of lags as long as the sums are positive (Geyer's initial sequence), if neighbours are correlated
    significantly at all.
    """
    import numpy

    n = len(samples)
    sides = numpy.sign(numpy.asarray(samples) - intervals.median(samples))
    sides -= sides.mean()
    total = float(sides @ sides)

    def correlation(lag: int) -> float:
        return float(sides[:-lag] @ sides[lag:]) / total

    if total == 0 or correlation(1) < 2 / math.sqrt(n):
        return float(n)
    length = 1 + 2 * correlation(1)
    for lag in range(2, n - 1, 2):
        added = correlation(lag) + correlation(lag + 1)
        if added <= 0:
            break
        length += 2 * added
    return max(1.0, n / length)


# why


def _reasons(both: Matched, a: Quantity, b: Quantity) -> list[Reason]:
    """What the records hold that may be why, most telling first."""
    found = [*_of_environment(both), *_of_settings(both), *_of_telemetry(both)]
    for side, record, quantity in (("A", both.a, a), ("B", both.b, b)):
        clocks = _clocks(record) if quantity.group in (TIMES, SPEEDS) else ()
        disturbed = noise.noise(quantity.samples, clocks)
        found += [Reason(what=f"noise in {side}:", detail=", ".join(disturbed))] if disturbed else []
        warm = getattr(record, "warmup_stationary", True)
        if warm is False or (isinstance(warm, tuple) and not all(warm)):
            found.append(Reason(what=f"warm-up of {side} not stationary", detail=""))
        if getattr(record, "stopped_by", "") == "budget" and quantity.group != SUSTAINED:
            found.append(Reason(what=f"sampling of {side} stopped by its budget", detail=""))
        if len(quantity.samples) < MIN_SAMPLES and not quantity.exact:
            found.append(Reason(what=f"few samples in {side}:", detail=str(len(quantity.samples))))
    return found


def _of_environment(both: Matched) -> list[Reason]:
    a, b = labels.environment(both.a), labels.environment(both.b)
    assert a is not None
    assert b is not None
    one, other = asdict(a), asdict(b)
    if one["commit"] != other["commit"] or one["code"] == other["code"]:
        del one["code"]  # the commit says it
    changed = [name for name in one if name not in ("date", "device_type") and one[name] != other[name]]
    found = [Reason(what=name, detail=f"{one[name] or '-'} -> {other[name] or '-'}") for name in changed]
    if "commit" in changed and a.code == b.code:
        at = changed.index("commit")
        found[at] = replace(found[at], detail=f"{found[at].detail} (the same code)")
    return found


def _of_settings(both: Matched) -> list[Reason]:
    """Settings that are no part of the case: switches as they stood, budgets, the size that was fastest."""
    found = []
    for name in ("matmul_tf32", "conv_tf32", "size"):
        one, other = getattr(both.a, name, None), getattr(both.b, name, None)
        if one != other:
            found.append(Reason(what=name.replace("_", " "), detail=f"{one} -> {other}"))
    budgets = [getattr(getattr(record, "run", None), "budget_s", None) for record in (both.a, both.b)]
    if budgets[0] != budgets[1]:
        found.append(Reason(what="budget", detail=f"{budgets[0]:g} -> {budgets[1]:g} s"))
    return found


def _of_telemetry(both: Matched) -> list[Reason]:
    found = []
    clocks = _both(_median(_clocks(both.a)), _median(_clocks(both.b)))
    if clocks and abs(clocks[1] / clocks[0] - 1) > CLOCK:
        found.append(Reason(what="clock", detail=_change(*clocks)))
    for side, record in (("A", both.a), ("B", both.b)):
        telemetry = getattr(record, "telemetry", None)
        if telemetry is not None and telemetry.held_back:
            found.append(Reason(what=f"clocks of {side} held back:", detail=", ".join(telemetry.held_back)))
    power = _both(_reading(both.a, "power_w"), _reading(both.b, "power_w"))
    if power and abs(power[1] / power[0] - 1) > POWER:
        found.append(Reason(what="power", detail=f"{power[0]:.0f} -> {power[1]:.0f} W"))
    heat = _both(_reading(both.a, "temperature_c"), _reading(both.b, "temperature_c"))
    if heat and abs(heat[1] - heat[0]) >= TEMPERATURE_C:
        found.append(Reason(what="temperature", detail=f"{heat[0]:.0f} -> {heat[1]:.0f} °C"))
    return found


def _change(a: float, b: float) -> str:
    return f"{a:.0f} -> {b:.0f} MHz ({100 * (b / a - 1):+.1f} %)"


def _clocks(record: Record) -> tuple[float, ...]:
    if isinstance(record, Interleaved):
        return tuple(clock for clock in record.clocks_mhz if clock is not None)
    telemetry: Any = getattr(record, "telemetry", None)
    return telemetry.clocks_mhz if telemetry is not None else ()


def _reading(record: Record, name: str) -> float | None:
    telemetry = getattr(record, "telemetry", None)
    return None if telemetry is None else _median(getattr(telemetry, name))


def _median(values: Sequence[float]) -> float | None:
    return intervals.median(values) if values else None


def _both(one: float | None, other: float | None) -> tuple[float, float] | None:
    return None if one is None or other is None else (one, other)
