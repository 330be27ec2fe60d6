"""The highest rate that a device reached in one benchmark: matrix products, convolutions or copies."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import Case, Record, register
from bench.stats import intervals


@dataclass(frozen=True, kw_only=True)
class CeilingCase(Case):
    """Measuring one ceiling."""

    kind: ClassVar[str] = "ceiling"

    what: str  # matmul, convolution or copy
    precision: str  # of what is multiplied; fp32 for copy

    @property
    def label(self) -> str:
        return f"{self.what}, {self.precision}"


@register
@dataclass(frozen=True, kw_only=True)
class Ceiling(Record):
    """Samples of one benchmark at its fastest size."""

    case: CeilingCase
    size: int  # side of the square matrices, channels, or bytes that are read and written again
    work: int  # FLOPs of one call, or bytes read and written by it
    times_s: tuple[float, ...]  # wall clock, synchronised

    @property
    def per_s(self) -> float:
        """FLOP/s or bytes/s at the median time."""
        return self.work / intervals.median(self.times_s)
