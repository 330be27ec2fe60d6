"""Measured values behind verdicts: ratios of speeds, slow-downs, training steps per second.

A ratio of speeds comes from interleaved rounds (bench.versus, 99 % interval over processes or runs), or from
two models timed separately under one setting (95 % bootstrap of both medians, widened by the difference
between visits of one case in the same records or in bench.scaling of the same work and device). A slow-down
comes from bench.scaling; or from comparisons at two sizes: of one model the ratio of its times, with the
variation between hours in the interval, of two models the quotient of two interleaved ratios, in which slow
changes of the machine cancel; or from two sizes timed separately.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from baselines.claims import Claim
from bench.analysis.rooflines import roofline
from bench.analysis.scaling import resolution
from bench.analysis.speed import speed_ratios
from bench.analysis.speed.settings import Setting, setting_of
from bench.analysis.speed.speed_ratios import Group
from bench.records.base import Environment, ModelCase, Record, Size
from bench.records.comparison import Comparison
from bench.records.throughput import Throughput
from bench.stats import power_law, processes, ratios
from bench.stats.power_law import Curve, Drift, Interval, Point
from reports.naming import order
from reports.selection import remembered

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

    def rounds_of(self, model: str, res: Size) -> Mapping[Setting, Sequence[tuple[Comparison, ...]]]:
        """The comparisons of a model at a size, by setting."""
        return self._rounds.get((model, res), {})

    @cached_property
    def cases(self) -> dict[Setting, ModelCase]:
        """A case of every setting of a comparison."""
        return {
            setting_of(case, runs[-1].environment.device): case
            for runs in self.comparisons
            for case in runs[-1].arm_cases
        }

    @cached_property
    def _rounds(self) -> dict[tuple[str, Size], dict[Setting, list[tuple[Comparison, ...]]]]:
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
        return None if visits is None else _point(res, visits)

    def visits(self, *cases: tuple[Setting, str, Size]) -> tuple[Throughput, ...]:
        return tuple(visit for case in cases for visit in self.separate[case])


@remembered
def timings(records: Sequence[Record]) -> Timings:
    """Group the timed records. Order and duplicates do not matter."""
    ordered = sorted({r.age: r for r in records if isinstance(r, Throughput)}.values(), key=lambda r: r.age)
    visits: dict[str, dict[tuple[Setting, str, Size], list[Throughput]]] = {}
    for record in ordered:
        place = setting_of(record.case, record.environment.device), record.case.model, record.case.res
        visits.setdefault(record.case.work, {}).setdefault(place, []).append(record)
    separate, steps = (_of_newest_code(visits.get(work, {})) for work in ("inference", "training"))
    points: dict[Setting, list[Point]] = {}
    for (setting, _, res), kept in separate.items():
        points.setdefault(setting, []).append(_point(res, kept))
    studies = resolution.studies(sorted(records, key=lambda record: record.age))
    return Timings(
        comparisons=tuple(speed_ratios.by_case(r for r in records if isinstance(r, Comparison))),
        separate=separate,
        drifts={s: _drift(s, points[s], studies, "inference") for s in sorted(points)},
        studies=tuple(studies),
        steps=steps,
    )


def _drift(
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


def _point(res: Size, visits: Sequence[Throughput]) -> Point:
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
            found.append(_separate(setting, value, interval, visits, drift))
    return found


def interleaved(timed: Timings, model: str, reference: str, res: Size) -> list[Measured]:
    """The ratios of speeds of two models at a size that interleaved rounds give.

    Models that took part in no comparison together are compared through models that both were compared with,
    if they were so under the same setting.
    """
    by_setting = [
        interleaved_under(timed, setting, model, reference, res) for setting in timed.rounds_of(model, res)
    ]
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
            _of_runs(runs, *pair)
            for runs in timed.rounds_of(model, res).get(alone, ())
            if (pair := _places(timed, alone, runs, (model, reference)))
        ] or _chained(timed, alone, model, reference, res)
        timed.ratios[alone, model, reference, res] = known
    return known


def _places(
    timed: Timings, setting: Setting, runs: Sequence[Comparison], models: Sequence[str]
) -> tuple[int, ...]:
    """The arms of some models under a setting in a comparison; empty unless all took part."""
    arms = Group(tuple(runs)).arms
    wanted = [replace(timed.cases[setting], model=model).arm for model in models]
    return tuple(map(arms.index, wanted)) if {*wanted} <= {*arms} else ()


def most_repeated(found: Iterable[Measured]) -> Measured | None:
    """Of the interleaved ratios of two models, the one of most processes that gives a verdict."""
    sound = [one for one in found if one.interval is not None and not one.refused]
    return max(sound, key=_processes, default=None)


def _processes(one: Measured) -> int:
    return sum(record.processes for record in one.records if isinstance(record, Comparison))


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


def _of_runs(runs: Sequence[Comparison], arm: int, against: int) -> Measured:
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


def slow_downs(timed: Timings, model: str, sizes: tuple[int, ...]) -> list[Measured]:
    """The growth of each model's time per image between two sizes."""

    def growth(curves: Sequence[Curve]) -> tuple[float, Interval | None]:
        found = power_law.growth(curves[0], *map(float, sizes))
        return found.ratio, found.interval

    found = _over_sizes(timed, (model,), sizes, growth)
    for setting, (small, large) in _at_both_sizes(timed, (model,), sizes).items():
        arms = [_places(timed, setting, runs, (model,)) for runs in (small, large)]
        a, b = (speed_ratios.times_s(runs, arm) for runs, (arm,) in zip((small, large), arms, strict=True))
        device = large[-1].environment.device_type
        ends = processes.ratio_interval(a, b, hour_sd=processes.HOUR_SD.get(device, 0.0))
        found.append(
            Measured(
                value=processes.middle(b) / processes.middle(a),
                interval=ends,
                how=TWO_RUNS,
                setting=setting,
                records=(*small, *large),
                refused=ONE_PROCESS * (min(Group(small).processes, Group(large).processes) == 1),
            )
        )
    return found


