"""Predicted speed and memory of a pass on a GPU, with their table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.analysis.memory import memory_fit
from bench.analysis.projection.calibrate import COVERAGE, GroupError, Prediction, error_of
from bench.analysis.projection.passes import PassCosts, PassKey, by_date, is_plain, key_of
from bench.records import columns
from bench.records.base import Record, Skipped
from bench.records.memory import Memory
from bench.records.operators import OperatorCosts
from bench.tables.numbers import BLANK, fixed, interval, milliseconds, significant
from bench.tables.table import Column, Table, fields


def measured_memory(records: Iterable[Record]) -> dict[tuple[str, PassKey, str], Memory]:
    """The newest measured GPU peak memory of each pass whose memory can be predicted."""
    return {
        (record.environment.device, key_of(record.case), record.case.precision): record
        for record in by_date(record for record in records if isinstance(record, Memory))
        if record.case.device == "cuda" and is_plain(record.case)
    }


@dataclass(frozen=True, kw_only=True)
class MemoryErrors:
    """log(predicted / measured) of peaks, which nothing is calibrated on, by kind of work and model."""

    by_model: dict[str, dict[str, list[float]]]

    def interval(self, predicted_bytes: int, work: str) -> tuple[float, float] | None:
        """Interval at nominal COVERAGE with models as groups; None if no peak of such work was measured."""
        if (error := self._error(work)) is None:
            return None
        factor = math.exp(error.half_width)
        return predicted_bytes / factor, predicted_bytes * factor

    def _error(self, work: str) -> GroupError | None:
        models = self.by_model.get(work)
        return error_of(models.values(), at_least=0.0) if models else None

    def describe(self, work: str) -> str:
        """The origin of a memory interval, or the reason that there is none, in words."""
        error = self._error(work)
        if error is None:
            return f"memory has no interval: no GPU peak of {work} is measured yet"
        count = sum(map(len, self.by_model[work].values()))
        return (
            f"the interval of memory is a factor of {math.exp(error.half_width):.3g}, nominally of "
            f"{100 * COVERAGE:.0f} %: Student's t over {count} measured GPU peaks of {work}, "
            f"models counted: {error.groups}"
        )


def memory_errors(records: Iterable[Record], costs: PassCosts) -> MemoryErrors:
    """Compare measured peaks with the predictions of the same passes."""
    found: dict[str, dict[str, list[float]]] = {}
    for (_, key, _), measured in measured_memory(records).items():
        predicted = costs.memory.get(key)
        if isinstance(predicted, Memory):
            error = math.log(predicted.use.peak_bytes / measured.use.peak_bytes)
            models = found.setdefault(measured.case.work, {})
            models.setdefault(measured.case.model, []).append(error)
    return MemoryErrors(by_model=found)


@dataclass(frozen=True, kw_only=True)
class PassPrediction:
    """The predicted speed and memory of a pass on one GPU."""

    gpu: str
    precision: str
    work: OperatorCosts
    prediction: Prediction
    memory: Record | None  # Memory, or Skipped; None if unknown
    errors: MemoryErrors
    checkpointing: bool = False  # in training

    @property
    def peak_bytes(self) -> int | None:
        return self.memory.use.peak_bytes if isinstance(self.memory, Memory) else None

    @property
    def memory_interval(self) -> tuple[float, float] | None:
        return None if self.peak_bytes is None else self.errors.interval(self.peak_bytes, self.work.case.work)

    @property
    def usable_bytes(self) -> int:
        return memory_fit.device(self.gpu).usable_bytes

    @property
    def fits(self) -> str:
        """As `memory_fit.fits`, or the status of a failed prediction."""
        if self.peak_bytes is not None:
            return memory_fit.fits(self.peak_bytes, self.usable_bytes, self.memory_interval)
        return self.memory.status if isinstance(self.memory, Skipped) else BLANK

    @property
    def margin(self) -> float | None:
        """Usable memory / predicted peak, to be compared with measured / predicted peaks."""
        return None if self.peak_bytes is None else self.usable_bytes / self.peak_bytes

    @property
    def images_per_s(self) -> float:
        return self.work.case.batch / self.prediction.seconds

    @property
    def images_per_s_interval(self) -> tuple[float, float]:
        batch = self.work.case.batch
        return batch / self.prediction.high_s, batch / self.prediction.low_s


def _gibibytes(value: float | None) -> str:
    return BLANK if value is None else f"{value / 2**30:.1f}"


def _gibibytes_interval(bounds: Sequence[float] | None) -> str:
    return BLANK if bounds is None else f"{_gibibytes(bounds[0])} to {_gibibytes(bounds[1])}"


NOMINAL = f"nominal {100 * COVERAGE:.0f} % interval"
TABLE = Table[PassPrediction](
    title="Predicted speed and memory",
    columns=(
        Column("predicted", lambda r: True, raw=True),
        Column("GPU", "gpu"),
        *fields("work.case.model", "work.case.work"),
        Column("res", lambda r: columns.size(r.work.case.res), str),
        Column("batch", "work.case.batch", str),
        *fields("precision"),
        Column("checkpointing", "checkpointing", optional=True, usual=False),
        Column("predicted images/s", "images_per_s", significant),
        Column(NOMINAL, "images_per_s_interval", interval),
        Column("predicted ms", "prediction.seconds", milliseconds),
        Column("seconds_interval", lambda r: [r.prediction.low_s, r.prediction.high_s], raw=True),
        Column(
            "at most images/s, eager",
            lambda r: r.work.case.batch / r.prediction.eager_floor_s,
            key="images_per_s_at_most_eager",
        ),
        Column(
            "at most images/s, fused",
            lambda r: r.work.case.batch / r.prediction.fused_floor_s,
            key="images_per_s_at_most_fused",
        ),
        Column("predicted GiB", "peak_bytes", _gibibytes, key="memory_peak_bytes"),
        Column(
            f"GiB, {NOMINAL}",
            "memory_interval",
            _gibibytes_interval,
            key="memory_peak_bytes_interval",
            optional=True,
        ),
        *fields("usable_bytes", raw=True),
        Column("usable / predicted", "margin", partial(fixed, 2), key="memory_margin"),
        *fields("fits"),
        *fields("work.environment.torch", "work.environment.commit", "work.environment.date", raw=True),
    ),
    records=lambda row: tuple(filter(None, (row.work, row.memory))),
)
