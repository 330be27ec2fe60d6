"""Comparisons of models in interleaved rounds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import ClassVar

from bench.records.base import SPEED, Case, ModelCase, Record, Skipped, size_text
from bench.records.columns import ENVIRONMENT, NOISE, RUN
from bench.records.interleaved import ArmRow, Interleaved
from bench.records.registry import register
from bench.stats import processes
from bench.tables.numbers import fixed, fixed_interval
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class ComparisonCase(Case):
    """Comparing models in the same processes, the reference first; only impl and engine may differ."""

    kind: ClassVar[str] = "versus"
    view: ClassVar[str] = SPEED
    effort: ClassVar[frozenset[str]] = Case.effort | {"processes"}

    arms: tuple[ModelCase, ...]
    budget_s: float  # of all processes together
    precision_target: float  # the margin within which speeds are the same
    processes: int = 1  # fresh processes, which share the budget

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ValueError(f"comparison: needs at least two models, got {len(self.arms)}")

    @property
    def title(self) -> str:
        return "interleaved"

    @property
    def command(self) -> tuple[object, ...]:
        first = self.arms[0].common
        impls = list(dict.fromkeys(arm.impl for arm in self.arms))  # each model runs under all of them
        engines = list(dict.fromkeys(arm.engine for arm in self.arms))
        models = [arm.model for arm in self.arms[:: len(impls) * len(engines)]]
        words = ["bench.versus", *models, "--res", size_text(first.res), "--batch", first.batch]
        words += ["--device", self.device, "--precision", first.precision]
        words += first.switch_options()
        words += ["--impl", *impls] * (impls != ["reference"])
        words += ["--engine", *engines] * (engines != ["eager"])
        words += ["--budget", f"{self.budget_s:g}s", "--processes", self.processes]
        return (*words, *["--margin", f"{self.precision_target:g}"] * (self.precision_target != 0.01))

    @property
    def process_budget_s(self) -> float:
        """The budget of one process."""
        return self.budget_s / self.processes

    @property
    def source_model(self) -> str:
        return self.arms[0].model

    @property
    def runs_fast(self) -> bool:
        return any(arm.runs_fast for arm in self.arms)

    @property
    def label(self) -> str:
        return f"{', '.join(str(case.arm) for case in self.arms)} {self.arms[0].common.settings}"


@dataclass(frozen=True, kw_only=True)
class ArmFailure:
    """An arm that could not be prepared, for example compiled; the others were compared."""

    number: int  # in the case
    status: str
    reason: str


@register
@dataclass(frozen=True, kw_only=True)
class Comparison(Interleaved):
    """Interleaved rounds over models."""

    case: ComparisonCase
    build_s: tuple[float, ...]
    compile_s: tuple[float | None, ...]
    matmul_tf32: bool  # torch's two TF32 switches during timing
    conv_tf32: bool
    failures: tuple[ArmFailure, ...] = field(default=(), metadata={"added": "2026-11-30"})

    def __post_init__(self) -> None:
        if len(self.calls) != len(self.arm_cases):
            arms = len(self.arm_cases)
            raise ValueError(f"comparison: needs two or more arms, each with its calls, got {arms} arms")
        super().__post_init__()

    @cached_property
    def arm_cases(self) -> tuple[ModelCase, ...]:
        """The cases of the arms that were compared; numbers of arms count these."""
        failed = {failure.number for failure in self.failures}
        return tuple(case for number, case in enumerate(self.case.arms) if number not in failed)

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(str(case.arm) for case in self.arm_cases)

    def images_per_s(self, arm: int) -> float:
        return self.arm_cases[arm].batch / processes.middle(self.by_process_s(arm))


def merged(records: Sequence[Comparison], count: int) -> Comparison:
    """One record of the processes of a case, in order of time, from a record of each with equal calls."""
    warmups = zip(*(record.warmup_times_s for record in records), strict=True)
    stationary = zip(*(record.warmup_stationary for record in records), strict=True)
    joined = ("order", "visits_s", "clocks_mhz")
    return replace(
        records[0],
        case=replace(records[0].case, processes=count),
        environment=records[-1].environment,
        **processes.joined(records, [record.rounds for record in records], joined),
        warmup_times_s=tuple(tuple(time for times in of for time in times) for of in warmups),
        warmup_stationary=tuple(map(all, stationary)),
    )


@dataclass(frozen=True, kw_only=True)
class ComparedModel(ArmRow):
    """A row: one model of a comparison or of a skipped comparison."""

    case: ModelCase

    @property
    def reference(self) -> str:
        """The first arm that was compared; of a skipped comparison the first."""
        arms = self.compared.case.arms if self.record.is_skipped else self.compared.arm_cases
        return str(arms[0].arm)

    @property
    def is_skipped(self) -> bool:
        return self.arm is None


def rows(record: Record) -> list[ComparedModel]:
    """The rows of a comparison or of a skipped comparison, in the order of the case."""
    assert isinstance(record.case, ComparisonCase)
    cases = record.case.arms
    if isinstance(record, Skipped):
        failures: dict[int, ArmFailure | Skipped] = dict.fromkeys(range(len(cases)), record)
    else:
        assert isinstance(record, Comparison)
        failures = {failure.number: failure for failure in record.failures}
    numbers = itertools.count()
    return [
        ComparedModel(record=record, case=case, arm=None, status=failed.status, failure=failed.reason)
        if (failed := failures.get(place))
        else ComparedModel(record=record, case=case, arm=next(numbers))
        for place, case in enumerate(cases)
    ]


TABLE = Table[ComparedModel](
    title="Models compared in interleaved rounds",
    columns=(
        *RUN,
        Column("reference", "reference", of_case=True),
        Column(
            "speed ratio, reference time / time", "ratio", partial(fixed, 3), key="ratio_reference_s_over_s"
        ),
        Column("99 % interval of the ratio", "ratio_interval", partial(fixed_interval, 3)),
        Column("interval covers", "compared.interval_covers"),
        *fields("verdict"),
        Column("rounds", "compared.rounds", str),
        Column("images/s", lambda row: row.compared.images_per_s(row.arm), key="images_per_s"),
        Column("ended by", "compared.ended_by"),
        Column("refused because", "reason", optional=True),
        Column(
            "clock, MHz",
            lambda row: row.compared.mean_clock_mhz(row.arm),
            partial(fixed, 0),
            optional=True,
        ),
        Column("remark", "remark", optional=True),
        NOISE,
        *fields("compared.margin", "compared.stopped_by", "compared.unmet", raw=True),
        *fields("times_s", "compared.process_starts", raw=True),
        *ENVIRONMENT,
    ),
    records=lambda row: (row.record,),
)
