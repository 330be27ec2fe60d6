"""The implementations of a depthwise convolution that bench.depthwise compares, and their check.

Every one is held to float64 sums of shifted images, made here without any convolution of torch. Letters: N
batch, C channels, H and W sides, K side of the window.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.counting import counters
from bench.jobs.worker import first_line, out_of_memory
from bench.machine import device
from bench.measure import prepared as arms
from bench.records.record import Size, Variant, height_width
from models.contract import condition_width
from models.kernels.depthwise import LARGEST, channels_last_weight, depthwise_triton
from models.kernels.norm_modulate import norm_modulate_triton
from models.kernels.triton_here import why_no_triton
from models.layers import ChannelNorm, modulate_addcmul
from models.task import Task

EPS = ChannelNorm.eps
# bytes of the inputs of one call, and of its outputs: five times the L2 cache of an H200; as an L3 of a CPU
ROTATED = {"cpu": 2**25, "cuda": 2**28}
MOST_INPUTS = 64
CHUNK = 2**24  # values that the check takes at a time
# of the error: sums in float32 round to some 1e-7; TF32 keeps 10 bits of the mantissa of every factor, so an
# average error of 4e-4; a result in bf16 is off by 1.7e-3, and by more with a rounding in each of three steps
TOLERANCE = {"fp32": 1e-5, "tf32": 2e-3, "torch-default": 2e-3, "bf16": 1e-2, "fp16": 2e-3}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A depthwise convolution of a model at one size."""

    channels: int
    size: Size
    kernel: int
    calls_a_pass: int


