"""Parts of a network that run in float32 whatever the rest computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context in which products on the device of x keep the type of their inputs."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def widest(x: Tensor) -> torch.dtype:
    """float32, or float64 where x has it."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
