"""Implementations of an operation compared: distance from the floors, sums over a pass, tables. No torch."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from bench.analysis.rooflines.roofline import Peaks
from bench.records import columns
from bench.records.base import Environment, Record, height_width
from bench.records.interleaved import ArmRow
from bench.records.kernels import (
    OPERATIONS,
    CheckedImplementation,
    DepthwiseCase,
    KernelCase,
    OperatorComparison,
)
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

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
NOT_HERE = "not here"  # the status of an implementation that cannot run on a device


@dataclass(frozen=True, kw_only=True)
class Line(ArmRow):
    """A row: one implementation in a comparison."""

    record: OperatorComparison
    implementation: CheckedImplementation
    peaks: Peaks | None  # of the device

    @property
    def case(self) -> KernelCase:
        return self.record.case

    @property
    def median_s(self) -> float | None:
        return None if self.arm is None else self.record.median_s(self.arm)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        return None if self.arm is None else self.record.interval_s(self.arm)

    def per_s(self, amount: float | None) -> float | None:
        return amount / self.median_s if amount is not None and self.median_s else None


def lines(record: OperatorComparison, peaks: Peaks | None) -> list[Line]:
    return [
        Line(
            record=record,
            arm=record.timed.index(one) if one in record.timed else None,
            status=one.status,
            failure=one.reason,
            implementation=one,
            peaks=peaks,
        )
        for one in record.implementations
    ]


def floors_s(case: KernelCase, peaks: Peaks | None) -> tuple[float | None, float | None]:
    """Minimum seconds of one operation by its bytes and by its FLOPs (depthwise: fp32's); None if unknown."""
    if peaks is None:
        return None, None
    is_depthwise = isinstance(case, DepthwiseCase)
    peak = peaks.fp32 if is_depthwise else peaks.flops_per_s(case.precision, "linear")
    bandwidth = peaks.bytes_per_s
    return case.least_bytes / bandwidth if bandwidth else None, case.flops / peak if peak else None


def floor_s(case: KernelCase, peaks: Peaks | None) -> float | None:
    by_bytes, by_flops = floors_s(case, peaks)
    return None if by_bytes is None or by_flops is None else max(by_bytes, by_flops)


_giga = unit(significant, 1e-9)
_tenths = partial(percent, digits=1)


def _error(value: float | None) -> str:
    return BLANK if value is None else f"{value:.1e}"


TABLE = Table[Line](
    title="Kernels by implementation",
    columns=(
        *columns.SIZED,
        columns.PRECISION,
        *fields("case.operation"),
        Column("K", "case.window", str, key="kernel"),
        Column("channels", "case.channels", str),
        Column("channels out", "case.out_width", str, key="out_channels"),
        Column("side", lambda r: columns.size(r.case.image_size), str, key="size", of_case=True),
        *fields("case.calls_per_pass", raw=True),
        Column("implementation", lambda r: r.implementation.name),
        *fields("implementation.ran"),
        Column("ms", "median_s", milliseconds),
        Column("95 % interval", "interval_s", milliseconds_interval),
        Column("G values/s", lambda r: r.per_s(r.case.elements), _giga, key="elements_per_s"),
        Column("GB/s", lambda r: r.per_s(r.case.least_bytes), _giga, key="bytes_per_s"),
        Column(
            "% of bytes floor",
            lambda r: r.per_s(floors_s(r.case, r.peaks)[0]),
            _tenths,
            "bytes_floor_share",
            optional=True,
        ),
        Column(
            "% of FLOPs floor",
            lambda r: r.per_s(floors_s(r.case, r.peaks)[1]),
            _tenths,
            "flops_floor_share",
            optional=True,
        ),
        Column("speed, x reference", "ratio", partial(fixed, 3)),
        Column("99 % interval", "ratio_interval", interval),
        Column("verdict", lambda r: ": ".join(filter(None, (r.verdict, r.reason)))),
        Column("rel. error", "implementation.error", _error),
        Column("remark", "remark", optional=True),
        columns.NOISE,
        *fields("status", "reason", raw=True),
        *fields("record.margin", "record.rounds", "record.stopped_by", "record.unmet", "times_s", raw=True),
        *columns.ENVIRONMENT,
    ),
    records=lambda r: (r.record, *(r.peaks.ceilings if r.peaks else ())),
)


# sums over a pass


@dataclass(frozen=True, kw_only=True)
class PassSum:
    """All operations of one kind in one pass of a model."""

    records: tuple[OperatorComparison, ...]  # one for each size
    seconds: dict[str, float]  # by implementation; only those timed at every size

    @property
    def case(self) -> KernelCase:
        return self.records[0].case

    @property
    def environment(self) -> Environment:
        return self.records[0].environment


def pass_sums(records: Iterable[Record]) -> list[PassSum]:
    """Sums over the operations of a pass, by model, size and setting."""
    groups: defaultdict[tuple[object, ...], list[OperatorComparison]] = defaultdict(list)
    for one in records:
        if isinstance(one, OperatorComparison):
            case = one.case
            setting = (case.model, case.res, case.batch, case.precision, one.environment.device)
            groups[*setting, case.operation_name].append(one)
    found = []
    for group in groups.values():
        sums: defaultdict[str, list[float]] = defaultdict(list)
        for one in group:
            for arm, name in enumerate(one.arms):
                sums[name].append(one.case.calls_per_pass * one.median_s(arm))
        seconds = {name: sum(times) for name, times in sums.items() if len(times) == len(group)}
        found.append(PassSum(records=tuple(group), seconds=seconds))
    return found


def sums_table(sums: Iterable[PassSum]) -> Table[PassSum]:
    """Table of milliseconds of a pass, with a column for each implementation."""
    names = dict.fromkeys(name for one in sums for name in one.seconds)

    def column(name: str) -> Column[PassSum]:
        return Column(f"{name}, ms", lambda r: r.seconds.get(name), milliseconds, key=name)

    return Table(
        title="All calls of one pass",
        columns=(
            columns.MODEL,
            columns.RES,
            columns.BATCH,
            columns.PRECISION,
            Column("operation", lambda r: r.case.operation_name),
            *map(column, names),
            *fields("environment.device"),
        ),
        records=lambda r: r.records,
    )


def newest(records: Iterable[Record]) -> list[OperatorComparison]:
    """The newest record of every case on each device and torch version, in the order of bench.kernels."""
    found = [one for one in records if isinstance(one, OperatorComparison)]
    by_case = {_place(one): one for one in sorted(found, key=lambda one: one.environment.date)}
    return [by_case[place] for place in sorted(by_case)]


def _place(one: OperatorComparison) -> tuple[object, ...]:
    case, environment = one.case, one.environment
    return (
        environment.device,
        case.model,
        height_width(case.res),
        case.batch,
        PRECISIONS.index(case.precision),
        OPERATIONS.index(case.operation),
        case.window,
        case.channels,
        case.out_width,
        height_width(case.image_size),
        environment.torch,
    )
