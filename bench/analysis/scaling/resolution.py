"""Records at several resolutions as curves of time, MACs, bytes and memory of one image. Imports no torch.

Memory is the peak of the passes minus parameters, moments and EMA.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.rooflines.roofline import tensors_of
from bench.records.base import Record, Size, Skipped, height_width
from bench.records.memory import Memory, MemoryCase
from bench.records.operators import OperatorCosts
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.stats import power_law
from bench.stats.power_law import Curve, Drift, Exponent, Interval, Point

COSTS = ("time", "MACs", "bytes", "memory")
MAX_DRIFT = 0.2  # a larger difference between visits gives no verdict


def side_of(res: Size) -> float:
    """The side in px of a square with the same number of pixels."""
    height, width = height_width(res)
    return float(height) if height == width else math.sqrt(height * width)


@dataclass(frozen=True, kw_only=True, order=True)
class ScalingSetting:
    """Settings that the curves of one study share."""

    work: str
    precision: str
    device: str  # blank for counts alone
    from_batch: int  # the requested batch
    switches: tuple[str, ...] = ()  # nondefault settings, in words

    def __str__(self) -> str:
        words = [self.work, *([self.device] if self.device else []), self.precision]
        words.append(f"from batch {self.from_batch}" if self.device else f"batch {self.from_batch}")
        return ", ".join([*words, *self.switches])


@dataclass(frozen=True, kw_only=True)
class Sized:
    """One model at one size; None where no record exists."""

    model: str
    family: str
    res: Size
    batch: int  # the batch that ran or, if none did, the last one tried
    timed: tuple[ScalingVisit, ...]  # visits with that batch
    failed: tuple[Skipped, ...]  # attempts without a time, in order
    work: OperatorCosts | None
    memory: Record | None  # Memory, or Skipped

    @property
    def side(self) -> float:
        return side_of(self.res)

    @property
    def visits(self) -> tuple[tuple[float, ...], ...]:
        """Seconds per image, by visit."""
        return tuple(tuple(time / self.batch for time in visit.times_s) for visit in self.timed)

    @property
    def records(self) -> tuple[Record, ...]:
        return (*self.timed, *self.failed, *(r for r in (self.work, self.memory) if r is not None))

    def per_image(self, field: str) -> float | None:
        """MACs, eager_bytes or fused_bytes of one image."""
        return getattr(self.work, field) / self.work.case.batch if self.work else None

    @property
    def passes_bytes(self) -> float | None:
        """Peak bytes of the passes per image."""
        return self.memory.use.passes_bytes / self.batch if isinstance(self.memory, Memory) else None

    @property
    def peak_bytes(self) -> int | None:
        return self.memory.peak_bytes if isinstance(self.memory, Memory) else None

    @property
    def memory_method(self) -> str | None:
        """Predicted or measured, with the status of a failure; None without a record."""
        if self.memory is None:
            return None
        method = "predicted" if self.memory.case.device == "meta" else "measured"
        return f"{method}: {self.memory.status}" if isinstance(self.memory, Skipped) else method

    def batch_of(self, cost: str) -> int | None:
        """The batch behind a cost of one image; None for MACs, which do not depend on the batch."""
        if cost == "bytes" and self.work is not None:
            return self.work.case.batch
        return None if cost == "MACs" else self.batch

    def point(self, cost: str) -> Point | None:
        if cost == "time":
            return Point(side=self.side, visits=self.visits) if self.timed else None
        field = {"MACs": "macs", "bytes": "eager_bytes"}.get(cost)
        value = self.per_image(field) if field else self.passes_bytes
        return power_law.counted(self.side, value) if value else None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Models at several sizes under one setting."""

    setting: ScalingSetting
    sizes: tuple[Sized, ...]  # by model, then from the smallest
    records: tuple[Record, ...] = ()  # visits, timed or skipped, the newest last

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sized.model for sized in self.sizes))

    @cached_property
    def drift(self) -> Drift | None:
        """The difference between visits of one case; None if no case has two visits."""
        return power_law.drift_of([p for sized in self.sizes if (p := sized.point("time"))])

    def interval(self, sized: Sized) -> Interval | None:
        """The interval of the time at one size; None without a time or with too few samples."""
        point = sized.point("time")
        if point is None:
            return None
        return power_law.intervals(Curve(points=(point,), drift=self.drift))[0]

    def batches(self, models: Collection[str], cost: str, sides: Collection[float]) -> tuple[int, ...]:
        """The batches behind the costs, the largest first; empty for MACs."""
        found = {
            sized.batch_of(cost)
            for sized in self.sizes
            if sized.model in models and sized.side in sides and sized.point(cost) is not None
        }
        return tuple(sorted(filter(None, found), reverse=True))

    def records_of(self, *models: str) -> tuple[Record, ...]:
        return tuple(record for sized in self.sizes if sized.model in models for record in sized.records)

    def curve(self, model: str, cost: str, among: Collection[Size] | None = None) -> Curve:
        """The curve of a cost. Sizes of equal pixel count are one point, the geometric mean of visits."""
        by_side: dict[float, tuple[tuple[float, ...], ...]] = {}
        for sized in self.sizes:
            wanted = sized.model == model and (among is None or sized.res in among)
            point = sized.point(cost) if wanted else None
            if point is not None:
                by_side[point.side] = by_side.get(point.side, ()) + point.visits
        timed = cost == "time"
        return Curve(
            points=tuple(Point(side=side, visits=by_side[side]) for side in sorted(by_side)),
            drift=self.drift if timed else None,
            exact=not timed,
        )

    def exponents(self, model: str) -> dict[str, Exponent]:
        """The exponent of every cost that is known at two or more sizes."""
        fits = {cost: power_law.exponent(self.curve(model, cost)) for cost in COSTS}
        return {cost: fit for cost, fit in fits.items() if fit is not None}


