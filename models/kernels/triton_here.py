"""Whether Triton kernels can run here; imports no triton."""

import functools
import importlib.util
import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def why_not_forward(*given: Tensor) -> str:
    """What keeps a kernel without gradients from taking tensors, in words; empty where nothing does."""
    first = given[0]
    if first.dtype not in DTYPES:
        return f"the kernel takes fp32, bf16 and fp16, got {str(first.dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return "the kernel has no gradient"
    if first.device.type != "cuda":
        return f"the kernel takes CUDA tensors, got {first.device.type}"
    return why_no_triton()


@functools.cache
def why_no_triton() -> str:
    """What is missing for Triton kernels, in words; empty where nothing is."""
    return "" if importlib.util.find_spec("triton") else "triton is not installed (pip install triton)"


def interpreted() -> bool:
    """Whether Triton was told to interpret its kernels; it then takes tensors on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def require_alike(what: str, *given: Tensor) -> None:
    """Refuse tensors that are not of one type, on one device.

    Raises:
        ValueError: names the types or the devices.
    """
    for kind in ("dtype", "device"):
        found = [str(getattr(one, kind)).removeprefix("torch.") for one in given]
        if len(set(found)) > 1:
            raise ValueError(f"{what}: all must have the same {kind}, got {', '.join(found)}")
