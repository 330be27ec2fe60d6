"""Products and convolutions with weights that oneDNN has reordered once, for inference on a CPU.

A weight is reordered when it is first used, and again after it has changed. The reordered copies take as much
memory as the weights, those of `winograd` 1.8 times as much.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from models.kernels import winograd

Gelu = Literal["none", "tanh"]  # exact, or by tanh


@dataclass(frozen=True)
class _Packed:
    of: tuple[int, int, torch.dtype]  # version, address and type of the weight
    weight: Tensor  # in a layout of its own


Form = Literal["product", "convolution", "winograd"]
_PACKED: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> {form: _Packed}


def can_pack(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes with a reordered weight here."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return False
    if torch.is_autocast_enabled("cpu") or weight.is_inference():  # the latter has no version to compare
        return False
    if x.dtype != weight.dtype or x.numel() == 0:
        return False
    return x.dtype == torch.float32 or (
        x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def packed(weight: Tensor, form: Form, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    forms: dict[Form, _Packed] = _PACKED.setdefault(weight, {})
    found = forms.get(form)
    of = (weight._version, weight.data_ptr(), weight.dtype)
    if found is None or found.of != of:
        with torch.inference_mode(False), torch.no_grad():
            found = _Packed(of, reorder(weight.detach()))
        forms[form] = found
    return found.weight


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
        product = F.linear(x, weight.flatten(1), bias)
        return product if gelu is None else F.gelu(product, approximate=gelu)
    rows = x.numel() // x.shape[-1]
    reordered = packed(
        weight,
        "product",
        lambda given: torch.ops.mkldnn._reorder_linear_weight(given.flatten(1).contiguous(), rows),
    )
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")
    if gelu is None:
        return out
    return torch.ops.aten.gelu_(out) if gelu == "none" else _gelu_tanh(out)


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU by tanh as x * sigmoid(2 z): half the time of torch's on a CPU."""
    twice = 2 * math.sqrt(2 / math.pi)
    z = torch.addcmul(x.new_full((1,), twice), x, x, value=0.044715 * twice)
    return z.mul_(x).sigmoid_().mul_(x)


def convolution(layer: nn.Conv2d, x: Tensor, *, gelu: bool = False) -> Tensor:
    """A convolution of a channels-last image, then GELU: (N, C, H, W) -> (N, C_out, H_out, W_out).

    oneDNN computes GELU before a value is written. Behind a depthwise convolution that is faster than F.gelu;
    behind a product it is slower.
    """
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or not can_pack(x, layer.weight):
        plain = layer._conv_forward(x, layer.weight, layer.bias)
        return F.gelu(plain) if gelu else plain
    if _is_plain(layer) and not gelu and winograd.suits(x, layer.weight):
        return winograd.winograd(x, packed(layer.weight, "winograd", winograd.transformed), layer.bias)
    size = list(x.shape)
    place = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
    reordered = packed(
        layer.weight,
        "convolution",
        lambda given: torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg] # stub lacks size
            given.to_mkldnn(), *place, size
        ),
    )
    after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=torch.channels_last), reordered, layer.bias, *place, *after
    )
    return out


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether an image keeps its size under a window of 3."""
    return layer.padding == layer.stride == layer.dilation == (1, 1) and layer.groups == 1
