"""The table of a study: a row for every model with its loss, difference to the reference, and cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.analysis.learning import learning_curves, loss_comparison
from bench.analysis.learning.learning_curves import Estimate, TrainingStudy
from bench.records.base import Environment, Skipped
from bench.records.columns import ENVIRONMENT
from bench.records.training import TrainingCase, TrainingRun
from bench.tables.numbers import BLANK, fixed, fixed_interval, significant
from bench.tables.table import Column, Table, fields, unit


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """The runs of one model in a study."""

    model: str
    runs: tuple[TrainingRun | Skipped, ...]  # failed ones included
    study: TrainingStudy | None  # None if every run of every model failed
    reference: str

    @property
    def case(self) -> TrainingCase:
        case = self.runs[0].case
        assert isinstance(case, TrainingCase)
        return case

    @property
    def environment(self) -> Environment:
        return self.runs[0].environment

    @property
    def ended(self) -> tuple[TrainingRun, ...]:
        return tuple(run for run in self.runs if isinstance(run, TrainingRun) and run.status == "ok")

    @property
    def train_macs(self) -> int | None:
        return next((run.train_macs for run in self.runs if isinstance(run, TrainingRun)), None)

    @property
    def train_flops(self) -> int | None:
        """FLOPs of a whole run; None if no run is complete."""
        recipe = self.case.recipe
        return 2 * self.ended[0].train_macs * recipe.batch * recipe.steps if self.ended else None

    @property
    def seconds(self) -> tuple[float, ...] | None:
        """Seconds of every completed run; None if one run was not timed."""
        return _of_all(run.last.seconds for run in self.ended)

    @property
    def joules(self) -> tuple[float, ...] | None:
        """Joules of every completed run; None if one run has no energy."""
        return _of_all(run.last.joules for run in self.ended)

    def loss(self, ema: int | None = None) -> Estimate | None:
        if self.study is None or not self.ended:
            return None
        return learning_curves.final_loss(self.study, self.model, ema)

    @property
    def difference(self) -> Estimate | None:
        """Difference to the loss of the reference at equal steps."""
        study = self.study
        if study is None or self.model == self.reference or not {self.model, self.reference} <= {*study.runs}:
            return None
        found = loss_comparison.difference(study, self.model, reference=self.reference)
        return found.difference if found else None

    @property
    def passes(self) -> tuple[int, ...]:
        """Batches per pass of the runs; several if memory ran out."""
        return tuple(sorted({run.case.batch for run in self.runs if isinstance(run.case, TrainingCase)}))

    @property
    def remarks(self) -> tuple[str, ...]:
        failed = [
            f"seed {run.case.seed} {run.status}: {run.reason}"
            for run in self.runs
            if run.status != "ok" and isinstance(run.case, TrainingCase)
        ]
        passes = [f"passes of {', '.join(map(str, self.passes))} images"] if len(self.passes) > 1 else []
        return (*failed, *passes)


def _of_all(values: Iterable[float | None]) -> tuple[float, ...] | None:
    """The values; None if one is missing, or there is none."""
    found = tuple(values)
    known = tuple(value for value in found if value is not None)
    return known if known and len(known) == len(found) else None


def results(records: Sequence[TrainingRun | Skipped], reference: str) -> list[ModelResult]:
    """Group the records of one study by model, in order of first occurrence."""
    found = learning_curves.studies(records)
    by_model: dict[str, list[TrainingRun | Skipped]] = {}
    for record in records:
        assert isinstance(record.case, TrainingCase)
        by_model.setdefault(record.case.model, []).append(record)
    return [
        ModelResult(model=model, runs=tuple(runs), study=found[0] if found else None, reference=reference)
        for model, runs in by_model.items()
    ]


def results_of(study: TrainingStudy) -> list[ModelResult]:
    """The models of a study with their completed runs."""
    return [
        ModelResult(model=model, runs=study.runs_of(model), study=study, reference=study.reference)
        for model in study.models
    ]


_interval = partial(fixed_interval, 4)


def table(rows: Sequence[ModelResult]) -> Table[ModelResult]:
    """The table of these rows; the recipe determines the columns of the averages."""
    reference, decays = rows[0].reference, rows[0].case.recipe.ema_decays

    def average(i: int) -> Column[ModelResult]:
        return Column(f"EMA {decays[i]}", lambda r: _mean(r.loss(i)), _four, optional=True)

    compared: tuple[Column[ModelResult], ...] = (
        Column(f"loss - {reference}'s", lambda r: _mean(r.difference), partial(fixed, 5), key="difference"),
        Column("its 95 % interval", lambda r: _bounds(r.difference), _interval, key="difference_interval"),
        Column("verdict", lambda r: r.difference.verdict if r.difference else None),
    )
    return Table(
        title="Validation loss at the end of training",
        columns=(
            *fields("model"),
            *_RECIPE,
            Column("seeds", lambda r: len(r.ended), key="ended"),
            Column("loss", lambda r: _mean(r.loss()), _four),
            Column("95 % interval", lambda r: _bounds(r.loss()), _interval, key="loss_interval"),
            *map(average, range(len(decays))),
            *(compared if len(rows) > 1 else ()),
            *_COST,
            Column("remarks", "remarks", optional=True),
            *_RUNS,
        ),
        records=lambda row: row.runs,
    )


def _mean(estimate: Estimate | None) -> float | None:
    return estimate.mean if estimate else None


def _bounds(estimate: Estimate | None) -> list[float] | None:
    return list(estimate.interval) if estimate and estimate.interval else None


def _range(scale: float, values: Sequence[float] | None) -> str:
    """The lowest and the highest value in words, or one value if both print equally."""
    if not values:
        return BLANK
    ends = [significant(scale * end) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


_four = partial(fixed, 4)


def _raw(key: str, value: Callable[[ModelResult], Any]) -> Column[ModelResult]:
    return Column(key, value, raw=True)


_RECIPE = (
    *fields("case.family", "case.recipe.data", "case.recipe.data_sha256", raw=True),
    *fields("case.recipe.objective", "case.recipe.steps", "case.recipe.batch", raw=True),
    _raw("pass_batch", lambda r: list(r.passes)),
    *fields("case.processes", "case.precision", "case.impl", "case.engine", raw=True),
    *fields("case.channels_last", "case.checkpointing", raw=True),
    *ENVIRONMENT,
)
_COST: tuple[Column[ModelResult], ...] = (
    Column("training TFLOPs", "train_flops", unit(significant, 1e-12)),
    Column("s", "seconds", partial(_range, 1.0)),
    Column("kJ", "joules", partial(_range, 1e-3), optional=True),
)
_RUNS = (
    _raw("seeds", lambda r: [run.case.seed for run in r.runs if isinstance(run.case, TrainingCase)]),
    _raw("status", lambda r: [run.status for run in r.runs]),
    _raw("reason", lambda r: [run.reason for run in r.runs]),
    _raw("losses", lambda r: [run.last.loss for run in r.ended]),
    *fields("case.recipe.ema_decays", raw=True),
    _raw("ema_losses", lambda r: [_mean(r.loss(i)) for i in range(len(r.case.recipe.ema_decays))]),
    *fields("reference", "train_macs", raw=True),
)
