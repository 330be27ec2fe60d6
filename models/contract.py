"""The interface of a backbone, ours or a user's: building it, calling it, and a check before measuring."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from models.guard import UsersCodeError, users_code
from models.registry import find, implement, is_plugin
from models.task import Task

BATCH = 2


def build(name: str, task: Task, device: str = "meta", impl: str = "reference") -> nn.Module:
    """Build a backbone by name on a device; any failure of its factory becomes a one-line ValueError.

    Raises:
        ValueError: the name, the task, and what went wrong. Its cause is the original exception, which may
            be running out of memory.
    """
    factory = find(name)
    guard = users_code(name) if is_plugin(name) else nullcontext()
    try:
        with guard, torch.device(device):
            model = factory(task)
    except UsersCodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (TypeError, AttributeError, RuntimeError, LookupError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"{name}: building it for {task} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: the factory must return a torch.nn.Module, got {type(model).__name__}")
    try:
        return implement(model, impl)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def condition_width(model: nn.Module) -> int | None:
    """Width of the float vectors y (N, width) that a network takes; None for labels (N,).

    A network that takes vectors, ours or a user's, has an attribute `condition_width`.
    """
    return getattr(model, "condition_width", None)


def timesteps(task: Task, batch: int, device: str) -> Tensor:
    """Random t (N,) of the kind that a network for a task reads."""
    if task.time == "steps":
        return torch.randint(1000, (batch,), device=device)
    if task.time == "unit":
        return torch.rand(batch, device=device)
    return torch.exp(torch.randn(batch, device=device) - 0.4)  # as in training, Table 1 of arXiv:2312.02696


def make_inputs(
    task: Task, batch: int, device: str, width: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Random x (N, C, H, W), t (N,) and y of one call; on the meta device without values.

    t are what the task says: steps, floats in [0, 1], or standard deviations of the noise. y are labels (N,),
    or float vectors (N, width) for a network with a `condition_width`.
    """
    x = torch.randn(batch, task.in_channels, task.height, task.width, device=device)
    t = timesteps(task, batch, device)
    if width is None:
        return x, t, torch.randint(task.num_classes, (batch,), device=device)
    return x, t, torch.randn(batch, width, device=device)


def check(name: str, task: Task) -> nn.Module:
    """Build a backbone on the meta device and check the interface; nothing is computed.

    Returns:
        The model on the meta device, in eval mode.

    Raises:
        ValueError: one line that says what is wrong: the call, the kind of output, its shape or its type.
    """
    model = build(name, task)
    with users_code(name):
        model = model.eval()
        x, t, y = make_inputs(task, BATCH, "meta", condition_width(model))
    call = f"model(x {tuple(x.shape)}, t ({BATCH},), y {tuple(y.shape)}) on the meta device"
    with users_code(name, call), torch.no_grad():
        out = model(x, t, y)
    wanted = (BATCH, task.out_channels, task.height, task.width)
    if not isinstance(out, Tensor):
        raise ValueError(f"{name}: model(x, t, y) must return a tensor, got {type(out).__name__}")
    if tuple(out.shape) != wanted:
        raise ValueError(f"{name}: model(x, t, y) must return {wanted} for this task, got {tuple(out.shape)}")
    if out.dtype != x.dtype:
        raise ValueError(f"{name}: model(x, t, y) must keep the type of x, {x.dtype}, got {out.dtype}")
    return model
