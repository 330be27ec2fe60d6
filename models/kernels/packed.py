"""Products and convolutions with weights that oneDNN has reordered once, for inference on a CPU.

A weight is reordered when it is first used, and again after it has changed. The reordered copies take as much
memory as the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


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


def packed(weight: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
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
    reordered = packed(
        weight, lambda given: torch.ops.mkldnn._reorder_linear_weight(given.flatten(1).contiguous(), rows)
    )
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")
    return product