def batch_range(batches: Sequence[int]) -> str:
    """A range of batches in words, the largest first: "16 to 2" or "16"; blank without batches."""
    return " to ".join(map(str, dict.fromkeys((*batches[:1], *batches[-1:]))))


def drift_summary(drift: Drift | None) -> str:
    """The difference between visits and its consequence, in words."""
    if drift is None:
        return f"{why_refused(drift)}: no intervals and no verdicts"
    return (
        f"standard deviation between visits of a case: {100 * drift.sd:.1f} % ({drift.freedom} degrees of "
        f"freedom), included in the intervals; above {100 * MAX_DRIFT:.0f} % there is no verdict"
    )


def why_refused(drift: Drift | None) -> str:
    """Reason that times with this drift give no verdict; blank if they do."""
    if drift is None:
        return "one visit of each case does not show how much visits differ"
    return f"visits of one case differ by {100 * drift.sd:.0f} %" if drift.sd > MAX_DRIFT else ""


# studies from records


def studies(records: Iterable[Record]) -> list[Study]:
    """Every timed study, from records in any order; the newest record of a case counts."""
    stored = list(records)
    visits: dict[ScalingSetting, dict[tuple[str, Size], dict[tuple[int, int], Record]]] = {}
    for record in sorted(stored, key=lambda record: record.environment.date):
        case = record.case
        if isinstance(case, ScalingCase):
            setting = ScalingSetting(
                work=case.work,
                precision=case.precision,
                device=record.environment.device,
                from_batch=case.from_batch,
                switches=case.nondefault_settings,
            )
            attempts = visits.setdefault(setting, {}).setdefault((case.model, case.res), {})
            attempts[case.visit, -case.batch] = record
    works: dict[tuple[str, Size], list[OperatorCosts]] = {}
    memories: dict[tuple[str, Size], list[tuple[MemoryCase, Record]]] = {}
    for record in stored:
        case = record.case
        if isinstance(record, OperatorCosts):
            works.setdefault((record.case.model, record.case.res), []).append(record)
        elif isinstance(case, MemoryCase):
            memories.setdefault((case.model, case.res), []).append((case, record))
    return [
        Study(
            setting=setting,
            sizes=_ordered(
                _sized(setting, attempts, works.get(place, ()), memories.get(place, ()))
                for place, attempts in visits[setting].items()
            ),
            records=tuple(
                sorted(
                    (record for attempts in visits[setting].values() for record in attempts.values()),
                    key=lambda record: record.environment.date,
                )
            ),
        )
        for setting in sorted(visits)
    ]


def counts(records: Iterable[Record]) -> list[Study]:
    """Studies of counts without times, one for each work, precision and batch."""
    found: dict[ScalingSetting, dict[tuple[str, Size], Sized]] = {}
    for work in (record for record in records if isinstance(record, OperatorCosts)):
        case = work.case
        setting = ScalingSetting(work=case.work, precision=case.precision, device="", from_batch=case.batch)
        found.setdefault(setting, {})[case.model, case.res] = Sized(
            model=case.model,
            family=case.family,
            res=case.res,
            batch=case.batch,
            timed=(),
            failed=(),
            work=work,
            memory=None,
        )
    return [Study(setting=setting, sizes=_ordered(found[setting].values())) for setting in sorted(found)]


def _ordered(sizes: Iterable[Sized]) -> tuple[Sized, ...]:
    listed = list(sizes)
    models = list(dict.fromkeys(sized.model for sized in listed))
    return tuple(sorted(listed, key=lambda sized: (models.index(sized.model), sized.side)))


def _sized(
    setting: ScalingSetting,
    attempts: dict[tuple[int, int], Record],
    works: Sequence[OperatorCosts],
    memories: Sequence[tuple[MemoryCase, Record]],
) -> Sized:
    tried = [attempts[key] for key in sorted(attempts)]
    timed = [record for record in tried if isinstance(record, ScalingVisit)]
    last = (timed or tried)[-1].case
    assert isinstance(last, ScalingCase)
    return Sized(
        model=last.model,
        family=last.family,
        res=last.res,
        batch=last.batch,
        # a later visit may have needed a smaller batch: only visits of the same batch make one point
        timed=tuple(visit for visit in timed if visit.case.batch == last.batch),
        failed=tuple(record for record in tried if isinstance(record, Skipped)),
        work=_work_of(last, works),
        memory=_memory_of(last, setting.device, memories),
    )


def _work_of(case: ScalingCase, works: Sequence[OperatorCosts]) -> OperatorCosts | None:
    """Of the counts of this model and size, that at the batch that ran, or at the nearest batch."""
    wanted = case.work, tensors_of(case.precision)
    fitting = [w for w in works if (w.case.work, w.case.precision) == wanted]
    near = [(abs(w.case.batch - case.batch), w.environment.date, i) for i, w in enumerate(fitting)]
    return fitting[min(near)[2]] if near else None


def _memory_of(
    case: ScalingCase, device: str, memories: Sequence[tuple[MemoryCase, Record]]
) -> Record | None:
    """The memory of a case at the batch that ran: measured on this device, else predicted."""
    wanted = case.batch, case.work, None, tensors_of(case.precision)
    fitting = [
        record
        for of, record in memories
        if (of.batch, of.work, of.limit_bytes, tensors_of(of.precision)) == wanted
        and (of.work == "inference" or of.checkpointing == case.checkpointing)
        and (of.is_predicted or record.environment.device == device)
    ]
    known = [(r.case.device != "meta", r.environment.date, i) for i, r in enumerate(fitting)]
    return fitting[max(known)[2]] if known else None
