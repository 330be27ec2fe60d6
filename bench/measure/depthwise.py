"""Depthwise convolution implementations: each is checked against float64, then all are timed in rounds.

Letters: N batch, C channels, H and W sides, K kernel size.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.machine import device, telemetry
from bench.machine.failures import first_line, out_of_memory
from bench.measure import interleaved, prepared
from bench.records import depthwise as records
from bench.records.base import Environment, Record, Size, Skipped, height_width
from bench.records.depthwise import DepthwiseCase, OperatorComparison
from models.contract import condition_width, device_of, make_inputs
from models.kernels.backends import why_no_triton
from models.kernels.depthwise import LARGEST, channels_last_weight, depthwise_triton
from models.kernels.fused.depthwise_norm import depthwise_norm_triton
from models.kernels.norm_modulate import norm_modulate_triton
from models.layers.modulation import ChannelNorm, modulate_addcmul
from models.task import Task

EPS = ChannelNorm.eps
# bytes of the inputs of one call, and of its outputs: five times the L2 cache of an H200; a CPU's L3 cache
ROTATED = {"cpu": 2**25, "cuda": 2**28}
MAX_INPUTS = 64
CHUNK = 2**24  # values per chunk of the check
VISIT_S = {"cpu": 0.05, "cuda": 0.01}  # a graph replay is launched in about 10 us, asynchronously
# relative errors: about 1e-7 for float32 sums; 4e-4 on average for TF32, which keeps 10 mantissa bits of
# every factor; 1.7e-3 for a bf16 result, more with roundings in three steps
TOLERANCE = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 1e-2, "fp16": 2e-3}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A depthwise convolution of a model at one size."""

    channels: int
    image_size: Size
    kernel: int
    calls_per_pass: int


def layers(model: nn.Module, task: Task) -> list[Layer]:
    """The depthwise convolutions of a model that keep the image's size, found in a pass.

    Args:
        model: on the meta device.
        task: gives the shapes of the inputs.

    Returns:
        Each distinct size once, in the order of the first calls.
    """
    calls: dict[Layer, int] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        K = module.kernel_size[0]
        is_depthwise = module.groups == module.in_channels == module.out_channels > 1
        same_size = K % 2 and module.kernel_size == (K, K) and out.shape == inputs[0].shape
        if is_depthwise and same_size and module.dilation == (1, 1):
            H, W = out.shape[2:]
            size = H if H == W else (H, W)
            layer = Layer(channels=module.groups, image_size=size, kernel=K, calls_per_pass=0)
            calls[layer] = calls.get(layer, 0) + 1

    hooks = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(*make_inputs(task, 1, device_of(model), condition_width(model)))
    for hook in hooks:
        hook.remove()
    return [replace(layer, calls_per_pass=count) for layer, count in calls.items()]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """Inputs and weights of an operation; they must outlive its CUDA graphs."""

    xs: list[Tensor]  # (N, C, H, W), contiguous
    xs_last: list[Tensor]  # the same values, channels last
    weight: Tensor  # (C, 1, K, K)
    weight_last: Tensor  # the same as (K, K, C)
    bias: Tensor  # (C,)
    shift: Tensor  # (N, C)
    scale: Tensor  # (N, C)

    @property
    def on_cuda(self) -> bool:
        return self.bias.device.type == "cuda"


