"""What the operators of this package share: when their Triton kernels run."""

import torch
from torch import Tensor

from models.kernels.backends import DTYPES, autocasts, interpreted, why_no_triton


def runs_triton(x: Tensor) -> bool:
    """Whether a Triton kernel takes tensors like x: on a GPU, in fp32, bf16 or fp16, without autocast."""
    return x.device.type == "cuda" and x.dtype in DTYPES and not autocasts(x) and not why_no_triton()


def computes(x: Tensor) -> bool:
    """Whether a registered operator runs its kernel on x; else, as in float64, it runs the reference."""
    return x.dtype in DTYPES and (x.device.type == "cuda" or interpreted())


def precision(x: Tensor) -> str:
    """Triton's name for how a product of float32 rounds its factors, by torch's switch."""
    return "tf32" if x.is_cuda and torch.backends.cuda.matmul.allow_tf32 else "ieee"
