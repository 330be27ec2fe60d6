"""Measured against predicted peaks of memory: the ratios of equal cases, and their distribution by device.

A peak on a CPU is compared with the prediction for a GPU in the same precision: both hold the same
parameters, gradients, moments and activations. Imports no torch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.records import columns, memory
from bench.records.base import Record, size_text
from bench.records.memory import Memory, MemoryCase
from bench.stats import intervals
from bench.tables.numbers import fixed
from bench.tables.table import Column, Table, fields

OUTSIDE = (
    "One outside measurement, DiT-XL/2 at batch 128 with checkpointing in fast-DiT's README (27,485 MB on an "
    "A100), is 1.67 times its prediction"
)


@dataclass(frozen=True, kw_only=True)
class MeasuredPeak:
    """A measured peak, with the prediction of the same case."""

    measured: Memory
    predicted: Memory | None  # None: not among the records

    @property
    def case(self) -> MemoryCase:
        return self.measured.case

    @property
    def device(self) -> str:
        return self.measured.environment.device

    @property
    def predicted_bytes(self) -> int | None:
        return self.predicted.use.peak_bytes if self.predicted else None

    @property
    def ratio(self) -> float | None:
        """Measured / predicted peak."""
        return self.measured.use.peak_bytes / self.predicted_bytes if self.predicted_bytes else None

    @property
    def passes_ratio(self) -> float | None:
        """Measured / predicted peak of the passes, both without parameters, moments and EMA."""
        predicted = self.predicted.use.passes_bytes if self.predicted else 0
        return self.measured.use.passes_bytes / predicted if predicted else None


def measured_peaks(records: Iterable[Record]) -> list[MeasuredPeak]:
    """The newest measured peak of every case on a device, with its newest prediction, by device and model."""
    by_age = sorted((record for record in records if isinstance(record, Memory)), key=lambda r: r.age)
    predicted = {record.case: record for record in by_age if record.case.is_predicted}
    measured = {
        (record.environment.device, replace(record.case, device="meta", limit_bytes=None)): record
        for record in by_age
        if not record.case.is_predicted
    }
    found = [
        MeasuredPeak(measured=record, predicted=predicted.get(case)) for (_, case), record in measured.items()
    ]
    return sorted(found, key=_place)


def _place(peak: MeasuredPeak) -> tuple[object, ...]:
    case = peak.case
    settings = (case.work, size_text(case.res), case.precision, case.checkpointing, case.batch)
    return (peak.device, case.model, *settings, repr(case))


def describe(found: Sequence[MeasuredPeak]) -> list[str]:
    """The distributions of measured / predicted, by device and kind of work, a sentence each."""
    groups: dict[tuple[str, str], list[MeasuredPeak]] = {}
    for peak in found:
        if peak.ratio is not None:
            groups.setdefault((peak.device, peak.case.work), []).append(peak)
    return [_sentence(device, work, group) for (device, work), group in sorted(groups.items())]


def known_errors(records: Iterable[Record], works: Sequence[str]) -> list[str]:
    """Measured / predicted peaks of some kinds of work, a sentence each."""
    return [*describe([peak for peak in measured_peaks(records) if peak.case.work in works]), OUTSIDE]


def _sentence(device: str, work: str, group: Sequence[MeasuredPeak]) -> str:
    ratios = [(peak.ratio, peak) for peak in group if peak.ratio]
    farthest, of = max(ratios, key=lambda pair: abs(math.log(pair[0])))
    passes = [peak.passes_ratio for peak in group if peak.passes_ratio]
    return (
        f"measured / predicted peak of {work} on {device}: {_spread([ratio for ratio, _ in ratios])} "
        f"in {len(ratios)} cases of {', '.join(sorted({peak.case.model for peak in group}))}; "
        f"largest deviation: {of.case.model} {of.case.settings}, {fixed(3, farthest)}; "
        f"without parameters, moments and EMA: {_spread(passes)}"
    )


def _spread(ratios: Sequence[float]) -> str:
    low, middle, high = (fixed(3, ratio) for ratio in (min(ratios), intervals.median(ratios), max(ratios)))
    return f"median {middle}, {low} to {high}"


def errors_text(found: Sequence[MeasuredPeak]) -> str:
    """What is known of the errors of predictions, in sentences."""
    sentences = [
        "A prediction sums the live tensors; workspaces and fragmentation come on top",
        *(sentence[0].upper() + sentence[1:] for sentence in describe(found)),
        f"{OUTSIDE}: a smaller margin is not safe",
    ]
    return " ".join(f"{sentence}." for sentence in sentences)


def _ratio(heading: str, field: str) -> Column[MeasuredPeak]:
    return Column(heading, lambda r: getattr(r, field), partial(fixed, 3), key=field)


TABLE = Table[MeasuredPeak](
    title="Measured against predicted peaks, GiB",
    columns=(
        columns.MODEL,
        *fields("case.work"),
        columns.RES,
        columns.PRECISION,
        memory.CHECKPOINTING,
        columns.BATCH,
        Column("measured on", "device"),
        memory.bytes_column("measured", lambda r: r.measured.use.peak_bytes, "measured_bytes"),
        memory.bytes_column("predicted", "predicted_bytes"),
        _ratio("measured / predicted", "ratio"),
        _ratio("of the passes alone", "passes_ratio"),
        Column("measured peak in", "measured.use.peak_phase"),
        memory.bytes_column(
            "process", lambda r: r.measured.use.process_bytes, "process_bytes", optional=True
        ),
    ),
    records=lambda row: tuple(filter(None, (row.measured, row.predicted))),
)
