"""Implementations of one operation of a model, checked, then timed in interleaved rounds."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import ModelCase, Size, height_width
from bench.records.interleaved import Interleaved
from bench.records.registry import register
from bench.stats import intervals, series

DEPTHWISE = ("conv", "block", "conv-gelu")
PRODUCTS = ("gelu-product", "scaled-product", "shuffled-product")
NORMS = ("norm-gelu",)
OPERATIONS = (*DEPTHWISE, *PRODUCTS, *NORMS)


@dataclass(frozen=True, kw_only=True)
class KernelCase(ModelCase):
    """Comparing implementations of one operation of a model."""

    operation: str  # one of OPERATIONS, docs/kernels.md
    channels: int  # in
    image_size: Size  # of the output
    calls_per_pass: int  # calls of this operation in one pass of the model
    budget_s: float
    precision_target: float  # the margin within which speeds are the same

    @property
    def command(self) -> tuple[object, ...]:
        words = "bench.kernels", *self.size_options, "--device", self.device, "--precision", self.precision
        return *words, "--operation", self.operation

    @property
    def out_width(self) -> int:
        """Channels out."""
        return self.channels

    @property
    def window(self) -> int:
        """Side of the convolution's window."""
        return 1

    @property
    def operation_name(self) -> str:
        """The operation, with its window if it has one: conv 7x7."""
        return self.operation

    @property
    def width_label(self) -> str:
        """Channels in words."""
        raise NotImplementedError

    @property
    def flops(self) -> int:
        """FLOPs of the convolution or product, two per MAC; what precedes and follows it is negligible."""
        raise NotImplementedError

    @property
    def least_bytes(self) -> int:
        """Bytes with every input read once and every output written once, in the case's precision."""
        raise NotImplementedError

    @property
    def operation_label(self) -> str:
        """conv 7x7, 128 channels, 32x32."""
        side = "x".join(map(str, height_width(self.image_size)))
        return f"{self.operation_name}, {self.width_label} channels, {side}"

    @property
    def label(self) -> str:
        return f"{self.operation_label}, {super().label}"

    @property
    def pixels(self) -> int:
        """Pixels of all output images."""
        height, width = height_width(self.image_size)
        return self.batch * height * width

    @property
    def elements(self) -> int:
        """Number of output elements."""
        return self.pixels * self.out_width

    @property
    def value_bytes(self) -> int:
        return 2 if self.precision in ("bf16", "fp16") else 4


@dataclass(frozen=True, kw_only=True)
class DepthwiseCase(KernelCase):
    """conv: a depthwise convolution with bias; followed by norm and modulation, or by GELU and averages."""

    kind: ClassVar[str] = "depthwise"

    kernel: int  # side of the window

    @property
    def command(self) -> tuple[object, ...]:
        return *super().command, "--kernel-size", self.kernel

    @property
    def window(self) -> int:
        return self.kernel

    @property
    def operation_name(self) -> str:
        return f"{self.operation} {self.kernel}x{self.kernel}"

    @property
    def width_label(self) -> str:
        return str(self.channels)

    @property
    def flops(self) -> int:
        """Padding included."""
        return 2 * self.kernel**2 * self.elements

    @property
    def least_bytes(self) -> int:
        weights = (self.kernel**2 + 1) * self.channels
        vectors = {"conv": 0, "block": 2, "conv-gelu": 1}[self.operation]  # of every image and channel
        return self.value_bytes * (2 * self.elements + weights + vectors * self.batch * self.channels)


@dataclass(frozen=True, kw_only=True)
class ProductCase(KernelCase):
    """A product over the channels of images (a 1x1 convolution), with what precedes and follows it."""

    kind: ClassVar[str] = "product"

    out_channels: int

    @property
    def out_width(self) -> int:
        return self.out_channels

    @property
    def width_label(self) -> str:
        return f"{self.channels} to {self.out_channels}"

    @property
    def flops(self) -> int:
        return 2 * self.channels * self.elements

    @property
    def least_bytes(self) -> int:
        C, D = self.channels, self.out_channels
        values = self.pixels * (C + D) + (C + 1) * D
        if self.operation == "scaled-product":  # residual, gate, scale, shift
            values += self.pixels * D + self.batch * (C + D) + C
        norms = 4 * self.batch * D if self.operation == "gelu-product" else 0  # float32
        return self.value_bytes * values + norms


@dataclass(frozen=True, kw_only=True)
class NormCase(KernelCase):
    """Group norm, modulation and GELU."""

    kind: ClassVar[str] = "group-norm"

    groups: int

    @property
    def width_label(self) -> str:
        return f"{self.groups} groups of {self.channels // self.groups}"

    @property
    def flops(self) -> int:
        return 0

    @property
    def least_bytes(self) -> int:
        return self.value_bytes * (2 * self.elements + 2 * (1 + self.batch) * self.channels)


@dataclass(frozen=True, kw_only=True)
class CheckedImplementation:
    """One implementation of an operation, with the result of its check."""

    name: str
    ran: str  # name of the executed kernel in torch or the suite; blank if none ran
    status: str  # ok; not here: it cannot run; wrong, error or out of memory: it failed and was not timed
    reason: str  # blank if ok
    error: float | None  # ||out - exact|| / ||exact|| with exact in float64; None without a finite output


@dataclass(frozen=True, kw_only=True)
class OperatorComparison(Interleaved):
    """Interleaved rounds over implementations: an arm is an implementation whose status is ok."""

    case: KernelCase
    implementations: tuple[CheckedImplementation, ...]
    inputs: int  # of one call, with one operation each: more than the caches hold

    def __post_init__(self) -> None:
        first = self.implementations[0].status if self.implementations else ""
        if first != "ok" or len(self.calls) != len(self.timed):
            raise ValueError(
                f"{self.case.name}: needs a first implementation that was timed, and calls for each"
            )
        super().__post_init__()

    @property
    def timed(self) -> tuple[CheckedImplementation, ...]:
        """The implementations that are arms."""
        return tuple(
            implementation for implementation in self.implementations if implementation.status == "ok"
        )

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(implementation.name for implementation in self.timed)

    def times_s(self, arm: int) -> tuple[float, ...]:
        """Mean seconds of one operation in each visit of an arm, in order."""
        return tuple(seconds / self.inputs for seconds in super().times_s(arm))

    def median_s(self, arm: int) -> float:
        return intervals.median(self.times_s(arm))

    def interval_s(self, arm: int) -> tuple[float, float] | None:
        """95 % interval of the median within this process; None with fewer than six visits."""
        return series.median_interval(self.times_s(arm))


@register
@dataclass(frozen=True, kw_only=True)
class DepthwiseComparison(OperatorComparison):
    """Implementations of a depthwise convolution."""

    case: DepthwiseCase


@register
@dataclass(frozen=True, kw_only=True)
class ProductComparison(OperatorComparison):
    """Implementations of a product."""

    case: ProductCase


@register
@dataclass(frozen=True, kw_only=True)
class NormComparison(OperatorComparison):
    """Implementations of a group norm."""

    case: NormCase
