"""Depthwise convolutions with what follows them in FCDM's and DiCo's blocks: exact outputs, implementations.

Letters: N batch, C channels, H and W sides, K side of the window.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure.operations.implementations import (
    TRITON,
    Call,
    Draws,
    Form,
    Implementation,
    Operands,
    Operation,
    Output,
    chunks,
    computed,
    cuda_only,
    not_twice,
    selected,
    triton_only,
)
from bench.measure.operations.products import packed
from bench.records.base import height_width
from bench.records.kernels import DepthwiseCase
from models.fast.layout import image, pixels
from models.kernels.depthwise import LARGEST, channels_last_weight, depthwise_triton
from models.kernels.fused.depthwise_gelu import depthwise_gelu_reference, depthwise_gelu_triton
from models.kernels.fused.depthwise_norm import depthwise_norm_triton
from models.kernels.norm_modulate import norm_modulate_triton
from models.layers.modulation import ChannelNorm, modulate_addcmul

EPS = ChannelNorm.eps


@dataclass(frozen=True, kw_only=True)
class DepthwiseOperands(Operands):
    """The weight is (C, 1, K, K); an input is one image."""

    shift: Tensor  # (N, C)
    scale: Tensor  # (N, C)


def draw(case: DepthwiseCase, draws: Draws) -> DepthwiseOperands:
    """Draw operands whose weights preserve the scale."""
    N, C, K = case.batch, case.channels, case.kernel
    return DepthwiseOperands(
        inputs=draws.inputs((N, C, *height_width(case.image_size))),
        weight=draws.normal(C, 1, K, K) / K,
        bias=draws.normal(C),
        shift=draws.normal(N, C),
        scale=draws.normal(N, C),
    )


def exact_conv(given: DepthwiseOperands) -> Tensor:
    """The convolution in float64, as a sum of shifted images times their weights, without torch's own."""
    (x,), K = given.inputs[0], given.weight.shape[-1]
    P = K // 2
    weight, bias = given.weight.double(), given.bias.double()[:, None, None]
    outs = []
    for chunk in (x[rows] for rows in chunks(x)):
        H, W = chunk.shape[2:]
        padded = F.pad(chunk.double(), (P, P, P, P))
        out = bias.expand(chunk.shape).clone()
        for dy in range(K):
            for dx in range(K):
                out.addcmul_(padded[:, :, dy : dy + H, dx : dx + W], weight[:, :, dy, dx, None])
        outs.append(out)
    return torch.cat(outs)


def exact_block(given: DepthwiseOperands) -> Tensor:
    out = exact_conv(given)
    variance, mean = torch.var_mean(out, dim=1, correction=0, keepdim=True)
    normed = (out - mean) / (variance + EPS).sqrt()
    shift, scale = (vector.double()[..., None, None] for vector in (given.shift, given.scale))
    return normed * (1 + scale) + shift


def exact_conv_gelu(given: DepthwiseOperands) -> Output:
    z = exact_conv(given)
    h = z * torch.special.ndtr(z)
    return h, h.mean(dim=(2, 3))


# the forms


def conv(given: DepthwiseOperands) -> Callable[[Tensor], Tensor]:
    weight, bias = given.weight, given.bias
    return lambda x: F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def block(given: DepthwiseOperands) -> Callable[[Tensor], Tensor]:
    """As in FCDM's block."""
    convolve, norm = conv(given), ChannelNorm()
    shift, scale = given.shift[..., None, None], given.scale[..., None, None]
    return lambda x: modulate_addcmul(norm(convolve(x)), shift, scale)


def triton_conv(given: DepthwiseOperands) -> Callable[[Tensor], Tensor]:
    weight = channels_last_weight(given.weight)
    return lambda x: image(depthwise_triton(pixels(x), weight, given.bias))


def triton_block(given: DepthwiseOperands) -> Callable[[Tensor], Tensor]:
    weight, shift, scale = channels_last_weight(given.weight), given.shift, given.scale

    def block(x: Tensor) -> Tensor:
        return image(norm_modulate_triton(depthwise_triton(pixels(x), weight, given.bias), shift, scale, EPS))

    return block


def fused_block(given: DepthwiseOperands) -> Callable[[Tensor], Tensor]:
    weights, modulation = (given.weight, given.bias), (given.shift, given.scale)
    return lambda x: image(depthwise_norm_triton(pixels(x), *weights, *modulation, EPS))


