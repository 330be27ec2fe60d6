"""Linear layers and convolutions whose weights oneDNN has reordered once, for inference on a CPU.

A weight is reordered when it is first used, and again after it has changed. The reordered copies take as much
memory as the weights. With gradients, on a GPU and under torch.compile, which reorders weights itself, the
layers compute as torch's do; a 1x1 convolution is always a product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from models.fast.layout import image, pixels


@dataclass(frozen=True)
class _Packed:
    of: tuple[int, int, torch.dtype]  # version, address and type of the weight
    weight: Tensor  # in oneDNN's own layout


_PACKED: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> _Packed


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


def _packed(weight: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    found: _Packed | None = _PACKED.get(weight)
    of = (weight._version, weight.data_ptr(), weight.dtype)
    if found is None or found.of != of:
        with torch.inference_mode(False), torch.no_grad():
            found = _Packed(of, reorder(weight.detach()))
        _PACKED[weight] = found
    return found.weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear: (..., D), (D_out, D) or the weight of a 1x1 convolution -> (..., D_out)."""
    if not can_pack(x, weight):
        return F.linear(x, weight.flatten(1), bias)
    rows = x.numel() // x.shape[-1]
    reordered = _packed(
        weight, lambda given: torch.ops.mkldnn._reorder_linear_weight(given.flatten(1).contiguous(), rows)
    )
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")
    return product


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if (
            self.kernel_size == self.stride == (1, 1)
            and self.groups == 1
            and self.padding in ((0, 0), "valid")
        ):
            return image(linear(pixels(x), self.weight, self.bias))
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or not can_pack(x, self.weight):
            return super().forward(x)
        size = list(x.shape)
        place = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        reordered = _packed(
            self.weight,
            lambda given: torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg] # stub lacks size
                given.to_mkldnn(), *place, size
            ),
        )
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.contiguous(memory_format=torch.channels_last), reordered, self.bias, *place, "none", [], ""
        )
        return out
