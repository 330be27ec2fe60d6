"""Learning curves: training runs grouped into studies, and their loss along steps, work, time or energy.

The runs of a study share seeds. A seed determines data order, timesteps, noise and initialisation seed, which
are the same for every model. Between two evaluations a curve is linear in the logarithm of the axis, or, from
step 0 to the next evaluation, in the axis itself. Curves are not extrapolated.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from bench.records.base import Record, Size, Skipped
from bench.records.training import Evaluation, Recipe, TrainingCase, TrainingRun
from bench.stats import intervals

Axis = Literal["steps", "images", "flops", "seconds", "joules"]
AXES: tuple[Axis, ...] = ("steps", "images", "flops", "seconds", "joules")
UNEVEN = 1.1  # ratio of the seconds of two seeds, which have equal work, above which seconds compare nothing
Curve = tuple[tuple[float, float], ...]  # (position on an axis, loss), in order
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class TrainingSetting:
    """Settings that runs must share to be compared."""

    recipe: Recipe
    res: Size
    latent_size: Size
    precision: str
    nondefault_settings: tuple[str, ...]  # in words
    processes: int
    device: str
    threads: int
    torch: str


@dataclass(frozen=True, kw_only=True)
class TrainingStudy:
    """Runs of several models under one setting."""

    setting: TrainingSetting
    runs: Mapping[str, Mapping[int, TrainingRun]]  # completed runs, by model and seed
    failed: tuple[TrainingRun | Skipped, ...]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.runs)

    @property
    def reference(self) -> str:
        """The reference of the comparisons: the first model of family DiT, or the first model."""
        return next((m for m in self.models if self.runs_of(m)[0].case.family == "DiT"), self.models[0])

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(model for model in self.models if model != self.reference)

    def runs_of(self, model: str) -> tuple[TrainingRun, ...]:
        return tuple(self.runs[model].values())

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes on which every model was measured; without seconds if those of equal work differ."""
        return tuple(
            axis
            for axis in AXES
            if not (axis == "seconds" and self.uneven_seconds)
            and all(mean_curve(self, model, axis) for model in self.models)
        )

    @cached_property
    def uneven_seconds(self) -> dict[str, float]:
        """Ratio of the slowest to the fastest seed's seconds, of the models where it exceeds UNEVEN."""
        seconds = {
            model: [run.last.seconds for run in self.runs_of(model) if run.last.seconds is not None]
            for model in self.models
        }
        ratios = {model: max(of) / min(of) for model, of in seconds.items() if of and min(of) > 0}
        return {model: ratio for model, ratio in ratios.items() if ratio > UNEVEN}

    def seeds(self, *models: str) -> tuple[int, ...]:
        """The seeds that all of these models have; the default is all models of the study."""
        shared = set.intersection(*(set(self.runs[model]) for model in models or self.models))
        return tuple(sorted(shared))


def setting_of(record: TrainingRun | Skipped) -> TrainingSetting:
    case, environment = record.case, record.environment
    assert isinstance(case, TrainingCase)
    return TrainingSetting(
        recipe=case.recipe,
        res=case.res,
        latent_size=case.latent_size,
        precision=case.precision,
        nondefault_settings=case.nondefault_settings,
        processes=case.processes,
        device=environment.device,
        threads=environment.threads,
        torch=environment.torch,
    )


def training_records(records: Sequence[Record]) -> list[TrainingRun | Skipped]:
    """The training runs among records of any kind, failed ones included."""
    return [
        record
        for record in records
        if isinstance(record, TrainingRun | Skipped) and isinstance(record.case, TrainingCase)
    ]


def studies(records: Sequence[Record]) -> list[TrainingStudy]:
    """Group runs into studies, in the order in which settings and models first occur.

    The newest record of a model and a seed counts. Settings without a completed run are left out; see
    `all_failed`.
    """
    found = []
    for setting, models in _newest(records).items():
        newest = [record for runs in models.values() for _, record in sorted(runs.items())]
        ended: dict[str, dict[int, TrainingRun]] = {}
        for record in newest:
            if isinstance(record, TrainingRun) and record.status == "ok":
                ended.setdefault(record.case.model, {})[record.case.seed] = record
        if ended:
            failed = tuple(record for record in newest if record.status != "ok")
            found.append(TrainingStudy(setting=setting, runs=ended, failed=failed))
    return found


def all_failed(records: Sequence[Record]) -> tuple[TrainingRun | Skipped, ...]:
    """The runs of settings in which every run failed, in order of first occurrence."""
    return tuple(
        record
        for models in _newest(records).values()
        if not any(record.status == "ok" for runs in models.values() for record in runs.values())
        for runs in models.values()
        for record in runs.values()
    )


