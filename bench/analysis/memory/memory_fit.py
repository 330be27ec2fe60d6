"""Peak memory as a line over the batch, and the largest batch for a memory size.

GiB are 2**30 bytes. The GB in the name of a GPU are GiB. Imports no torch.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records import memory
from bench.records.base import Record
from bench.records.memory import Memory, MemoryCase, MemoryUse
from bench.tables.numbers import BLANK, significant
from bench.tables.table import Column, Table, fields, unit

GIB = 2**30
MIB = 2**20
MIN_BATCHES = 3  # a line through two points always fits
RESERVE_BYTES = GIB  # reserved of a device's nominal size: driver and CUDA context, about half each
NONLINEAR = 0.01  # residual / largest peak above which the fit counts as nonlinear
MAX_BATCH = 2**20  # upper limit of the search

_UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or a memory size, with its usable bytes."""

    name: str
    capacity_bytes: int
    reserve_bytes: int

    @property
    def usable_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.reserve_bytes)


def fits(
    peak_bytes: float, usable_bytes: int, bounds: Sequence[float] | None = None, *, is_predicted: bool = True
) -> str:
    """Whether a peak fits, in words: a prediction probably does, or perhaps where its bounds disagree."""
    if bounds is not None and bounds[0] <= usable_bytes < bounds[1]:
        return "perhaps fits"
    text = "fits" if peak_bytes <= usable_bytes else "does not fit"
    return f"probably {text}" if is_predicted else text


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Peak of passes = fixed_bytes + per_image_bytes * batch; the update's peak is independent of batch."""

    fixed_bytes: float
    per_image_bytes: float
    residual_bytes: float  # the largest distance of a point from the line
    update_peak_bytes: int | None  # None for inference
    batches: tuple[int, ...]

    def peak_bytes(self, batch: int) -> float:
        return max(self.fixed_bytes + self.per_image_bytes * batch, self.update_peak_bytes or 0)

    @property
    def is_nonlinear(self) -> bool:
        """Whether the residual exceeds NONLINEAR, as where small batches peak in another phase."""
        return self.residual_bytes > NONLINEAR * self.peak_bytes(max(self.batches))

    def max_batch(self, usable_bytes: int) -> int:
        """The largest batch whose peak fits the usable bytes; 0 if one image does not fit."""
        if self.peak_bytes(1) > usable_bytes:
            return 0
        if self.per_image_bytes <= 0:
            return MAX_BATCH
        return min(MAX_BATCH, int((usable_bytes - self.fixed_bytes) // self.per_image_bytes))


def fit(records: Iterable[Record]) -> Fit | None:
    """Least squares over the cases of one model and setting; None with fewer than three measured batches.

    A checkpointed step with a small batch may peak at the end of its backward pass, when the gradients exist,
    and with a large batch at the beginning. If at least three batches peak in the same phase as the largest,
    only these are fitted.
    """
    uses = {record.case.batch: record.use for record in records if isinstance(record, Memory)}
    if len(uses) < MIN_BATCHES:
        return None
    similar = [batch for batch, use in uses.items() if _peaks_late(use) == _peaks_late(uses[max(uses)])]
    batches = sorted(similar if len(similar) >= MIN_BATCHES else uses)
    peak_bytes = [uses[batch].passes_peak_bytes for batch in batches]
    slope, intercept = statistics.linear_regression(batches, peak_bytes)
    updates = [use.update_peak_bytes for use in uses.values() if use.update_peak_bytes is not None]
    return Fit(
        fixed_bytes=intercept,
        per_image_bytes=slope,
        residual_bytes=max(
            abs(peak - intercept - slope * batch) for batch, peak in zip(batches, peak_bytes, strict=True)
        ),
        update_peak_bytes=max(updates, default=None),
        batches=tuple(batches),
    )


def _peaks_late(use: MemoryUse) -> bool:
    """Whether most gradients exist at the peak of the passes."""
    return 2 * use.passes_gradients_bytes > use.gradients_bytes


def largest(fits: Callable[[int], bool], guess: int) -> int:
    """The largest batch that fits, from 0 to MAX_BATCH; `fits` fails from some batch on."""
    low, high, step = max(0, min(guess, MAX_BATCH)), 0, 1
    if low == 0 or fits(low):
        high = low + step
        while high <= MAX_BATCH and fits(high):
            low, step = high, 2 * step
            high = low + step
        high = min(high, MAX_BATCH + 1)
    else:
        low, high = low - step, low
        while low > 0 and not fits(low):
            high, step = low, 2 * step
            low = high - step
        low = max(low, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def device(text: str, reserve_bytes: int = RESERVE_BYTES) -> Device:
    """A GPU of baselines/gpus.csv by a unique part of its name, or a size: 24GiB. ValueError: neither."""
    size = re.fullmatch(rf"([0-9]{{1,15}}(?:\.[0-9]{{1,15}})?) ?({'|'.join(_UNITS)})", text)
    if size:
        capacity = int(float(size[1]) * _UNITS[size[2]])
        if capacity <= reserve_bytes:
            raise ValueError(f"{text}: smaller than the reserve of {reserve_bytes / GIB:g} GiB")
        return Device(name=text, capacity_bytes=capacity, reserve_bytes=reserve_bytes)
    from baselines import load

    try:
        gpu = load.gpu(text)
    except ValueError as error:
        raise ValueError(f"{error}; a size such as 24GiB works too") from error
    return Device(name=gpu.gpu, capacity_bytes=int(gpu.mem_gb * GIB), reserve_bytes=reserve_bytes)


@dataclass(frozen=True, kw_only=True)
class BatchLimit:
    """The line through the batches of one setting, and the largest batch for one device."""

    case: MemoryCase  # any case of the line
    records: tuple[Record, ...]  # records that the line is fitted to
    fit: Fit | None  # None: fewer than three batches were measured
    device: Device | None = None  # None: only the line was requested
    verified_batch: int | None = None  # fits, and the next batch does not; None: not searched, or not found
    remark: str = ""

    @property
    def max_batch(self) -> int | None:
        return self.fit.max_batch(self.device.usable_bytes) if self.fit and self.device else None


def _mebibytes(heading: str, value: Callable[[Any], float | None], key: str) -> Column[Any]:
    return Column(heading, value, unit(significant, 1 / MIB), key=key)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or BLANK


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


LINE: tuple[Column[BatchLimit], ...] = (
    *memory.SETTING,
    Column("measured on", lambda r: r.records[0].environment.device, optional=True),
    memory.bytes_column("a, GiB", lambda r: r.fit and _whole(r.fit.fixed_bytes), "fixed_bytes"),
    _mebibytes("b, MiB/image", lambda r: r.fit and _whole(r.fit.per_image_bytes), "per_image_bytes"),
    _mebibytes("residual, MiB", lambda r: r.fit and _whole(r.fit.residual_bytes), "residual_bytes"),
    memory.bytes_column("update, GiB", "fit.update_peak_bytes"),
    Column("from batches", lambda r: list(r.fit.batches) if r.fit else [], _listed, key="batches"),
)


def _limits(row: BatchLimit) -> tuple[Record, ...]:
    return row.records


LIMITS = Table[BatchLimit](
    title="Largest batch",
    columns=(
        *LINE,
        Column("device", "device.name", key="device"),
        memory.bytes_column("size, GiB", "device.capacity_bytes"),
        *fields("device.reserve_bytes", raw=True),
        Column("max batch", "max_batch", significant),
        Column("verified", "verified_batch", significant, key="verified_max_batch", optional=True),
        Column("remark", "remark", optional=True),
    ),
    records=_limits,
)


def limits_by_device(devices: Sequence[Device]) -> Table[BatchLimit]:
    """Table with one row for each fitted line and one column for each device."""

    def column(device: Device) -> Column[BatchLimit]:
        return Column(device.name, lambda r: r.fit and r.fit.max_batch(device.usable_bytes), significant)

    return Table(title=LIMITS.title, columns=(*LINE, *map(column, devices)), records=_limits)
