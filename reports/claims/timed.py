"""Measured speeds behind verdicts: timed records, and ratios of two models.

A ratio of speeds comes from interleaved rounds (bench.versus, 99 % interval over processes or runs), or from
two models timed separately under one setting (95 % bootstrap of both medians, widened by the difference
between visits of one case in the same records or in bench.scaling of the same work and device).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from bench.analysis.scaling import resolution
from bench.analysis.speed import speed_ratios
from bench.analysis.speed.settings import Setting, setting_of
from bench.analysis.speed.speed_ratios import Group
from bench.records.base import Environment, ModelCase, Record, Size
from bench.records.comparison import Comparison
from bench.records.throughput import Throughput
from bench.stats import power_law, ratios
from bench.stats.power_law import Drift, Interval, Point
from reports.naming import order
from reports.selection import grouped, remembered

ONE_PROCESS = "one process does not show the spread between processes"
INTERLEAVED, CHAINED = "interleaved, 99 %", "interleaved, through shared models, 99 %"
STUDY = "bench.scaling, 95 %"
TWO_RUNS, SEPARATE = "two comparisons, 95 %", "timed separately, 95 %"
METHODS = (INTERLEAVED, CHAINED, STUDY, TWO_RUNS, SEPARATE)  # the preferred first


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A value that was measured under one setting."""

    value: float
    interval: Interval | None  # None: too few samples
    how: str
    setting: Setting  # with the largest batch; the switches name a smaller one
    records: tuple[Record, ...]  # records of the samples
    refused: str  # reason that it gives no verdict; blank if it gives one
    remark: str = ""  # on clocks and on runs that differ; blank if none

    @property
    def environment(self) -> Environment:
        """The environment of the newest record of the device; records of counts name another, meta."""
        own = [r.environment for r in self.records if r.environment.device == self.setting.device]
        return max(own, key=lambda one: one.date)


@dataclass(frozen=True, kw_only=True, eq=False)
class Timings:
    """Timed passes, ready for ratios."""

    comparisons: tuple[tuple[Comparison, ...], ...]  # all runs of a case, the newest last
    separate: Mapping[tuple[Setting, str, Size], tuple[Throughput, ...]]  # all visits with the newest code
    drifts: Mapping[Setting, Drift | None]  # the difference between visits of one case; None: unknown
    studies: tuple[resolution.Study, ...]
    steps: Mapping[tuple[Setting, str, Size], tuple[Throughput, ...]]  # training steps with the newest code
    ratios: dict[tuple[Setting, str, str, Size], list["Measured"]] = field(default_factory=dict)  # computed

    @cached_property
    def cases(self) -> dict[Setting, ModelCase]:
        """A case of every setting of a comparison."""
        return {
            setting_of(case, runs[-1].environment.device): case
            for runs in self.comparisons
            for case in runs[-1].arm_cases
        }

    @cached_property
    def rounds(self) -> dict[tuple[str, Size], dict[Setting, list[tuple[Comparison, ...]]]]:
        """The comparisons of a model at a size, by setting."""
        found: dict[tuple[str, Size], dict[Setting, list[tuple[Comparison, ...]]]] = {}
        for runs in self.comparisons:
            for case in runs[-1].arm_cases:
                of = found.setdefault((case.model, case.res), {})
                of.setdefault(setting_of(case, runs[-1].environment.device), []).append(runs)
        return found

    @cached_property
    def groups(self) -> dict[tuple[Setting, Size], list[Group]]:
        """The comparisons under each setting, those of most processes first."""
        found: dict[tuple[Setting, Size], list[Group]] = {}
        ordered = sorted(map(Group, self.comparisons), key=lambda one: (one.processes, one.runs[-1].age))
        for group in reversed(ordered):
            case, device = group.runs[-1].arm_cases[0], group.runs[-1].environment.device
            found.setdefault((setting_of(case.common, device), case.res), []).append(group)
        return found

    @property
    def models(self) -> list[str]:
        names = {model for _, model, _ in self.separate}
        names |= {case.model for runs in self.comparisons for case in runs[-1].arm_cases}
        names |= {model for study in self.studies for model in study.models}
        return sorted(names, key=order)

    def point(self, setting: Setting, model: str, res: Size) -> Point | None:
        """Seconds of a pass at a size; None where it was not timed."""
        visits = self.separate.get((setting, model, res))
        return None if visits is None else point_of(res, visits)

    def visits(self, *cases: tuple[Setting, str, Size]) -> tuple[Throughput, ...]:
        return tuple(visit for case in cases for visit in self.separate[case])


@remembered
def timings(records: Sequence[Record]) -> Timings:
    """Group the timed records. Order and duplicates do not matter."""
    ordered = sorted({r.age: r for r in records if isinstance(r, Throughput)}.values(), key=lambda r: r.age)

    def case_of(visit: Throughput) -> tuple[Setting, str, Size]:
        return setting_of(visit.case, visit.environment.device), visit.case.model, visit.case.res

    separate, steps = (
        _of_newest_code(grouped((one for one in ordered if one.case.work == work), case_of))
        for work in ("inference", "training")
    )
    studies = resolution.studies(sorted(records, key=lambda record: record.age))
    return Timings(
        comparisons=tuple(speed_ratios.by_case(r for r in records if isinstance(r, Comparison))),
        separate=separate,
        drifts={
            setting: drift_of(setting, [point_of(at[2], separate[at]) for at in cases], studies, "inference")
            for setting, cases in sorted(grouped(separate, lambda case: case[0]).items())
        },
        studies=tuple(studies),
        steps=steps,
    )


