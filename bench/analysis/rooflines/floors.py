"""Floors of passes and of their parts beside measured times, and their tables. Imports no torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import FORMS, KINDS, Floor, Peaks, TimedPass
from bench.analysis.speed.speed_ratios import runs_of
from bench.records import ceiling
from bench.records.base import Record, Size, height_width
from bench.records.ceiling import Ceiling
from bench.records.columns import NOISE, SIZED
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.profile import Profile
from bench.stats import noise
from bench.tables.numbers import BLANK, fixed, giga, milliseconds, percent, significant
from bench.tables.table import Column, Table, fields, unit

WHOLE = "all"  # the name of the row for the whole pass


@dataclass(frozen=True, kw_only=True)
class PassFloor:
    """The floors of one pass on a device, and its fastest measurement there."""

    costs: OperatorCosts
    precision: str  # of the arithmetic
    peaks: Peaks
    measured: TimedPass | None = None

    @property
    def case(self) -> OperatorCase:
        return self.costs.case

    @property
    def runs(self) -> tuple[Record, ...]:
        """The records of the measurement; empty without one."""
        return () if self.measured is None else runs_of(self.measured)

    @cached_property
    def floors(self) -> dict[str, Floor | None]:
        """By form of the bytes."""
        return {form: roofline.floor(self.costs, self.peaks, self.precision, form) for form in FORMS}

    def moved_bytes(self, form: str) -> int:
        return self.costs.eager_bytes if form == "eager" else self.costs.fused_bytes

    def seconds(self, form: str) -> float | None:
        floor = self.floors[form]
        return floor.total_s if floor else None

    def images_per_s(self, form: str) -> float | None:
        seconds = self.seconds(form)
        return self.case.batch / seconds if seconds else None

    def intensity(self, form: str) -> float | None:
        """FLOPs for each byte that the pass moves."""
        moved = self.moved_bytes(form)
        return 2 * self.costs.macs / moved if moved else None

    def compute_share(self, form: str) -> float | None:
        """Share of the floor in compute-bound operators, whose FLOPs take longer than their bytes."""
        floor = self.floors[form]
        return floor.compute_share if floor and floor.total_s else None

    def achieved(self, form: str) -> float | None:
        """Floor / measured median; None if either is unknown."""
        seconds = self.seconds(form)
        return seconds / self.measured.median_s if self.measured and seconds is not None else None


@dataclass(frozen=True, kw_only=True)
class PartFloor(PassFloor):
    """The floors of a part of a pass: a kind of operators, a module, an operator, or the whole pass."""

    whole: PassFloor
    part: str
    profile: Profile | None  # of the pass

    @property
    def environment(self) -> object:
        return self.costs.environment

    def macs_share(self) -> float:
        return self.costs.macs / self.whole.costs.macs if self.whole.costs.macs else 0.0

    def bytes_share(self, form: str) -> float:
        total = self.whole.moved_bytes(form)
        return self.moved_bytes(form) / total if total else 0.0

    def floor_share(self, form: str) -> float | None:
        seconds, total = self.seconds(form), self.whole.seconds(form)
        return seconds / total if seconds is not None and total else None

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Profiled seconds in every pass; empty without a profile."""
        if self.profile is None:
            return ()
        return self.profile.whole_s if self.part == WHOLE else self.profile.samples.get(self.part, ())

    @property
    def profiled_s(self) -> float | None:
        """Median profiled seconds; None without a profile."""
        if self.profile is None:
            return None
        medians = self.profile.medians
        return sum(medians.values()) if self.part == WHOLE else medians.get(self.part, 0.0)

    @property
    def time_share(self) -> float | None:
        total = sum(self.profile.medians.values()) if self.profile else 0.0
        return self.profiled_s / total if total and self.profiled_s is not None else None

    def achieved(self, form: str) -> float | None:
        """Floor / median profiled time."""
        seconds = self.seconds(form)
        return seconds / self.profiled_s if self.profiled_s and seconds is not None else None