def layers(model: nn.Module, task: Task) -> list[Layer]:
    """The depthwise convolutions of a model that keep the image's size, seen in a pass over meta tensors.

    Args:
        model: on the meta device.
        task: gives the shapes of the inputs.

    Returns:
        Each size once, in the order of their first calls.
    """
    calls: dict[Layer, int] = {}

    def seen(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        K = module.kernel_size[0]
        fits = module.groups == module.in_channels == module.out_channels > 1 and module.dilation == (1, 1)
        if fits and module.kernel_size == (K, K) and K % 2 and out.shape == given[0].shape:
            height, width = out.shape[2:]
            layer = Layer(
                channels=module.groups,
                size=height if height == width else (height, width),
                kernel=K,
                calls_a_pass=0,
            )
            calls[layer] = calls.get(layer, 0) + 1

    hooks = [m.register_forward_hook(seen) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(*counters.inputs(task, 1, "meta", condition_width(model)))
    for hook in hooks:
        hook.remove()
    return [replace(layer, calls_a_pass=count) for layer, count in calls.items()]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What an operation is given, for as long as its graphs are replayed; x are (N, C, H, W) by shape."""

    xs: list[Tensor]  # contiguous
    weight: Tensor  # (C, 1, K, K)
    weight_last: Tensor  # the same as (K, K, C)
    bias: Tensor
    shift: Tensor  # (N, C)
    scale: Tensor
    xs_last: list[Tensor]  # the same values, channels last


def operands(
    batch: int, channels: int, size: Size, kernel: int, dtype: torch.dtype, where: str, seed: int = 0
) -> Operands:
    """Draw normal numbers: so many images that no cache holds them, and weights that keep their size."""
    draw = torch.Generator(where).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=where).to(dtype)

    height, width = height_width(size)
    each = batch * channels * height * width * dtype.itemsize
    count = min(MOST_INPUTS, -(-ROTATED[torch.device(where).type] // each))
    xs = [normal(batch, channels, height, width) for _ in range(count)]
    weight = normal(channels, 1, kernel, kernel) / kernel
    return Operands(
        xs=xs,
        weight=weight,
        weight_last=channels_last_weight(weight),
        bias=normal(channels),
        shift=normal(batch, channels),
        scale=normal(batch, channels),
        xs_last=[x.to(memory_format=torch.channels_last) for x in xs],
    )


def exact(given: Operands, operation: str) -> Tensor:
    """What comes of the first input, in float64 on its device: shifted images times their weights, summed."""
    x, K = given.xs[0], given.weight.shape[-1]
    P = K // 2
    images = max(1, CHUNK // x[0].numel())
    weight, bias = given.weight.double(), given.bias.double()[:, None, None]
    done = []
    for chunk in x.split(images):
        H, W = chunk.shape[2:]
        padded = F.pad(chunk.double(), (P, P, P, P))
        out = bias.expand(chunk.shape).clone()
        for dy in range(K):
            for dx in range(K):
                out.addcmul_(padded[:, :, dy : dy + H, dx : dx + W], weight[:, :, dy, dx, None])
        done.append(out)
    out = torch.cat(done)
    if operation == "conv":
        return out
    variance, mean = torch.var_mean(out, dim=1, correction=0, keepdim=True)
    normed = (out - mean) / (variance + EPS).sqrt()
    shift, scale = (one.double()[..., None, None] for one in (given.shift, given.scale))
    return normed * (1 + scale) + shift


def error(out: Tensor, reference: Tensor) -> float | None:
    """||out - reference|| / ||reference||; None where the output holds inf or NaN."""
    if not bool(torch.isfinite(out).all()):
        return None
    return float((out.double() - reference).norm() / reference.norm())


Call = Callable[[int], Tensor]  # of the number of an input -> (N, C, H, W)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """A way to compute an operation."""

    why_not: Callable[[str, int], str]  # of the device's type and K: why it cannot run; blank where it can
    make: Callable[[Operands, str], Call]  # of the operation
    ran: Callable[[Operands], str]  # what computes its convolution
    operations: tuple[str, ...] = ("conv", "block")


def _block(given: Operands, conv: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A convolution, then norm and modulation as in FCDM's blocks."""
    norm = ChannelNorm()
    shift, scale = given.shift[..., None, None], given.scale[..., None, None]
    return lambda x: modulate_addcmul(norm(conv(x)), shift, scale)


def _torch(given: Operands, operation: str) -> Callable[[Tensor], Tensor]:
    weight, bias = given.weight, given.bias

    def conv(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    return conv if operation == "conv" else _block(given, conv)


def _nchw(given: Operands, operation: str) -> Call:
    call = _torch(given, operation)
    return lambda i: call(given.xs[i])


def _channels_last(given: Operands, operation: str) -> Call:
    call = _torch(given, operation)
    return lambda i: call(given.xs_last[i])


def _compiled(given: Operands, operation: str) -> Call:
    call = torch.compile(_torch(given, operation), dynamic=False)
    return lambda i: call(given.xs_last[i])


def _triton(given: Operands, operation: str) -> Call:
    def call(i: int) -> Tensor:
        h = depthwise_triton(given.xs_last[i].permute(0, 2, 3, 1), given.weight_last, given.bias)
        if operation == "block":
            h = norm_modulate_triton(h, given.shift, given.scale, EPS)
        return h.permute(0, 3, 1, 2)

    return call


def has_switch() -> bool:
    """Whether this torch lets a program choose between cuDNN's depthwise kernels and its own (2.13 does)."""
    return hasattr(torch.backends.cudnn, "depthwise_kernel")


@contextmanager
def _switched(kernel: str) -> Iterator[None]:
    before = torch.backends.cudnn.depthwise_kernel
    torch.backends.cudnn.depthwise_kernel = kernel
    try:
        yield
    finally:
        torch.backends.cudnn.depthwise_kernel = before


@contextmanager
def _searching() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _nchw_native(given: Operands, operation: str) -> Call:
    """Held at torch's own kernel, where there is a switch and a choice."""
    call = _nchw(given, operation)
    if given.bias.device.type != "cuda" or not has_switch():
        return call

    def switched(i: int) -> Tensor:
        with _switched("native"):
            return call(i)

    return switched


def _nchw_cudnn(given: Operands, operation: str) -> Call:
    call = _nchw(given, operation)

    def switched(i: int) -> Tensor:
        with _switched("cudnn"):
            return call(i)

    return switched


def _channels_last_searched(given: Operands, operation: str) -> Call:
    call = _channels_last(given, operation)

    def searching(i: int) -> Tensor:
        with _searching():
            return call(i)

    return searching


def _selected(x: Tensor, given: Operands) -> str:
    """Which of its kernels torch takes for the convolution, by its own name."""
    P = given.weight.shape[-1] // 2
    chosen = torch._C._select_conv_backend(
        x, given.weight, given.bias, [1, 1], [P, P], [1, 1], False, [0, 0], len(given.weight)
    )
    return str(chosen).rpartition(".")[2]


def _nchw_selected(given: Operands) -> str:
    if given.bias.device.type != "cuda" or not has_switch():
        return _selected(given.xs[0], given)
    with _switched("native"):
        return _selected(given.xs[0], given)


def _cudnn_selected(given: Operands) -> str:
    with _switched("cudnn"):
        return _selected(given.xs[0], given)


def _on_cuda(where: str, _kernel: int) -> str:
    return "" if where == "cuda" else "runs on CUDA only"


def _with_a_switch(where: str, kernel: int) -> str:
    if reason := _on_cuda(where, kernel):
        return reason
    return "" if has_switch() else f"torch {torch.__version__} has no switch; 2.13 has one"


def _with_triton(where: str, kernel: int) -> str:
    if reason := _on_cuda(where, kernel):
        return reason
    if kernel > LARGEST:
        return f"the kernel takes windows of up to {LARGEST}"
    return why_no_triton()


def _anywhere(_where: str, _kernel: int) -> str:
    return ""


# the first is the reference
IMPLEMENTATIONS: dict[str, Implementation] = {
    "nchw": Implementation(why_not=_anywhere, make=_nchw_native, ran=_nchw_selected),
    "nchw-cudnn": Implementation(
        why_not=_with_a_switch, make=_nchw_cudnn, ran=_cudnn_selected, operations=("conv",)
    ),
    "channels-last": Implementation(
        why_not=_anywhere, make=_channels_last, ran=lambda given: _selected(given.xs_last[0], given)
    ),
    "channels-last-searched": Implementation(
        why_not=_on_cuda,
        make=_channels_last_searched,
        ran=lambda given: f"{_selected(given.xs_last[0], given)}, searched",
        operations=("conv",),
    ),
    "compiled": Implementation(
        why_not=_anywhere,
        make=_compiled,
        ran=lambda given: f"{_selected(given.xs_last[0], given)}, Inductor",
    ),
    "triton": Implementation(why_not=_with_triton, make=_triton, ran=lambda given: "Triton"),
}


def prepared(
    name: str, given: Operands, reference: Tensor, operation: str, precision: str
) -> tuple[Variant, Callable[[], object] | None]:
    """Check one implementation and make what is timed: the operation on every input, one after another.

    On CUDA the whole call is a graph, so that no launch is timed, and its outputs lie beside each other, so
    that no cache holds them. On a CPU each is let go, as memory that was kept would have to be asked for
    again. None where the output is wrong, or the implementation does not run here.
    """
    implementation, where = IMPLEMENTATIONS[name], given.bias.device.type
    nothing = Variant(name=name, ran="", status="not here", reason="", error=None)
    if reason := implementation.why_not(where, given.weight.shape[-1]):
        return replace(nothing, reason=reason), None
    try:
        call = implementation.make(given, operation)
        off = error(call(0), reference)
        ran = implementation.ran(given)
        if off is None or off > TOLERANCE[precision]:
            told = "holds inf or NaN" if off is None else f"is off by {off:.1e}, {precision} by less than "
            told += "" if off is None else f"{TOLERANCE[precision]:.0e}"
            return Variant(name=name, ran=ran, status="wrong", reason=f"the output {told}", error=off), None

        def one_by_one() -> None:
            for i in range(len(given.xs)):
                call(i)

        def all_kept() -> list[Tensor]:
            return [call(i) for i in range(len(given.xs))]

        timed = arms.captured(all_kept) if where == "cuda" else one_by_one
    except RuntimeError as failed:
        status = "out of memory" if out_of_memory(failed) else "error"
        return replace(nothing, status=status, reason=first_line(failed)), None
    return Variant(name=name, ran=ran, status="ok", reason="", error=off), timed


def drawn(batch: int, layer: Layer, precision: str, where: str, operation: str) -> tuple[Operands, Tensor]:
    """Inputs of an operation, and what must come of the first; the precision's switches are set."""
    device.set_precision(precision)
    given = operands(batch, layer.channels, layer.size, layer.kernel, device.DTYPES[precision], where)
    with torch.inference_mode():
        return given, exact(given, operation)
