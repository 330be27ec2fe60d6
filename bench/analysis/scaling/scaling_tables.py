"""The tables of a scaling study: sizes, exponents, slow-downs and cross-overs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from bench.analysis.scaling import slowdowns
from bench.analysis.scaling.resolution import Sized, Study, batch_range
from bench.analysis.scaling.slowdowns import Crossing, Slowdown
from bench.records import columns
from bench.records.base import Record, Skipped
from bench.records.scaling import ScalingCase
from bench.stats import intervals
from bench.stats.power_law import Exponent
from bench.tables.numbers import (
    BLANK,
    fixed,
    interval,
    milliseconds,
    milliseconds_interval,
    percent,
    significant,
)
from bench.tables.table import Column, Table, fields, unit

TAKEN_OVER = "‡"  # marks a published ratio with a number from another paper
MIB, GIB = 2**20, 2**30
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row(Generic[T]):
    """One row of a study; a failed attempt at a size is a skipped row."""

    study: Study
    of: T
    records: tuple[Record, ...]
    failure: Skipped | None = None

    @property
    def is_skipped(self) -> bool:
        return self.failure is not None

    @property
    def status(self) -> str:
        return self.failure.status if self.failure else "ok"

    @property
    def reason(self) -> str:
        return self.failure.reason if self.failure else ""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The fitted exponent of one cost of one model."""

    model: str
    cost: str
    exponent: Exponent


SETTING: tuple[Column[Any], ...] = (
    Column("work", "study.setting.work", of_case=True),
    Column("precision", "study.setting.precision", of_case=True),
    Column("settings", lambda r: ", ".join(r.study.setting.switches), of_case=True, optional=True),
    Column("device", "study.setting.device", of_case=True, raw=True),
)


def _in_study(table: Table[Any]) -> Table[Any]:
    """The table of one study under a heading with its setting."""
    kept = tuple(column for column in table.columns if column not in SETTING)
    return Table(title=table.title, columns=kept, records=table.records)


_two = partial(fixed, 2)


def _scaled(heading: str, source: Callable[[Any], Any] | str, scale: float, key: str = "") -> Column[Any]:
    return Column(heading, source, unit(significant, 1 / scale), key=key, optional=True)


def _px(side: float) -> str:
    return f"{side:.0f}"


def _sides(sides: Sequence[float]) -> str:
    return f"{_px(sides[0])} to {_px(sides[-1])}"


def _cost(row: Row[Sized]) -> float | None:
    point = row.of.point("time")
    return point.cost if point else None


SIZES = Table[Row[Sized]](
    title="Costs of one image by size",
    columns=(
        Column("model", "of.model", of_case=True),
        *SETTING,
        Column("px", lambda r: columns.size(r.of.res), str, key="res", of_case=True),
        Column("batch", lambda r: _batch(r.failure) if r.failure else r.of.batch, str, of_case=True),
        Column("ms/image", _cost, milliseconds, key="s_per_image", optional=True),
        Column(
            "95 % interval",
            lambda r: r.study.interval(r.of),
            milliseconds_interval,
            key="s_per_image_interval",
            optional=True,
        ),
        Column("visit_medians_s_per_image", lambda r: [intervals.median(v) for v in r.of.visits], raw=True),
        Column("samples", lambda r: sum(map(len, r.of.visits)), usual=0, optional=True),
        _scaled("GMACs/image", lambda r: r.of.per_image("macs"), 1e9, "macs_per_image"),
        _scaled("eager MB/image", lambda r: r.of.per_image("eager_bytes"), 1e6, "eager_bytes_per_image"),
        _scaled("fused MB/image", lambda r: r.of.per_image("fused_bytes"), 1e6, "fused_bytes_per_image"),
        _scaled("passes MiB/image", "of.passes_bytes", MIB, "passes_bytes_per_image"),
        _scaled("peak GiB", "of.peak_bytes", GIB),
        Column("memory", lambda r: r.of.memory_method, optional=True),
    ),
    records=lambda row: row.records,
)
EXPONENTS = Table[Row[Fit]](
    title="Exponents of the side",
    columns=(
        *fields("of.model"),
        *SETTING,
        *fields("of.cost"),
        Column("exponent of the side", "of.exponent.slope", lambda v: fixed(3, v), key="exponent_of_side"),
        Column("95 % interval", "of.exponent.interval", interval, optional=True),
        Column(
            "95 % by residuals", "of.exponent.by_residuals", interval, "interval_by_residuals", optional=True
        ),
        Column("misfit, %", "of.exponent.misfit", lambda v: percent(v, 1)),
        Column(
            "from size to size", "of.exponent.local", lambda v: ", ".join(map(_two, v)), "local_exponents"
        ),
        Column("x per doubled side", "of.exponent.per_doubling", _two),
        Column("px", "of.exponent.sides", _sides),
        Column(
            "batch",
            lambda r: r.study.batches((r.of.model,), r.of.cost, r.of.exponent.sides),
            lambda values: batch_range(values) or BLANK,
            key="batches",
            optional=True,
        ),
    ),
    records=lambda row: row.records,
)


