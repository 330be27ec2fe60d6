"""Measured slow-downs: the growth of a model's time with the size of images, alone or over that of another.

A slow-down comes from bench.scaling; or from comparisons at two sizes: of one model the ratio of its times,
with the variation between hours in the interval, of two models the quotient of two interleaved ratios, in
which slow changes of the machine cancel; or from two sizes timed separately.
"""

from collections.abc import Callable, Sequence

from bench.analysis.scaling import resolution
from bench.analysis.speed import speed_ratios
from bench.analysis.speed.settings import Setting, setting_of
from bench.analysis.speed.speed_ratios import Group
from bench.records.base import Size
from bench.records.comparison import Comparison
from bench.stats import power_law, processes, ratios
from bench.stats.power_law import Curve, Interval
from reports.claims.timed import (
    INTERLEAVED,
    ONE_PROCESS,
    STUDY,
    TWO_RUNS,
    Measured,
    Timings,
    of_runs,
    places,
    separately,
)


def slow_downs(timed: Timings, model: str, sizes: tuple[int, ...]) -> list[Measured]:
    """The growth of each model's time per image between two sizes."""

    def growth(curves: Sequence[Curve]) -> tuple[float, Interval | None]:
        found = power_law.growth(curves[0], *map(float, sizes))
        return found.ratio, found.interval

    found = _over_sizes(timed, (model,), sizes, growth)
    for setting, (small, large) in _at_both_sizes(timed, (model,), sizes).items():
        arms = [places(setting, runs, (model,)) for runs in (small, large)]
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
        arms = [places(setting, runs, (model, reference)) for runs in at_sizes]
        speeds = [of_runs(runs, *pair) for runs, pair in zip(at_sizes, arms, strict=True)]
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
            if case.res in sizes and places(setting, runs, models):
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
            found.append(separately(setting, value, interval, visits, drift))
    return found