def grouped(costs: OperatorCosts, by: str) -> dict[str, list[OperatorCost]]:
    """The operators of a pass by kind in the order of KINDS; by module or op, most eager bytes first."""
    named: dict[str, list[OperatorCost]] = {}
    for part in costs.parts:
        named.setdefault({"kind": part.kind, "module": part.module, "op": part.op}[by], []).append(part)
    if by == "kind":
        return {kind: named[kind] for kind in KINDS if kind in named}
    moved = {name: sum(part.eager_bytes for part in parts) for name, parts in named.items()}
    return {name: named[name] for name in sorted(named, key=lambda name: -moved[name])}


def part_floors(whole: PassFloor, by: str, profile: Profile | None) -> list[PartFloor]:
    """Parts of a pass by kind, module or op, then those only the profile names, then the whole pass."""
    named = grouped(whole.costs, by)
    only_profiled = [name for name in (profile.samples if profile else ()) if name not in named]
    parts_of = {**named, **{name: [] for name in only_profiled}, WHOLE: whole.costs.parts}
    return [
        PartFloor(
            costs=replace(whole.costs, parts=tuple(parts)),
            precision=whole.precision,
            peaks=whole.peaks,
            whole=whole,
            part=name,
            profile=profile,
        )
        for name, parts in parts_of.items()
    ]


# costs and ceilings from records


def pass_floor(costs: OperatorCosts, precision: str, peaks: Peaks, passes: Iterable[TimedPass]) -> PassFloor:
    measured = roofline.fastest(passes, costs, precision, peaks.device)
    return PassFloor(costs=costs, precision=precision, peaks=peaks, measured=measured)


def newest_costs(records: Iterable[Record]) -> list[OperatorCosts]:
    """The newest operator costs of every inference pass, by model, size, batch and precision."""
    found = [one for one in records if isinstance(one, OperatorCosts) and one.case.work == "inference"]
    newest = {
        (one.case.model, height_width(one.case.res), one.case.batch, one.case.precision): one
        for one in sorted(found, key=lambda one: one.environment.date)
    }
    return [newest[case] for case in sorted(newest)]


def measured_devices(records: Sequence[Record]) -> list[Peaks]:
    names = sorted({record.environment.device for record in records if isinstance(record, Ceiling)})
    return [peaks for name in names if (peaks := roofline.measured_peaks(records, name)) is not None]


def every_floor(peaks: Peaks, records: Sequence[Record]) -> list[PassFloor]:
    """The floor of every counted inference pass, at every precision whose peaks are known."""
    timed: dict[tuple[str, Size, int], list[TimedPass]] = {}
    for one in roofline.inference_passes(records):
        timed.setdefault((one.case.model, one.case.res, one.case.batch), []).append(one)
    found = [
        pass_floor(
            costs, precision, peaks, timed.get((costs.case.model, costs.case.res, costs.case.batch), ())
        )
        for costs in newest_costs(records)
        for precision in (("fp32", "tf32") if costs.case.precision == "fp32" else (costs.case.precision,))
    ]
    return [one for one in found if None not in one.floors.values()]


# tables


def _bound(share: float | None) -> str:
    if share is None:
        return BLANK
    return f"compute {percent(share)} %" if share > 0.5 else f"memory {percent(1 - share)} %"


_tenths = partial(percent, digits=1)


def _each_form(
    heading: str, key: str, value: Callable[[Any, str], object], text: Callable[[Any], str], **options: bool
) -> tuple[Column[Any], Column[Any]]:
    """A column for each form of the bytes: eager and fused."""

    def column(form: str) -> Column[Any]:
        return Column(f"{heading} {form}", lambda r: value(r, form), text, key=f"{form}_{key}", **options)

    return column("eager"), column("fused")


def _raw(key: str, value: Callable[[Any], object]) -> Column[Any]:
    return Column(key, value, raw=True)


