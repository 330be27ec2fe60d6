"""Implementations of an operation: drawing inputs, checking against float64, preparing the timed call.

Letters: N batch, C channels in, D channels out, H and W sides.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bench.machine.failures import first_line, out_of_memory
from bench.measure.prepared import engine
from bench.records.kernels import CheckedImplementation
from models.kernels.backends import why_no_triton

# bytes of the inputs of one call, and of its outputs: five times the L2 cache of an H200; a CPU's L3 cache
ROTATED = {"cpu": 2**25, "cuda": 2**28}
MAX_INPUTS = 64
TRITON = "Triton, one kernel"
CHUNK = 2**24  # values per chunk of the check
# relative errors: about 1e-7 for float32 sums; 4e-4 on average for TF32, which keeps 10 mantissa bits of
# every factor; 1.7e-3 for a bf16 result, more with roundings in three steps
TOLERANCE = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 1e-2, "fp16": 2e-3}

Output = Tensor | tuple[Tensor, ...]  # images are (N, D, H, W)
Images = tuple[Tensor, ...]  # the images that one operation reads, each (N, C, H, W)
Call = Callable[[int], Output]  # takes the index of an input


@dataclass(frozen=True, kw_only=True)
class Operands:
    """Inputs and weights of an operation; they must outlive its CUDA graphs."""

    inputs: list[Images]  # contiguous; more than the caches hold
    weight: Tensor  # of a torch.nn.Conv2d
    bias: Tensor  # (D,)

    @cached_property
    def inputs_last(self) -> list[Images]:
        """The same values, channels last."""
        return [tuple(one.to(memory_format=torch.channels_last) for one in images) for images in self.inputs]

    @property
    def where(self) -> str:
        return self.bias.device.type


G = TypeVar("G", bound=Operands)
Form = Callable[[G], Callable[..., Output]]  # from the operands, a function of the images of one input


@dataclass(frozen=True, kw_only=True)
class Implementation(Generic[G]):
    """One implementation of an operation."""

    make: Callable[[G], Call]
    ran: Callable[[G], str]  # the name of the kernel of its convolution or product
    # from device and window: reason why it cannot run, or blank
    why_not: Callable[[str, int], str] = lambda where, window: ""


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[G]):
    """An operation with its implementations, the first of which is the reference of the ratios."""

    draw: Callable[[Any, "Draws"], G]  # from a KernelCase
    exact: Callable[[G], Output]  # of the first input, in float64
    implementations: dict[str, Implementation[G]]


class Draws:
    """Normal random numbers of one type on one device."""

    def __init__(self, dtype: torch.dtype, where: str) -> None:
        self.dtype, self.where = dtype, where
        self._generator = torch.Generator(where).manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.where).to(self.dtype)

    def inputs(self, *shapes: tuple[int, int, int, int]) -> list[Images]:
        """Images of these shapes, as many times as the caches do not hold."""
        input_bytes = self.dtype.itemsize * sum(map(math.prod, shapes))
        count = min(MAX_INPUTS, -(-ROTATED[torch.device(self.where).type] // input_bytes))
        return [tuple(self.normal(*shape) for shape in shapes) for _ in range(count)]


def cuda_only(where: str, _window: int) -> str:
    return "" if where == "cuda" else "runs on CUDA only"


def triton_only(where: str, window: int) -> str:
    return cuda_only(where, window) or why_no_triton()


def computed(form: Form[G], *, last: bool, compiled: bool = False) -> Callable[[G], Call]:
    """The `make` of a form; `last` is for channels-last images."""

    def make(given: G) -> Call:
        function = form(given)
        called = torch.compile(function, dynamic=False) if compiled else function
        inputs = given.inputs_last if last else given.inputs
        return lambda i: called(*inputs[i])

    return make


def not_twice(where: str, window: int) -> str:
    """Where --impl fast runs a Triton kernel, which is an implementation of its own."""
    return "" if triton_only(where, window) else "is triton on CUDA"


def operation(
    draw: Callable[[Any, "Draws"], G],
    exact: Callable[[G], Output],
    forms: tuple[Form[G], Form[G], Form[G]],
    ran: tuple[Callable[[G], str], Callable[[G], str]],
) -> Operation[G]:
    """An operation by the operators of the reference network, and by the two forms of its fused operator.

    Args:
        forms: of the network, and the fused operator in plain torch and in Triton.
        ran: names the kernel of the first form, and that of the second outside torch.compile.
    """
    eager, reference, triton = forms
    return Operation(
        draw=draw,
        exact=exact,
        implementations={
            "eager": Implementation(make=computed(eager, last=False), ran=ran[0]),
            "fast": Implementation(make=computed(reference, last=True), ran=ran[1], why_not=not_twice),
            "compiled": Implementation(
                make=computed(reference, last=True, compiled=True), ran=lambda _given: "Inductor"
            ),
            "triton": Implementation(
                make=computed(triton, last=True), ran=lambda _given: TRITON, why_not=triton_only
            ),
        },
    )


def selected(x: Tensor, given: Operands) -> str:
    """Torch's name of the kernel that it selects for a convolution of x with the operands' weight."""
    padding = given.weight.shape[-1] // 2
    groups = x.shape[1] // given.weight.shape[1]
    found = torch._C._select_conv_backend(
        x, given.weight, given.bias, [1, 1], [padding, padding], [1, 1], False, [0, 0], groups
    )
    return str(found).rpartition(".")[2]


def chunks(images: Tensor) -> list[slice]:
    """Slices over N of at most CHUNK values each, for the check."""
    step = max(1, CHUNK // images[0].numel())
    return [slice(start, start + step) for start in range(0, len(images), step)]


def tensors(out: Output) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def error(out: Output, exact: Output) -> float | None:
    """||out - exact|| / ||exact||, the largest of several outputs; None if one has inf or NaN."""
    pairs = list(zip(tensors(out), tensors(exact), strict=True))
    if not all(bool(torch.isfinite(one).all()) for one, _ in pairs):
        return None
    return max(float((one.double() - right).norm() / right.norm()) for one, right in pairs)


def prepare(
    name: str, implementations: Mapping[str, Implementation[G]], given: G, exact: Output, precision: str
) -> tuple[CheckedImplementation, Callable[[], object] | None]:
    """Check one implementation and prepare the timed call: the operation on every input in turn.

    On CUDA the call is a graph, to exclude launch times, and every output has its own memory, to defeat the
    caches. On a CPU each output is freed, as in a network. No call if the output is wrong or nothing ran.
    """
    implementation = implementations[name]
    found = CheckedImplementation(name=name, ran="", status="not here", reason="", error=None)
    if reason := implementation.why_not(given.where, given.weight.shape[-1]):
        return replace(found, reason=reason), None
    try:
        call = implementation.make(given)
        off = error(call(0), exact)
        found = replace(found, ran=implementation.ran(given), status="ok", error=off)
        if off is None:
            return replace(found, status="wrong", reason="the output holds inf or NaN"), None
        if off > TOLERANCE[precision]:
            tolerance = f"{precision} by less than {TOLERANCE[precision]:.0e}"
            reason = f"the output is off by {off:.1e}, {tolerance}"
            return replace(found, status="wrong", reason=reason), None

        def run_each() -> None:
            for i in range(len(given.inputs)):
                call(i)

        def keep_all() -> list[Output]:
            return [call(i) for i in range(len(given.inputs))]

        return found, engine.captured(keep_all) if given.where == "cuda" else run_each
    except RuntimeError as failed:
        status = "out of memory" if out_of_memory(failed) else "error"
        return replace(found, ran="", status=status, reason=first_line(failed), error=None), None
