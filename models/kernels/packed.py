"""Products and convolutions with weights that oneDNN has reordered once, for inference on a CPU.

A weight is reordered when it is first used, and again after it has changed. The reordered copies take as much
memory as the weights, those of `winograd` 1.8 times as much. torch.compile traces no reordering: to it each
product and each convolution on a CPU is one operator, but not to torch.export.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from models.kernels import winograd

Gelu = Literal["none", "tanh"]  # exact, or by tanh


@dataclass(frozen=True)
class _Packed:
    of: tuple[int, int, torch.dtype]  # version, address and type of the weight
    weight: Any  # in a layout of its own


T = TypeVar("T")
Form = Literal["product", "convolution", "winograd"]
_PACKED: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> {form: _Packed}


def can_pack(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes with a reordered weight here."""
    if torch.compiler.is_compiling() or not _plain_inference(x, weight):
        return False
    if not torch.backends.mkldnn.is_available() or x.numel() == 0:
        return False
    if weight.is_inference():  # it has no version to compare
        return False
    return x.dtype == torch.float32 or (
        x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _plain_inference(x: Tensor, weight: Tensor) -> bool:
    """Whether a call on a CPU needs no gradient and no cast."""
    if x.device.type != "cpu" or x.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))


def _is_traced(x: Tensor, weight: Tensor) -> bool:
    """Whether torch.compile traces a call that is one operator to it."""
    compiles = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    return compiles and _plain_inference(x, weight)


def packed(weight: Tensor, form: Form, reorder: Callable[[Tensor], T]) -> T:
    forms: dict[Form, _Packed] = _PACKED.setdefault(weight, {})
    found = forms.get(form)
    of = (weight._version, weight.data_ptr(), weight.dtype)
    if found is None or found.of != of:
        with torch.inference_mode(False), torch.no_grad():
            found = _Packed(of, reorder(weight.detach()))
        forms[form] = found
    reordered: T = found.weight
    return reordered


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: Gelu | None = None) -> Tensor:
    """torch.nn.functional.linear, then GELU.

    Args:
        x: (..., D).
        weight: (D_out, D), or of a 1x1 convolution.
        bias: (D_out,).
        gelu: `approximate` of torch.nn.functional.gelu; None: no GELU.

    Returns:
        (..., D_out)
    """
    if not can_pack(x, weight):
        product = _linear(x, weight, bias) if _is_traced(x, weight) else F.linear(x, weight.flatten(1), bias)
        return product if gelu is None else F.gelu(product, approximate=gelu)
    rows = x.numel() // x.shape[-1]
    reordered = packed(
        weight,
        "product",
        lambda given: torch.ops.mkldnn._reorder_linear_weight(given.flatten(1).contiguous(), rows),
    )
    fused = gelu == "none" and x.dtype == torch.bfloat16  # faster than behind it, and one rounding less
    after = ("gelu", "none") if fused else ("none", "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, after[0], [], after[1])
    if gelu is None or fused:
        return out
    return gelu_(out) if gelu == "none" else _gelu_tanh(out)


@torch.library.custom_op("backbones::packed_linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x, weight, bias).contiguous()


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def gelu_(x: Tensor) -> Tensor:
    """GELU, in place where that is possible: x must not be used again."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
        return F.gelu(x)
    out: Tensor = torch.ops.aten.gelu_(x)
    return out


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU by tanh as x * sigmoid(2 z): half the time of torch's on a CPU."""
    twice = 2 * math.sqrt(2 / math.pi)
    z = torch.addcmul(x.new_full((1,), twice), x, x, value=0.044715 * twice)
    return z.mul_(x).sigmoid_().mul_(x)


class Place(NamedTuple):
    """How a window is laid over an image, as in torch.nn.functional.conv2d."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


def convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of a channels-last image: (N, C, H, W) -> (N, C_out, H_out, W_out)."""
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return layer._conv_forward(x, layer.weight, layer.bias)
    place = Place(layer.stride, layer.padding, layer.dilation, layer.groups)
    return placed_convolution(x, layer.weight, layer.bias, place)


def placed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, place: Place, *, gelu: bool = False
) -> Tensor:
    """A convolution with zeros around the image, then GELU, as `convolution`.

    oneDNN computes GELU before a value is written. Behind a depthwise convolution that is faster than F.gelu,
    behind a product in bf16 too; behind one in float32 it is slower on a CPU without AVX512.
    """
    if not can_pack(x, weight):
        convolve = _convolution if _is_traced(x, weight) else F.conv2d
        plain: Tensor = convolve(x, weight, bias, *place)
        return F.gelu(plain) if gelu else plain
    if not gelu and place == Place(padding=(1, 1)) and winograd.suits(x, weight):
        return winograd.winograd(x, packed(weight, "winograd", winograd.transformed), bias)
    size = list(x.shape)
    at = (list(place.padding), list(place.stride), list(place.dilation), place.groups)
    reordered = packed(
        weight,
        "convolution",
        lambda given: torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg] # stub lacks size
            given.to_mkldnn(), *at, size
        ),
    )
    after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=torch.channels_last), reordered, bias, *at, *after
    )
    return out


@torch.library.custom_op("backbones::packed_convolution", mutates_args=())
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    place = Place(tuple(stride), tuple(padding), tuple(dilation), groups)
    return placed_convolution(x, weight, bias, place).contiguous(memory_format=torch.channels_last)


@_convolution.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return torch.empty_like(out, memory_format=torch.channels_last)
