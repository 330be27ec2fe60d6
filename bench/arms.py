"""A case made ready to call: the model built, moved, laid out, compiled and run once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from bench import counters, device
from bench.record import Run, Skipped, height_width
from bench.worker import Case
from models.contract import build
from models.registry import task_at
from models.weights import load_official, randomise_zeros, read_weights

T = TypeVar("T")


class NotFiniteError(ArithmeticError):
    """The output of a model holds inf or NaN."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One case, ready to be timed under inference_mode."""

    call: Callable[[], object]  # one denoising forward pass of the batch; a device may still be at it
    synchronise: Callable[[], None]  # waits until the device has finished
    build_s: float  # making the model and moving it
    compile_s: float | None  # the first call of the compiled model; None without torch.compile
    matmul_tf32: bool  # the two switches as they stand now
    conv_tf32: bool


def prepare(case: Case) -> Arm:
    """Build what a case asks for in this process, and run it once.

    Raises:
        NotFiniteError: the first output holds inf or NaN.
        torch.OutOfMemoryError, MemoryError, RuntimeError: see `unless_impossible`.
    """
    matmul_tf32, conv_tf32 = device.set_tf32(case.precision == "tf32")
    dtype = device.PRECISIONS[case.precision]
    task = task_at(case.model, *height_width(case.res))
    synchronise = device.synchronise(case.device)
    torch.manual_seed(0)
    begin = time.perf_counter()
    model = build(case.model, task, device=case.device)
    if case.weights:
        load_official(model, read_weights(Path(case.weights)))
    randomise_zeros(model)
    model.to(dtype).eval()
    x, t, y = counters.inputs(task, case.batch, case.device)
    x = x.to(dtype)
    if case.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
        x = x.to(memory_format=torch.channels_last)
    synchronise()
    build_s = time.perf_counter() - begin

    forward = torch.compile(model) if case.compile else model
    begin = time.perf_counter()
    with torch.inference_mode():
        finite = bool(torch.isfinite(forward(x, t, y)).all())
    compile_s = time.perf_counter() - begin if case.compile else None
    if not finite:
        raise NotFiniteError(f"the output in {case.precision} holds inf or NaN")
    return Arm(
        call=lambda: forward(x, t, y),
        synchronise=synchronise,
        build_s=build_s,
        compile_s=compile_s,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )


def unless_impossible(run: Run, body: Callable[[], T]) -> T | Skipped:
    """Run a body; memory that runs out in it, or an output that is not finite, makes a row of the reason."""
    try:
        return body()
    except NotFiniteError as error:
        return Skipped(run=run, status="not finite", reason=str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        return Skipped(run=run, status="out of memory", reason=str(error).partition("\n")[0])
    except RuntimeError as error:
        # the CPU's allocator has no exception of its own
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            return Skipped(run=run, status="out of memory", reason=str(error).partition("\n")[0])
        raise
