"""The interface of a backbone, ours or a user's: building it, calling it, and a check before measuring."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.draws import WithoutDraws
from models.guard import UsersCodeError, describe, users_code
from models.registry import find, implement, is_plugin
from models.task import Task
from models.users.calls import notes_of, sample_in

BATCH = 2
_why_real: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def build(name: str, task: Task, device: str = "meta", impl: str = "reference") -> nn.Module:
    """Build a backbone by name on a device; any failure of its factory becomes a one-line ValueError.

    On the meta device no initial weights are drawn. ValueError: the name, the task, and what went wrong. Its
    cause is the original exception, which may be running out of memory.
    """
    factory = find(name)
    draws = WithoutDraws() if device == "meta" else nullcontext()
    guard = users_code(name) if is_plugin(name) else nullcontext()
    try:
        with guard, torch.device(device), draws:
            model = factory(task)
    except UsersCodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (TypeError, AttributeError, RuntimeError, LookupError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"{name}: building it for {task} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: the factory must return a torch.nn.Module, got {type(model).__name__}")
    if is_plugin(name):
        with users_code(name):
            model.to(device)  # parameters and buffers that a user's code makes on a device of its own
    try:
        return implement(model, impl)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class _Made(Exception):  # noqa: N818 - no error
    """A network begins to make tensors."""


class _BeforeTensors(TorchFunctionMode):
    def __torch_function__(self, *_: object) -> None:
        raise _Made


def check_task(name: str, task: Task) -> None:
    """Refuse a task that one of our backbones cannot be built for, without building it.

    A network checks its task before it makes its first tensor, which ends this call.

    Raises:
        ValueError: as of `build`.
    """
    try:
        with _BeforeTensors():
            find(name)(task)
    except _Made:
        return
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def why_real(model: nn.Module) -> str:
    """Why a model is real where one on the meta device was wanted; blank if it is not."""
    return _why_real.get(model, "")


def device_of(model: nn.Module) -> str:
    """The device for the inputs of a model: that of its first parameter or buffer."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device.type
    return _real_device() if why_real(model) else "meta"


def _real_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_meta(model: nn.Module) -> None:
    """Refuse a model that meta tensors cannot bear. ValueError: with what happened on the meta device."""
    if reason := why_real(model):
        raise ValueError(f"follows meta tensors, which this model cannot bear: {reason}")


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


def check(name: str, task: Task, *, either_sigma: bool = False) -> nn.Module:
    """Build a user's backbone on the meta device and check the interface; nothing is computed.

    A model that cannot be built or called on meta tensors is checked on a real device; `why_real` says why.

    Args:
        name: of the model.
        task: what to build it for.
        either_sigma: whether C and 2C channels of output are both right: for what does not depend on them.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: one line that says what is wrong: the call, the kind of output, its shape or its type.
    """
    try:
        model, x, out = _called(name, task, "meta")
    except ValueError as on_meta:
        try:
            model, x, out = _called(name, task, _real_device())
        except ValueError as on_real:
            if describe(on_real.__cause__ or on_real) == describe(
                on_meta.__cause__ or on_meta
            ):  # not for the lack of values
                raise on_meta from on_meta.__cause__
            raise
        cause = on_meta.__cause__ or on_meta
        _why_real[model] = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0][:120]}"
    wanted = (BATCH, task.out_channels, task.height, task.width)
    others = [replace(task, learn_sigma=sigma).out_channels for sigma in (True, False) if either_sigma]
    if not isinstance(out, Tensor):
        raise ValueError(f"{name}: model(x, t, y) must return a tensor, got {type(out).__name__}")
    if tuple(out.shape) not in [wanted, *((wanted[0], channels, *wanted[2:]) for channels in others)]:
        raise ValueError(f"{name}: model(x, t, y) must return {wanted} for this task, got {tuple(out.shape)}")
    if out.dtype != x.dtype:
        raise ValueError(f"{name}: model(x, t, y) must keep the type of x, {x.dtype}, got {out.dtype}")
    return model


def _called(name: str, task: Task, device: str) -> tuple[nn.Module, Tensor, object]:
    """A model in eval mode, its input x and its output, with a note of where in the output the sample was."""
    model = build(name, task, device)
    with users_code(name):
        model = model.eval()
        x, t, y = make_inputs(task, BATCH, device, condition_width(model))
    call = f"model(x {tuple(x.shape)}, t ({BATCH},), y {tuple(y.shape)}) on the {device} device"
    outputs: list[object] = []
    hook = model.register_forward_hook(lambda _, args, out: outputs.append(out), prepend=True)
    try:
        with users_code(name, call), torch.no_grad():
            out = model(x, t, y)
    finally:
        hook.remove()
    found = None if isinstance(outputs[0], Tensor) else sample_in(outputs[0])
    if found is not None:
        notes_of(model).append(f"{found[1]} of its output is the sample")
    return model, x, out
