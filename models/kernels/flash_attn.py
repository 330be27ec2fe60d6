"""Attention by the flash-attn package, to compare with torch's own kernels."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from models.kernels.backends import installed


def why_not(dtype: torch.dtype) -> str:
    """Why the package cannot be used here for a type; empty where it can."""
    if dtype not in (torch.bfloat16, torch.float16):
        return f"flash-attn takes bf16 and fp16 only, got {str(dtype).removeprefix('torch.')}"
    if not installed("flash_attn"):
        return "flash-attn is not installed; pip install flash-attn (it is built with nvcc)"
    return ""


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """scaled_dot_product_attention without mask or dropout: three (N, heads, T, d) -> (N, heads, T, d)."""
    from flash_attn import flash_attn_func

    out: Tensor = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), softmax_scale=scale)
    return out.transpose(1, 2)


class FlashAttention(TorchFunctionMode):
    """Context in which the package computes every scaled_dot_product_attention without a mask.

    It adds host time to every call of torch (not measured), which a busy GPU hides.
    """

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        keywords = dict(kwargs or {})
        if func is F.scaled_dot_product_attention and len(args) == 3 and keywords.keys() <= {"scale"}:
            return attend(*args, **keywords)
        return func(*args, **keywords)