_CASE: tuple[Column[Any], ...] = (
    *SIZED,
    *fields("precision"),
    *fields("case.work", raw=True),
    Column("device", "peaks.device", optional=True),
    Column("peaks", lambda r: r.peaks.origin if r.peaks.device else None, optional=True),
    Column("peaks_source", "peaks.source", key="peaks_source", raw=True),
    _raw("flops", lambda r: 2 * r.costs.macs),
)
_INTENSITY = _each_form("FLOP/B", "intensity", PassFloor.intensity, partial(fixed, 1))
_FLOOR = _each_form("floor, ms,", "floor_s", PassFloor.seconds, milliseconds, optional=True)
_BOUND = _each_form("bound by,", "compute_share", PassFloor.compute_share, _bound, optional=True)
_FLOOR_SHARE = _each_form("% of floor,", "floor_share", PartFloor.floor_share, _tenths, optional=True)
_ACHIEVED = _each_form("achieved, %,", "achieved", lambda r, form: r.achieved(form), _tenths, optional=True)

PASSES = Table[PassFloor](
    title="Floors of passes",
    columns=(
        *_CASE,
        _raw("matmul_flops_per_s", lambda r: r.peaks.flops_per_s(r.precision, "linear")),
        _raw("convolution_flops_per_s", lambda r: r.peaks.flops_per_s(r.precision, "convolution")),
        *fields("peaks.bytes_per_s", "costs.eager_bytes", "costs.fused_bytes", raw=True),
        *_INTENSITY,
        *_FLOOR,
        *_each_form("images/s at it,", "images_per_s", PassFloor.images_per_s, significant, optional=True),
        *_BOUND,
        Column("images/s measured", "measured.images_per_s", key="measured_images_per_s", optional=True),
        *_ACHIEVED,
        Column("measured_on", "measured.environment.device", key="measured_on", raw=True),
        Column("measured", "measured.environment.date", key="measured_date", optional=True),
    ),
    records=lambda r: (r.costs, *r.peaks.ceilings, *r.runs),
)

PARTS = Table[PartFloor](
    title="Floors of the parts of passes",
    columns=(
        *_CASE,
        *fields("part"),
        Column("kernels", lambda r: sum(part.calls for part in r.costs.parts), str, key="calls"),
        Column("GMACs", "costs.macs", partial(giga, digits=2)),
        Column("MACs, %", PartFloor.macs_share, _tenths, key="macs_share"),
        Column("GB eager", "costs.eager_bytes", giga),
        Column("% of eager", lambda r: r.bytes_share("eager"), _tenths, key="eager_bytes_share"),
        Column("GB fused", "costs.fused_bytes", giga),
        _raw("fused_bytes_share", lambda r: r.bytes_share("fused")),
        *_INTENSITY,
        *_FLOOR,
        _FLOOR_SHARE[0],
        replace(_FLOOR_SHARE[1], raw=True),
        _BOUND[0],
        Column("ms profiled", "profiled_s", milliseconds, key="seconds", optional=True),
        Column("time, %", "time_share", _tenths, key="seconds_share", optional=True),
        Column("spread, %", lambda r: noise.spread(r.samples_s), percent, "seconds_spread", optional=True),
        _ACHIEVED[0],
        Column("seconds_of_passes", "samples_s", key="seconds_of_passes", raw=True),
        Column("profiled_date", "profile.environment.date", key="profiled_date", raw=True),
        replace(NOISE, source=lambda r: list(r.profile.noise) if r.profile else []),
    ),
    records=lambda r: (r.costs, *r.peaks.ceilings, *((r.profile,) if r.profile else ())),
)


def _sold(record: Ceiling) -> float | None:
    """The maker's figure for a ceiling; None if the device's name does not identify a GPU."""
    name = roofline.gpu_named(record.environment.device)
    peaks = roofline.of_gpu(name) if name else roofline.NO_PEAKS
    if record.case.what == "copy":
        return peaks.bytes_per_s
    return peaks.flops_per_s(record.case.precision, "linear")


CEILINGS = Table[Ceiling](
    title=ceiling.TABLE.title,
    columns=(
        *ceiling.TABLE.columns,
        Column("as sold, G/s", _sold, unit(significant, 1e-9), key="sold_per_s", optional=True),
    ),
)