def operands(
    batch: int, channels: int, image_size: Size, kernel: int, dtype: torch.dtype, where: str, seed: int = 0
) -> Operands:
    """Draw normal random numbers: more images than the caches hold, and weights that preserve the scale."""
    generator = torch.Generator(where).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=where).to(dtype)

    H, W = height_width(image_size)
    input_bytes = batch * channels * H * W * dtype.itemsize
    count = min(MAX_INPUTS, -(-ROTATED[torch.device(where).type] // input_bytes))
    xs = [normal(batch, channels, H, W) for _ in range(count)]
    weight = normal(channels, 1, kernel, kernel) / kernel
    return Operands(
        xs=xs,
        xs_last=[x.to(memory_format=torch.channels_last) for x in xs],
        weight=weight,
        weight_last=channels_last_weight(weight),
        bias=normal(channels),
        shift=normal(batch, channels),
        scale=normal(batch, channels),
    )


def exact(given: Operands, operation: str) -> Tensor:
    """The operation on the first input in float64, as a sum of shifted images times their weights.

    It calls no convolution of torch.
    """
    x, K = given.xs[0], given.weight.shape[-1]
    P = K // 2
    weight, bias = given.weight.double(), given.bias.double()[:, None, None]
    outs = []
    for chunk in x.split(max(1, CHUNK // x[0].numel())):
        H, W = chunk.shape[2:]
        padded = F.pad(chunk.double(), (P, P, P, P))
        out = bias.expand(chunk.shape).clone()
        for dy in range(K):
            for dx in range(K):
                out.addcmul_(padded[:, :, dy : dy + H, dx : dx + W], weight[:, :, dy, dx, None])
        outs.append(out)
    out = torch.cat(outs)
    if operation == "conv":
        return out
    variance, mean = torch.var_mean(out, dim=1, correction=0, keepdim=True)
    normed = (out - mean) / (variance + EPS).sqrt()
    shift, scale = (vector.double()[..., None, None] for vector in (given.shift, given.scale))
    return normed * (1 + scale) + shift


def error(out: Tensor, reference: Tensor) -> float | None:
    """||out - reference|| / ||reference||; None if the output has inf or NaN."""
    if not bool(torch.isfinite(out).all()):
        return None
    return float((out.double() - reference).norm() / reference.norm())


# the implementations

Call = Callable[[int], Tensor]  # the index of an input -> (N, C, H, W)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One implementation of an operation."""

    make: Callable[[Operands, str], Call]  # from the operands and the operation
    ran: Callable[[Operands], str]  # the name of the kernel of its convolution
    why_not: Callable[[str, int], str]  # from device and K: reason why it cannot run, or blank
    operations: tuple[str, ...] = ("conv", "block")


@contextmanager
def switched(name: str, value: object) -> Iterator[None]:
    """Context manager that sets a switch of torch.backends.cudnn."""
    before = getattr(torch.backends.cudnn, name)
    setattr(torch.backends.cudnn, name, value)
    try:
        yield
    finally:
        setattr(torch.backends.cudnn, name, before)


def _torch(
    *,
    last: bool,
    switch: tuple[str, object] | None = None,
    compiled: bool = False,
    suffix: str = "",
    why_not: Callable[[str, int], str] = lambda _where, _kernel: "",
    operations: tuple[str, ...] = ("conv", "block"),
) -> Implementation:
    """Implementation by torch's convolution; a block has the norm and modulation of FCDM's.

    Args:
        last: channels-last images; otherwise contiguous.
        switch: of cuDNN, with its value; ignored on a CPU, or if this torch lacks it.
        compiled: under torch.compile.
        suffix: appended to the kernel's name.
        why_not: as in Implementation.
        operations: as in Implementation.
    """

    def switches(given: Operands) -> AbstractContextManager[None]:
        applies = switch and given.on_cuda and hasattr(torch.backends.cudnn, switch[0])
        return switched(*switch) if switch and applies else nullcontext()

    def make(given: Operands, operation: str) -> Call:
        weight, bias, norm, xs = given.weight, given.bias, ChannelNorm(), given.xs_last if last else given.xs
        shift, scale = given.shift[..., None, None], given.scale[..., None, None]

        def conv(x: Tensor) -> Tensor:
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

        def block(x: Tensor) -> Tensor:
            return modulate_addcmul(norm(conv(x)), shift, scale)

        function = conv if operation == "conv" else block
        called = torch.compile(function, dynamic=False) if compiled else function

        def call(i: int) -> Tensor:
            with switches(given):
                return called(xs[i])

        return call if switch and given.on_cuda else lambda i: called(xs[i])

    def ran(given: Operands) -> str:
        with switches(given):
            return _selected(given.xs_last[0] if last else given.xs[0], given) + suffix

    return Implementation(make=make, ran=ran, why_not=why_not, operations=operations)


def _triton(given: Operands, operation: str) -> Call:
    def call(i: int) -> Tensor:
        h = depthwise_triton(given.xs_last[i].permute(0, 2, 3, 1), given.weight_last, given.bias)
        if operation == "block":
            h = norm_modulate_triton(h, given.shift, given.scale, EPS)
        return h.permute(0, 3, 1, 2)

    return call


def _fused(given: Operands, _operation: str) -> Call:
    def call(i: int) -> Tensor:
        x = given.xs_last[i].permute(0, 2, 3, 1)
        h = depthwise_norm_triton(x, given.weight, given.bias, given.shift, given.scale, EPS)
        return h.permute(0, 3, 1, 2)

    return call


def _selected(x: Tensor, given: Operands) -> str:
    """Torch's name of the kernel that it selects for the convolution."""
    P = given.weight.shape[-1] // 2
    selected = torch._C._select_conv_backend(
        x, given.weight, given.bias, [1, 1], [P, P], [1, 1], False, [0, 0], len(given.weight)
    )
    return str(selected).rpartition(".")[2]


def has_switch() -> bool:
    """Whether this torch has a switch between cuDNN's and its own depthwise kernels (2.13 does)."""
    return hasattr(torch.backends.cudnn, "depthwise_kernel")


def _cuda_only(where: str, _kernel: int) -> str:
    return "" if where == "cuda" else "runs on CUDA only"


def _needs_switch(where: str, kernel: int) -> str:
    switch = "" if has_switch() else f"torch {torch.__version__} has no switch; 2.13 has one"
    return _cuda_only(where, kernel) or switch


def _needs_triton(where: str, kernel: int) -> str:
    too_large = f"the kernel takes windows of up to {LARGEST}" if kernel > LARGEST else ""
    return _cuda_only(where, kernel) or too_large or why_no_triton()


# the first is the reference
IMPLEMENTATIONS: dict[str, Implementation] = {
    "nchw": _torch(last=False, switch=("depthwise_kernel", "native")),
    "nchw-cudnn": _torch(
        last=False, switch=("depthwise_kernel", "cudnn"), why_not=_needs_switch, operations=("conv",)
    ),
    "channels-last": _torch(last=True),
    "channels-last-searched": _torch(
        last=True, switch=("benchmark", True), suffix=", searched", why_not=_cuda_only, operations=("conv",)
    ),
    "compiled": _torch(last=True, compiled=True, suffix=", Inductor"),
    "triton": Implementation(make=_triton, ran=lambda _given: "Triton", why_not=_needs_triton),
    "triton-fused": Implementation(
        make=_fused,
        ran=lambda _given: "Triton, one kernel",
        why_not=lambda where, _kernel: _cuda_only(where, _kernel) or why_no_triton(),
        operations=("block",),
    ),
}


# checking and timing


def draw(case: DepthwiseCase) -> tuple[Operands, Tensor]:
    """Draw the operands of a case and compute the exact output of the first input; sets the TF32 switches."""
    device.set_precision(case.precision)
    dtype = device.DTYPES[case.precision]
    given = operands(case.batch, case.channels, case.image_size, case.kernel, dtype, case.device)
    with torch.inference_mode():
        return given, exact(given, case.operation)


def prepare(
    name: str, given: Operands, reference: Tensor, operation: str, precision: str
) -> tuple[records.CheckedImplementation, Callable[[], object] | None]:
    """Check one implementation and prepare the timed call: the operation on every input in turn.

    On CUDA the call is a graph, to exclude launch times, and every output has its own memory, to defeat the
    caches. On a CPU each output is freed, as in a network.

    Returns:
        The result of the check, and the call; None if the output is wrong or the implementation does not run.
    """
    implementation = IMPLEMENTATIONS[name]
    found = records.CheckedImplementation(name=name, ran="", status="not here", reason="", error=None)
    if reason := implementation.why_not(given.bias.device.type, given.weight.shape[-1]):
        return replace(found, reason=reason), None
    try:
        call = implementation.make(given, operation)
        off = error(call(0), reference)
        found = replace(found, ran=implementation.ran(given), status="ok", error=off)
        if off is None:
            return replace(found, status="wrong", reason="the output holds inf or NaN"), None
        if off > TOLERANCE[precision]:
            tolerance = f"{precision} by less than {TOLERANCE[precision]:.0e}"
            reason = f"the output is off by {off:.1e}, {tolerance}"
            return replace(found, status="wrong", reason=reason), None

        def run_each() -> None:
            for i in range(len(given.xs)):
                call(i)

        def keep_all() -> list[Tensor]:
            return [call(i) for i in range(len(given.xs))]

        return found, prepared.captured(keep_all) if given.on_cuda else run_each
    except RuntimeError as failed:
        status = "out of memory" if out_of_memory(failed) else "error"
        return replace(found, ran="", status=status, reason=first_line(failed), error=None), None


def measure(case: DepthwiseCase, environment: Environment) -> Record:
    """Check and compare the implementations of a case in this process.

    Returns:
        OperatorComparison; or Skipped if the reference, or every other implementation, cannot be timed.
    """
    given, reference = draw(case)
    names = [
        name
        for name, implementation in IMPLEMENTATIONS.items()
        if case.operation in implementation.operations
    ]
    with torch.inference_mode():
        ready = [prepare(name, given, reference, case.operation, case.precision) for name in names]
        del reference
        found, calls = tuple(result for result, _ in ready), [call for _, call in ready if call]
        first, *others = found
        if first.status != "ok":
            reason = f"{first.name}: {first.reason}"
            return Skipped(case=case, environment=environment, status=first.status, reason=reason)
        if len(calls) < 2:
            reason = "; ".join(f"{result.name}: {result.reason}" for result in others)
            reason = f"nothing beside {first.name}: {reason}"
            return Skipped(case=case, environment=environment, status="not timed", reason=reason)
        monitor = telemetry.monitor(case.device)
        compared = interleaved.compare(
            calls,
            interleaved.Policy(
                budget_s=case.budget_s,
                margin=case.precision_target,
                min_visit_s=VISIT_S[case.device],
                min_warmup_s=min(0.5, case.budget_s / 20),
            ),
            clock=time.perf_counter,
            synchronise=device.synchronise(case.device),
            read_clock_mhz=monitor.clock_mhz if monitor else None,
        )
    return OperatorComparison(
        case=case,
        environment=environment,
        implementations=found,
        inputs=len(given.xs),
        **compared.fields(case.precision_target),
    )