def _newest(records: Sequence[Record]) -> dict[TrainingSetting, dict[str, dict[int, TrainingRun | Skipped]]]:
    """The newest record of each setting, model and seed."""
    newest: dict[TrainingSetting, dict[str, dict[int, TrainingRun | Skipped]]] = {}
    for record in training_records(records):
        assert isinstance(record.case, TrainingCase)
        runs = newest.setdefault(setting_of(record), {}).setdefault(record.case.model, {})
        before = runs.get(record.case.seed)
        if before is None or before.environment.date <= record.environment.date:
            runs[record.case.seed] = record
    return newest


# one curve


def curve(run: TrainingRun, axis: Axis = "steps") -> Curve:
    """The validation loss of one run along an axis; empty where joules were not measured."""
    return tuple(_points(run, axis).values())


def _points(run: TrainingRun, axis: Axis) -> dict[int, tuple[float, float]]:
    """The points of a curve by step. Evaluations with an unknown position, as of joules, are left out."""
    points = {}
    for evaluation in run.evaluations:
        position = _position(run, axis, evaluation)
        if position is not None:
            points[evaluation.step] = (position, evaluation.loss)
    return points if len(points) > 1 else {}


def _loss(evaluation: Evaluation, ema: int | None) -> float:
    """Of the trained weights, or of the average with an index in the recipe."""
    return evaluation.loss if ema is None else evaluation.ema_losses[ema]


def _position(run: TrainingRun, axis: Axis, evaluation: Evaluation) -> float | None:
    images = evaluation.step * run.case.recipe.batch
    return {
        "steps": float(evaluation.step),
        "images": float(images),
        "flops": 2.0 * run.train_macs * images,  # of forward and backward passes
        "seconds": evaluation.seconds,
        "joules": evaluation.joules if evaluation.step else 0.0,
    }[axis]


def loss_at(points: Curve, position: float) -> float | None:
    """Interpolate a curve; None before its first and beyond its last point."""
    for (left, before), (right, after) in itertools.pairwise(points):
        if left <= position <= right:
            return before + (after - before) * _share(left, right, position)
    return None


def reached_at(points: Curve, loss: float) -> float | None:
    """The position at which a curve first falls to a loss; None if it never does."""
    if points and points[0][1] <= loss:
        return points[0][0]
    for (left, before), (right, after) in itertools.pairwise(points):
        if after <= loss < before:
            share = (before - loss) / (before - after)
            return left + share * (right - left) if left <= 0 else left * (right / left) ** share
    return None


def _share(left: float, right: float, position: float) -> float:
    """Relative position between two points, on the scale on which the curve is linear."""
    if right == left:
        return 1.0
    return (
        math.log(position / left) / math.log(right / left) if left > 0 else (position - left) / (right - left)
    )


def common_steps(runs: Sequence[TrainingRun]) -> tuple[int, ...]:
    if not runs:
        return ()
    return tuple(sorted(set.intersection(*({at.step for at in run.evaluations} for run in runs))))


def loss_of_step(run: TrainingRun, step: int, ema: int | None = None) -> float:
    return next(_loss(evaluation, ema) for evaluation in run.evaluations if evaluation.step == step)


# means over seeds


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    values: tuple[float, ...]  # one a seed

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def interval(self) -> Interval | None:
        """95 %, Student's t; None below three seeds."""
        return intervals.mean_interval(self.values)

    @property
    def verdict(self) -> str:
        """Verdict on a difference: lower, higher, inconclusive, or blank without an interval."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return "lower" if high < 0 else "higher" if low > 0 else "inconclusive"


def final_loss(study: TrainingStudy, model: str, ema: int | None = None) -> Estimate:
    return Estimate(values=tuple(_loss(run.last, ema) for run in study.runs_of(model)))


@dataclass(frozen=True, kw_only=True)
class MeanPoint:
    """The mean of a model's curves at one evaluation."""

    position: float  # mean over seeds
    loss: Estimate


def mean_curve(study: TrainingStudy, model: str, axis: Axis) -> tuple[MeanPoint, ...]:
    """The mean over seeds at each evaluation that all seeds have; empty if the axis was not measured."""
    runs = [_points(run, axis) for run in study.runs_of(model)]
    return tuple(
        MeanPoint(
            position=fmean(run[step][0] for run in runs),
            loss=Estimate(values=tuple(run[step][1] for run in runs)),
        )
        for step in sorted(set.intersection(*map(set, runs)))
    )