def _count(cost: str) -> Column[Any]:
    key = f"{cost.lower()}_ratio"
    return Column(f"{cost} x", lambda r: r.of.count(cost), _two, key=key, optional=True)


def _published(found: Sequence[dict[str, Any]]) -> str:
    texts = [
        f"{one['ratio']:.2f}{TAKEN_OVER if one['taken_over'] else ''} ({one['paper']}, {one['model']})"
        for one in found
    ]
    return ", ".join(texts) or BLANK


SLOWDOWNS = Table[Row[Slowdown]](
    title="Growth when the side doubles; DiT's slow-down as a multiple of the others'",
    columns=(
        Column("slow-down of", "of.subject", key="model"),
        *SETTING,
        Column("px", lambda r: [r.of.from_side, r.of.to_side], _sides, key="sides"),
        Column("time x", "of.time", _two, key="time_ratio", optional=True),
        Column("95 % interval", "of.interval", interval, key="time_ratio_interval", optional=True),
        *map(_count, ("MACs", "bytes", "memory")),
        Column(
            "published x",
            lambda r: [asdict(one) for one in r.of.published],
            _published,
            key="published",
            optional=True,
        ),
        *fields("of.batches", raw=True),
        Column("verdict", "of.verdict", optional=True),
    ),
    records=lambda row: row.records,
)


def _finite(bounds: Sequence[float] | None) -> list[float | None] | None:
    """An interval of sides in px; an end that the sizes do not bound is None."""
    return None if bounds is None else [end if 0 < end < math.inf else None for end in bounds]


def _ends(bounds: Sequence[float | None] | None) -> str:
    """An interval of sides in words; its ends may lie beyond the sizes."""
    if bounds is None:
        return BLANK
    low, high = ("beyond the sizes" if end is None else _px(end) for end in bounds)
    return f"{low} to {high}"


CROSSINGS = Table[Row[Crossing]](
    title="Cross-overs of any two models",
    columns=(
        Column("models", lambda r: f"{r.of.first}, {r.of.second}"),
        *SETTING,
        *fields("of.cost"),
        Column("cross at px", "of.at.side", lambda v: "none" if v is None else _px(v)),
        Column("95 % interval", lambda r: _finite(r.of.at.interval), _ends, key="interval", optional=True),
        Column("sizes, px", "of.sides", _sides),
        Column("extrapolated_side", lambda r: r.of.at.extrapolated, raw=True),
        Column("equal_sides", lambda r: r.of.at.equal, raw=True),
        *fields("of.at.certain", "of.batches", raw=True),
        *fields("of.verdict"),
    ),
    records=lambda row: row.records,
)


def _batch(record: Record) -> int:
    assert isinstance(record.case, ScalingCase)
    return record.case.batch


def size_rows(study: Study) -> list[Row[Sized]]:
    """One row for every size, preceded by a row for each failed attempt."""
    rows = []
    for sized in study.sizes:
        failures = {(_batch(one), one.status, one.reason): one for one in sized.failed}
        rows += [Row(study=study, of=sized, records=(one,), failure=one) for one in failures.values()]
        if sized.timed or not sized.failed:
            rows.append(Row(study=study, of=sized, records=sized.records))
    return rows


def exponent_rows(study: Study) -> list[Row[Fit]]:
    return [
        Row(study=study, of=Fit(model=model, cost=cost, exponent=exponent), records=study.records_of(model))
        for model in study.models
        for cost, exponent in study.exponents(model).items()
    ]


def slowdown_rows(study: Study) -> list[Row[Slowdown]]:
    """Slow-downs of every model at every doubling, then those of a DiT relative to the other models."""
    found = [one for model in study.models for one in slowdowns.doublings(study, model)]
    return [
        Row(study=study, of=one, records=study.records_of(*one.models))
        for one in [*found, *slowdowns.relative_slowdowns(study)]
    ]


def crossing_rows(study: Study) -> list[Row[Crossing]]:
    costs = ("time", "MACs") if study.setting.device else ("MACs",)
    return [
        Row(study=study, of=one, records=study.records_of(one.first, one.second))
        for cost in costs
        for one in slowdowns.crossings(study, cost)
    ]


ROWS: dict[str, Callable[[Study], Sequence[Row[Any]]]] = {
    "sizes": size_rows,
    "exponents": exponent_rows,
    "claim": slowdown_rows,
    "crossovers": crossing_rows,
}
TABLES: dict[str, Table[Any]] = {
    "sizes": SIZES,
    "exponents": EXPONENTS,
    "claim": SLOWDOWNS,
    "crossovers": CROSSINGS,
}
IN_STUDY = {name: _in_study(table) for name, table in TABLES.items()}