def conv_gelu(given: DepthwiseOperands) -> Callable[[Tensor], Output]:
    """As in DiCo's block, with the average of its channel attention."""
    convolve = conv(given)

    def function(x: Tensor) -> Output:
        h = F.gelu(convolve(x))
        return h, F.adaptive_avg_pool2d(h, 1)[:, :, 0, 0]

    return function


def fused_conv_gelu(operator: Callable[..., tuple[Tensor, Tensor]]) -> Form[DepthwiseOperands]:
    def form(given: DepthwiseOperands) -> Callable[[Tensor], Output]:
        def function(x: Tensor) -> Output:
            h, mean = operator(pixels(x), given.weight, given.bias)
            return image(h), mean

        return function

    return form


# the implementations


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
    form: Form[DepthwiseOperands],
    *,
    last: bool,
    switch: tuple[str, object] | None = None,
    compiled: bool = False,
    suffix: str = "",
    why_not: Callable[[str, int], str] = lambda where, window: "",
) -> Implementation[DepthwiseOperands]:
    """Implementation by torch's convolution, under a switch of cuDNN where this torch has it."""

    def switches(given: DepthwiseOperands) -> AbstractContextManager[None]:
        applies = switch and given.where == "cuda" and hasattr(torch.backends.cudnn, switch[0])
        return switched(*switch) if switch and applies else nullcontext()

    def make(given: DepthwiseOperands) -> Call:
        call = computed(form, last=last, compiled=compiled)(given)
        if switch is None or given.where != "cuda":
            return call

        def with_switch(i: int) -> Output:
            with switches(given):
                return call(i)

        return with_switch

    def ran(given: DepthwiseOperands) -> str:
        (x,) = given.inputs_last[0] if last else given.inputs[0]
        with switches(given):
            return selected(x, given) + suffix

    return Implementation(make=make, ran=ran, why_not=why_not)


def has_switch() -> bool:
    """Whether this torch has a switch between cuDNN's and its own depthwise kernels (2.13 does)."""
    return hasattr(torch.backends.cudnn, "depthwise_kernel")


def _needs_switch(where: str, window: int) -> str:
    switch = "" if has_switch() else f"torch {torch.__version__} has no switch; 2.13 has one"
    return cuda_only(where, window) or switch


def _needs_triton(where: str, window: int) -> str:
    too_large = f"the kernel takes windows of up to {LARGEST}" if window > LARGEST else ""
    return cuda_only(where, window) or too_large or triton_only(where, window)


def _triton(
    form: Form[DepthwiseOperands],
    ran: str = "Triton",
    why_not: Callable[[str, int], str] = _needs_triton,
) -> Implementation[DepthwiseOperands]:
    return Implementation(make=computed(form, last=True), ran=lambda _given: ran, why_not=why_not)


def _by_torch(form: Form[DepthwiseOperands]) -> dict[str, Implementation[DepthwiseOperands]]:
    return {
        "nchw": _torch(form, last=False, switch=("depthwise_kernel", "native")),
        "channels-last": _torch(form, last=True),
        "compiled": _torch(form, last=True, compiled=True, suffix=", Inductor"),
    }


OPERATIONS = {
    "conv": Operation(
        draw=draw,
        exact=exact_conv,
        implementations={
            **_by_torch(conv),
            "nchw-cudnn": _torch(
                conv, last=False, switch=("depthwise_kernel", "cudnn"), why_not=_needs_switch
            ),
            "channels-last-searched": _torch(
                conv, last=True, switch=("benchmark", True), suffix=", searched", why_not=cuda_only
            ),
            "triton": _triton(triton_conv),
        },
    ),
    "block": Operation(
        draw=draw,
        exact=exact_block,
        implementations={
            **_by_torch(block),
            "triton": _triton(triton_block),
            "triton-fused": _triton(fused_block, TRITON, triton_only),
        },
    ),
    "conv-gelu": Operation(
        draw=draw,
        exact=exact_conv_gelu,
        implementations={
            **_by_torch(conv_gelu),
            "fast": Implementation(
                make=computed(fused_conv_gelu(depthwise_gelu_reference), last=True),
                ran=packed,
                why_not=not_twice,
            ),
            "triton": _triton(fused_conv_gelu(depthwise_gelu_triton), TRITON),
        },
    ),
}
