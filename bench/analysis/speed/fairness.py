"""Ranks of families by speed under every setting, with ties where the interval of a ratio contains 1.

Two models of one size under one setting are compared by interleaved rounds of both; else by a chain of
interleaved comparisons that share models; else by passes timed one after the other, the newest of each
version of the code. Intervals are 99 %, over processes or runs. Interleaved rounds within one process decide
nothing beyond it and are left out. Imports no torch.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from bench.analysis.speed import speed_ratios
from bench.analysis.speed.settings import Setting, setting_of
from bench.analysis.speed.speed_ratios import Group
from bench.records.base import ModelCase, Record
from bench.records.comparison import Comparison
from bench.records.throughput import Throughput
from bench.stats import ratios
from bench.store import codec
from models.registry import family_place

INTERLEAVED, CHAINED, SEPARATE = "interleaved", "interleaved, through shared models", "timed separately"
REFERENCE = "DiT"  # of the ratios that are shown, where it was measured


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Families by speed at one size of model."""

    size: str  # letters of the models' names
    speeds: Mapping[str, float]  # by family, as a multiple of the reference's; the fastest first
    faster: frozenset[tuple[str, str]]  # pairs of families of which the first is faster for certain

    def order(self, one: str, other: str) -> int:
        """1 if a family is faster than another for certain, -1 if it is slower, 0 for a tie."""
        return ((one, other) in self.faster) - ((other, one) in self.faster)

    def ties(self, family: str) -> list[str]:
        return [other for other in self.speeds if other != family and not self.order(family, other)]

    def text(self, family: str) -> str:
        """The rank: one more than the number of families that are faster for certain; 2= in a tie."""
        if family not in self.speeds:
            return ""
        rank = 1 + sum(self.order(other, family) == 1 for other in self.speeds)
        return f"{rank}{'=' if self.ties(family) else ''}"

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        return combinations(sorted(self.speeds, key=place), 2)


@dataclass(frozen=True, kw_only=True)
class MeasuredRanks(Ranks):
    """Ranks by measured speeds under one setting."""

    setting: Setting
    methods: tuple[str, ...]  # of the ratios
    records: tuple[Record, ...] = field(repr=False)


def place(family: str) -> tuple[int, str]:
    """Sorting key of families: the order of the registry, others last."""
    return family_place(family), family


def size_of(model: str, family: str) -> str:
    """The letters of size in a model's name, XL of DiT-XL/2; blank for ablations and names without any."""
    name = model.removeprefix(f"{family}-")
    return "" if name == model or "@" in name else re.split(r"[/-]", name)[0]


@dataclass(frozen=True, kw_only=True)
class _Ratio:
    """Speed of one model / speed of another; the order is 0 where the interval contains 1."""

    value: float
    interval: tuple[float, float]
    method: str
    records: tuple[Record, ...]

    @property
    def order(self) -> int:
        return (self.interval[0] > 1) - (self.interval[1] < 1)


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """Interleaved comparisons by the setting that their arms share; passes by setting and model."""

    groups: Mapping[Setting, Sequence[Group]]
    passes: Mapping[tuple[Setting, str], Sequence[Throughput]]

    def ratio(self, device: str, one: ModelCase, other: ModelCase) -> _Ratio | None:
        """The ratio of two cases of one setting; None where nothing compares them."""
        groups = self.groups.get(setting_of(one.common, device, one.res), ())
        found = speed_ratios.chained(groups, one.arm, other.arm)
        if found:
            return _Ratio(
                value=math.exp(found.log.mean),
                interval=found.log.ratio_interval(ratios.CONFIDENCE),
                method=INTERLEAVED if len(found.groups) == 1 else CHAINED,
                records=tuple(run for group in found.groups for run in group.runs),
            )
        setting = setting_of(one, device, one.res)
        runs = [self.passes.get((setting, case.model), ()) for case in (one, other)]
        if not all(runs) or runs[0][-1].environment.torch != runs[1][-1].environment.torch:
            return None
        value, interval = speed_ratios.separate(*runs)
        return _Ratio(value=value, interval=interval, method=SEPARATE, records=(*runs[0], *runs[1]))


def rankings(records: Iterable[Record]) -> list[MeasuredRanks]:
    """The ranks of every size under every setting in which two of its families can be compared."""
    stored = list(records)
    groups: dict[Setting, list[Group]] = {}
    members: dict[tuple[str, Setting], dict[str, ModelCase]] = {}

    def enter(case: ModelCase, device: str) -> None:
        size = size_of(case.model, case.family)
        of_family = members.setdefault((size, setting_of(case, device, case.res)), {})
        # of several patches the smallest
        of_family[case.family] = min(of_family.get(case.family, case), case, key=lambda one: one.model)

    compared = speed_ratios.by_case(record for record in stored if isinstance(record, Comparison))
    ranked = sorted(map(Group, compared), key=lambda one: (one.processes, one.runs[-1].age), reverse=True)
    for group in ranked:
        runs, device = group.runs, group.runs[-1].environment.device
        if group.processes > 1:
            arms = runs[-1].arm_cases
            setting = setting_of(arms[0].common, device, arms[0].res)
            groups.setdefault(setting, []).append(group)
            for arm in arms:
                enter(arm, device)
    passes: dict[tuple[Setting, str], Sequence[Throughput]] = {}
    timed = speed_ratios.by_case(
        codec.newest(
            record for record in stored if isinstance(record, Throughput) and record.case.work == "inference"
        )
    )
    for visits in sorted(timed, key=lambda visits: visits[-1].age):
        case, device = visits[-1].case, visits[-1].environment.device
        passes[setting_of(case, device, case.res), case.model] = visits
        enter(case, device)
    evidence = _Evidence(groups=groups, passes=passes)
    found = [
        ranks
        for (size, setting), cases in members.items()
        if size and (ranks := _ranks(size, setting, cases, evidence))
    ]
    return sorted(found, key=lambda one: (one.size, one.setting.device, one.setting.place))


def _ranks(
    size: str, setting: Setting, cases: Mapping[str, ModelCase], evidence: _Evidence
) -> MeasuredRanks | None:
    """The ranks of the families that can all be compared with each other; None below two."""
    known: dict[tuple[str, str], _Ratio] = {}
    for one, other in combinations(sorted(cases, key=place), 2):
        if ratio := evidence.ratio(setting.device, cases[one], cases[other]):
            known[one, other] = ratio
    degree = {name: sum(name in pair for pair in known) for name in cases}
    kept: list[str] = []
    for name in sorted(cases, key=lambda name: (-degree[name], place(name))):
        if all(tuple(sorted((name, other), key=place)) in known for other in kept):
            kept.append(name)
    if len(kept) < 2:
        return None
    known = {pair: ratio for pair, ratio in known.items() if {*pair} <= {*kept}}
    against = REFERENCE if REFERENCE in kept else min(kept, key=place)
    speeds = {against: 1.0}
    for (one, other), ratio in known.items():
        if against in (one, other):
            speeds[one if other == against else other] = ratio.value if other == against else 1 / ratio.value
    return MeasuredRanks(
        size=size,
        setting=setting,
        speeds={name: speeds[name] for name in sorted(speeds, key=lambda name: (-speeds[name], place(name)))},
        faster=frozenset(
            pair if ratio.order == 1 else pair[::-1] for pair, ratio in known.items() if ratio.order
        ),
        methods=tuple(sorted({ratio.method for ratio in known.values()})),
        records=tuple({one.age: one for ratio in known.values() for one in ratio.records}.values()),
    )
