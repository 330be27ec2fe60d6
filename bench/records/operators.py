"""MACs and bytes of one pass of a model by operator, from the sizes of meta tensors."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import COUNTS, Record, SizedCase
from bench.records.registry import register

WINOGRAD = (
    36 / 144
)  # products of Winograd's F(4x4, 3x3) / of a direct convolution: 6x6 for 4x4 outputs of 3x3


@dataclass(frozen=True, kw_only=True)
class OperatorCase(SizedCase):
    """Counting the operators of one pass."""

    kind: ClassVar[str] = "operators"
    view: ClassVar[str] = COUNTS

    precision: str  # of the tensors: fp32 (tf32 moves the same bytes), bf16, fp16
    work: str  # inference; or training: forward and backward

    @property
    def label(self) -> str:
        return f"{super().label}, {self.precision}, {self.work}"

    @property
    def command(self) -> tuple[object, ...]:
        words = "bench.roofline", *self.size_options, "--precision", self.precision
        return *words, "--work", self.work, "--device-peaks", "none"


@dataclass(frozen=True, kw_only=True)
class OperatorCost:
    """Calls of one operator in one kind of module, summed over a pass; products of one size."""

    kind: str  # depthwise, pointwise, convolution, linear, attention, scan, norm, elementwise or movement
    op: str  # torch's name of the operator
    module: str  # path of the innermost calling module; * for numbers of repeated blocks
    phase: str  # forward or backward
    calls: int  # kernels that an eager pass starts for it
    macs: int  # by bench.flops' default counter; nonzero for products, convolutions, attention, scans only
    eager_bytes: int  # inputs and outputs of every kernel of an eager pass
    fused_bytes: int  # with norms, elementwise operators and copies fused into their neighbours


@register
@dataclass(frozen=True, kw_only=True)
class OperatorCosts(Record):
    """MACs and bytes of every operator of a pass."""

    case: OperatorCase
    parts: tuple[OperatorCost, ...]

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts)

    @property
    def eager_bytes(self) -> int:
        return sum(part.eager_bytes for part in self.parts)

    @property
    def fused_bytes(self) -> int:
        return sum(part.fused_bytes for part in self.parts)
