"""Parts of a network that run in float32 whatever the rest computes in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

# on the meta device, which has no autocast: predictions that imitate it read this
types_kept: ContextVar[bool] = ContextVar("types_kept", default=False)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context in which products on the device of x keep the type of their inputs."""
    if not x.is_meta:
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext() if torch.compiler.is_compiling() else _keep_types()  # no tracer follows a ContextVar


@contextmanager
def _keep_types() -> Iterator[None]:
    before = types_kept.set(True)
    try:
        yield
    finally:
        types_kept.reset(before)


def widest(x: Tensor) -> torch.dtype:
    """float32, or float64 where x has it."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
