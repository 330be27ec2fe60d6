"""Ceilings: the highest measured rate of a device for matrix products, convolutions or copies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from bench.records.base import Case, Record
from bench.records.columns import ENVIRONMENT
from bench.records.quantities import Quantity
from bench.records.registry import register
from bench.stats import intervals
from bench.tables.numbers import milliseconds, rounded, significant
from bench.tables.table import Column, Table, fields, unit


@dataclass(frozen=True, kw_only=True)
class CeilingCase(Case):
    """Measuring one ceiling."""

    kind: ClassVar[str] = "ceiling"

    what: str  # matmul, convolution or copy
    precision: str  # of the factors; fp32 for copy

    @property
    def label(self) -> str:
        return f"{self.what}, {self.precision}"

    @property
    def details(self) -> tuple[str, ...]:
        return (self.what,)

    @property
    def command(self) -> tuple[object, ...]:
        return "bench.roofline", "--device", self.device, "--measure-ceilings"


PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")}  # by device


def cases(where: str, precisions: Sequence[str]) -> list[CeilingCase]:
    """Cases of a matrix product in every precision, and of a copy.

    On a CPU also a convolution in every precision: torch calls different libraries for products and
    convolutions, and either may be faster.
    """
    products = ("matmul", "convolution") if where == "cpu" else ("matmul",)
    pairs = [(what, precision) for precision in dict.fromkeys(precisions) for what in products]
    return [
        CeilingCase(device=where, what=what, precision=precision)
        for what, precision in [*pairs, ("copy", "fp32")]
    ]


@register
@dataclass(frozen=True, kw_only=True)
class Ceiling(Record):
    """Samples of one benchmark at its fastest size."""

    case: CeilingCase
    size: int  # side of the square matrices, number of channels, or bytes of the copied tensor
    work: int  # FLOPs of one call, or bytes that it reads and writes
    times_s: tuple[float, ...]  # wall clock, synchronised

    @property
    def per_s(self) -> float:
        """FLOP/s or bytes/s at the median time."""
        return self.work / intervals.median(self.times_s)

    @property
    def result(self) -> str:
        return f"{rounded(self.per_s / 1e9)} {'GB/s' if self.case.what == 'copy' else 'GFLOP/s'}"

    @property
    def quantities(self) -> list[Quantity]:
        name = f"median of 1 {'GB' if self.case.what == 'copy' else 'GFLOP'}"
        return [Quantity.of_times(name, [[1e9 * time / self.work for time in self.times_s]])]


DEVICE, *SOFTWARE = ENVIRONMENT
GIGA = unit(significant, 1e-9)
TABLE = Table[Ceiling](
    title="Measured ceilings",
    columns=(
        replace(DEVICE, raw=False),
        *fields("case.what", "case.precision"),
        Column("side, channels or bytes", "size"),
        Column("GFLOP/s", lambda r: None if r.case.what == "copy" else r.per_s, GIGA, key="flops_per_s"),
        Column("GB/s", lambda r: r.per_s if r.case.what == "copy" else None, GIGA, key="bytes_per_s"),
        Column("ms", lambda r: intervals.median(r.times_s), milliseconds, key="median_s"),
        Column("samples", lambda r: len(r.times_s)),
        *fields("work", "per_s", "times_s", raw=True),
        *(replace(column, raw=False) for column in SOFTWARE),
    ),
)