def drift_of(
    setting: Setting, points: Sequence[Point], studies: Sequence[resolution.Study], work: str
) -> Drift | None:
    """The difference between visits of one case, or else that of the device's studies of the same work."""
    wanted = work, setting.device, setting.precision
    known = [
        study.drift
        for study in studies
        if (study.setting.work, study.setting.device, study.setting.precision) == wanted
    ]
    largest = max(filter(None, known), key=lambda drift: drift.sd, default=None)
    return power_law.drift_of(points) or largest


def point_of(res: Size, visits: Sequence[Throughput]) -> Point:
    processes_s = tuple(tuple(times_s) for visit in visits for times_s in visit.by_process_s)
    return Point(side=resolution.side_of(res), visits=processes_s)


def _of_newest_code(
    visits: Mapping[tuple[Setting, str, Size], Sequence[Throughput]],
) -> dict[tuple[Setting, str, Size], tuple[Throughput, ...]]:
    def software(visit: Throughput) -> tuple[str, str]:
        return visit.environment.code, visit.environment.torch

    return {
        case: tuple(visit for visit in visits[case] if software(visit) == software(visits[case][-1]))
        for case in sorted(visits, key=repr)
    }


def speeds(timed: Timings, model: str, reference: str, res: Size) -> list[Measured]:
    """Every ratio of speeds of two models at a size, above 1 where the first is faster."""
    found = interleaved(timed, model, reference, res)
    for setting, drift in timed.drifts.items():
        ours, theirs = timed.point(setting, model, res), timed.point(setting, reference, res)
        if ours is not None and theirs is not None:
            value, interval = power_law.cost_ratio(theirs, ours, drift)
            visits = timed.visits((setting, model, res), (setting, reference, res))
            found.append(separately(setting, value, interval, visits, drift))
    return found


def interleaved(timed: Timings, model: str, reference: str, res: Size) -> list[Measured]:
    """The ratios of speeds of two models at a size that interleaved rounds give.

    Models that took part in no comparison together are compared through models that both were compared with,
    if they were so under the same setting.
    """
    settings = timed.rounds.get((model, res), {})
    by_setting = [interleaved_under(timed, setting, model, reference, res) for setting in settings]
    direct = [of for of in by_setting if of and of[0].how == INTERLEAVED]
    return [one for of in [*direct, *(of for of in by_setting if of not in direct)] for one in of]


def interleaved_under(
    timed: Timings, setting: Setting, model: str, reference: str, res: Size
) -> list[Measured]:
    """The interleaved ratios of two models under one setting."""
    alone = replace(setting, is_interleaved=False)
    known = timed.ratios.get((alone, model, reference, res))
    if known is None:
        known = [
            of_runs(runs, *pair)
            for runs in timed.rounds.get((model, res), {}).get(alone, ())
            if (pair := places(alone, runs, (model, reference)))
        ] or _chained(timed, alone, model, reference, res)
        timed.ratios[alone, model, reference, res] = known
    return known


def places(setting: Setting, runs: Sequence[Comparison], models: Sequence[str]) -> tuple[int, ...]:
    """The arms of some models under a setting in a comparison; empty unless all took part."""
    device = runs[-1].environment.device
    arms = {
        case.model: arm for arm, case in enumerate(runs[-1].arm_cases) if setting_of(case, device) == setting
    }
    return tuple(arms[model] for model in models) if arms.keys() >= {*models} else ()


def most_repeated(found: Iterable[Measured]) -> Measured | None:
    """Of the interleaved ratios of two models, the one of most processes that gives a verdict."""

    def processes_of(one: Measured) -> int:
        return sum(record.processes for record in one.records if isinstance(record, Comparison))

    sound = [one for one in found if one.interval is not None and not one.refused]
    return max(sound, key=processes_of, default=None)


def _chained(timed: Timings, setting: Setting, model: str, reference: str, res: Size) -> list[Measured]:
    like = timed.cases.get(setting)
    if like is None:
        return []
    groups = timed.groups.get((setting_of(like.common, setting.device), res), ())
    ours, theirs = (replace(like, model=name).arm for name in (model, reference))
    ratio = speed_ratios.chained(groups, ours, theirs)
    if ratio is None:
        return []
    return [
        Measured(
            value=math.exp(ratio.log.mean),
            interval=ratio.log.ratio_interval(ratios.CONFIDENCE),
            how=CHAINED,
            setting=setting,
            records=tuple(run for group in ratio.groups for run in group.runs),
            refused="",
        )
    ]


def of_runs(runs: Sequence[Comparison], arm: int, against: int) -> Measured:
    """The mean ratio of all runs of a comparison (`speed_ratios`); one process in all gives no verdict."""
    sound = speed_ratios.sound(runs, arm, against)
    values = [run.ratio(arm, against) for run in sound]
    newest = sound[-1]
    found = speed_ratios.pooled(sound, arm, against)
    remarks = [newest.clock_remark(arm, against)]
    remarks += [f"{len(values)} runs gave {min(values):.3g} to {max(values):.3g}"] * (len(values) > 1)
    return Measured(
        value=math.exp(found.mean) if found else values[-1],
        interval=found.ratio_interval(ratios.CONFIDENCE) if found else newest.interval(arm, against),
        how=INTERLEAVED,
        setting=setting_of(newest.arm_cases[arm], newest.environment.device),
        records=tuple(sound),
        refused=newest.why_refused(arm, against) or ONE_PROCESS * (found is None),
        remark="; ".join(filter(None, remarks)),
    )


def separately(
    setting: Setting, value: float, interval: Interval | None, visits: tuple[Record, ...], drift: Drift | None
) -> Measured:
    return Measured(
        value=value,
        interval=interval,
        how=SEPARATE,
        setting=setting,
        records=visits,
        refused=resolution.why_refused(drift),
    )
