"""What every backbone must do, ours and a user's alike, checked before anything is measured."""

import torch
from torch import Tensor, nn

from models.registry import find
from models.task import Task

BATCH = 2


def build(name: str, task: Task, device: str = "meta") -> nn.Module:
    """Build a backbone by name on a device, with any failure of its factory told in one line.

    Raises:
        ValueError: the name, what was asked of it, and what went wrong; memory that ran out too, which its
            cause tells.
    """
    factory = find(name)
    try:
        with torch.device(device):
            model = factory(task)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (TypeError, AttributeError, RuntimeError, LookupError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"{name}: building it for {task} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: the factory must return a torch.nn.Module, got {type(model).__name__}")
    return model


def condition_width(model: nn.Module) -> int | None:
    """What y a network takes: float vectors (N, width), or labels (N,) where this is None.

    A network that takes vectors, ours or a user's, says so in an attribute `condition_width`.
    """
    return getattr(model, "condition_width", None)


def check(name: str, task: Task) -> nn.Module:
    """Build a backbone on the meta device and hold it to the interface; nothing is computed.

    Returns:
        The model on the meta device, in eval mode.

    Raises:
        ValueError: one line that says what it broke: the call, the kind of output, its shape or its type.
    """
    model = build(name, task).eval()
    x = torch.empty(BATCH, task.in_channels, task.height, task.width, device="meta")
    t = torch.empty(BATCH, dtype=torch.int64, device="meta")
    width = condition_width(model)
    y = torch.empty_like(t) if width is None else torch.empty(BATCH, width, device="meta")
    try:
        with torch.no_grad():
            out = model(x, t, y)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{name}: model(x {tuple(x.shape)}, t ({BATCH},), y {tuple(y.shape)}) on the meta device raised "
            f"{type(error).__name__}: {reason}"
        ) from error
    wanted = (BATCH, task.out_channels, task.height, task.width)
    if not isinstance(out, Tensor):
        raise ValueError(f"{name}: model(x, t, y) must return a tensor, got {type(out).__name__}")
    if tuple(out.shape) != wanted:
        raise ValueError(f"{name}: model(x, t, y) must return {wanted} for this task, got {tuple(out.shape)}")
    if out.dtype != x.dtype:
        raise ValueError(f"{name}: model(x, t, y) must keep the type of x, {x.dtype}, got {out.dtype}")
    return model