def relative_slow_downs(timed: Timings, model: str, reference: str, sizes: tuple[int, ...]) -> list[Measured]:
    """The growth of each model's time between two sizes, divided by that of another model."""
    small, large = map(float, sizes)

    def growth(curves: Sequence[Curve]) -> tuple[float, Interval | None]:
        return power_law.growth_ratio(curves[0], curves[1], small, large)

    found = _over_sizes(timed, (model, reference), sizes, growth)
    for setting, at_sizes in _at_both_sizes(timed, (model, reference), sizes).items():
        arms = [_places(timed, setting, runs, (model, reference)) for runs in at_sizes]
        speeds = [_of_runs(runs, *pair) for runs, pair in zip(at_sizes, arms, strict=True)]
        logs = [speed_ratios.pooled(runs, *pair) for runs, pair in zip(at_sizes, arms, strict=True)]
        found.append(
            Measured(
                value=speeds[0].value / speeds[1].value,
                interval=processes.log_sum([logs[0], -logs[1]]).ratio_interval(ratios.CONFIDENCE)
                if logs[0] and logs[1]
                else None,
                how=INTERLEAVED,
                setting=setting,
                records=(*speeds[0].records, *speeds[1].records),
                refused=speeds[0].refused or speeds[1].refused,
            )
        )
    return found


def _at_both_sizes(
    timed: Timings, models: tuple[str, ...], sizes: tuple[int, ...]
) -> dict[Setting, list[tuple[Comparison, ...]]]:
    """The newest comparison of some models at each of two sizes, under every setting that has both."""
    found: dict[Setting, dict[Size, tuple[Comparison, ...]]] = {}
    for runs in sorted(timed.comparisons, key=lambda runs: (Group(runs).processes > 1, runs[-1].age)):
        for case in runs[-1].arm_cases:
            setting = setting_of(case, runs[-1].environment.device)
            if case.res in sizes and _places(timed, setting, runs, models):
                found.setdefault(setting, {})[case.res] = runs
    return {
        setting: [of[res] for res in sizes] for setting, of in sorted(found.items()) if {*sizes} <= of.keys()
    }


def _over_sizes(
    timed: Timings,
    models: tuple[str, ...],
    sizes: tuple[int, ...],
    value_of: Callable[[Sequence[Curve]], tuple[float, Interval | None]],
) -> list[Measured]:
    found = []
    for study in timed.studies:
        curves = [study.curve(model, "time", sizes) for model in models]
        if study.setting.work == "inference" and all(set(sizes) <= set(curve.sides) for curve in curves):
            value, interval = value_of(curves)
            batches = [one.batch for one in study.sizes if one.model in models and one.res in sizes]
            shrunk = [f"down to batch {min(batches)}"] if min(batches) < max(batches) else []
            one = Measured(
                value=value,
                interval=interval,
                how=STUDY,
                setting=Setting(
                    device=study.setting.device,
                    precision=study.setting.precision,
                    batch=max(batches),
                    switches=(*study.setting.switches, *shrunk),
                ),
                records=study.records_of(*models),
                refused=resolution.why_refused(study.drift),
            )
            found.append(one)
    for setting, drift in timed.drifts.items():
        points = [[timed.point(setting, model, res) for res in sizes] for model in models]
        known = [[point for point in of if point is not None] for of in points]
        if all(len(of) == len(sizes) for of in known):
            value, interval = value_of([Curve(points=tuple(of), drift=drift) for of in known])
            visits = timed.visits(*((setting, model, res) for model in models for res in sizes))
            found.append(_separate(setting, value, interval, visits, drift))
    return found


def steps_per_s(timed: Timings, claim: Claim) -> list[Measured]:
    """Training steps per second of one GPU at its share of the batch, on GPUs of the claim's type only."""
    batch, gpu = int(claim.batch.split()[0]), claim.device.partition(" x ")[2]
    found = []
    for (setting, model, res), visits in timed.steps.items():
        named = roofline.gpu_named(setting.device) or ""
        fits = (model, (res,), setting.batch) == (claim.model, claim.sizes, batch) and gpu in named
        if fits and visits[-1].case.checkpointing:
            point = _point(res, visits)
            drift = _drift(setting, [point], timed.studies, "training")
            (interval,) = power_law.intervals(Curve(points=(point,), drift=drift))
            rates = interval and (1 / interval[1], 1 / interval[0])
            found.append(_separate(setting, 1 / point.cost, rates, visits, drift))
    return found


def _separate(
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
