"""A backbone made ready to be called over and over, with all the settings of a case applied."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.checkpointing import checkpointed
from bench.counting import counters
from bench.machine import device
from bench.measure.timing import DeviceTimer
from bench.measure.train_step import Step, noise_of
from bench.records.record import Run, height_width
from models.contract import build, condition_width
from models.kernels.flash_attn import FlashAttention
from models.registry import task_at
from models.task import Task
from models.weights import load_official, randomise_zeros, read_weights

T = TypeVar("T")

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
GRAPH_WARMUP = 3  # passes on a side stream before a graph is captured, as torch asks for


class NotFiniteError(ArithmeticError):
    """A model's output holds inf or NaN."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is timed, and how."""

    model: nn.Module
    call: Callable[[], object]  # one denoising forward pass, or one training step
    synchronise: Callable[[], None]
    device_timer: DeviceTimer | None
    build_s: float
    compile_s: float | None
    matmul_tf32: bool
    conv_tf32: bool


@contextmanager
def prepared(run: Run, weights: str | None) -> Iterator[Arm]:
    """Build the model of a case and call it once; within the context its settings are in force.

    Eval mode, inference_mode, a timestep and a label for every image, no layer left at zeros.

    Args:
        run: what to build and how to call it.
        weights: the path of a checkpoint, or None.

    Raises:
        NotFiniteError: the first output holds inf or NaN.
        RuntimeError: as torch raises it: no memory, no kernel for the attention that was asked for.
    """
    dtype = device.DTYPES[run.precision]
    built = _built(run, weights, dtype)
    model, (x, t, y) = built.model.eval(), built.inputs
    if run.protocol == "dico":
        t, y = t[:1], y[:1]
    with ExitStack() as settings:
        enter(settings, run, model)
        settings.enter_context(torch.no_grad() if run.protocol == "dico" else torch.inference_mode())
        called: nn.Module | Callable[..., torch.Tensor] = torch.compile(model) if run.compile else model
        call: Callable[[], torch.Tensor] = lambda: called(x, t, y)  # noqa: E731 - may be replaced by a replay
        compile_s = _first(call, run, "output")
        yield _arm(run, built, captured(call) if run.cuda_graphs else call, compile_s)


@contextmanager
def training(run: Run, weights: str | None) -> Iterator[Arm]:
    """As `prepared`, for a whole training step over one batch: train mode, parameters in float32.

    bf16 is autocast around the forward pass and the loss, as bench.memory counts it. The update is not
    compiled; AdamW is one fused kernel.

    Raises:
        NotFiniteError: the first loss is inf or NaN.
        RuntimeError: as torch raises it.
    """
    where = run.environment.device_type
    built = _built(run, weights, torch.float32)
    model, inputs = built.model.train(), built.inputs

    def region() -> AbstractContextManager[object]:
        return torch.autocast(where, torch.bfloat16) if run.precision == "bf16" else nullcontext()

    with ExitStack() as settings:
        enter(settings, run, model)
        step = Step(
            model,
            inputs,
            noise_of(inputs[0], built.task),
            region,
            fused=True,
            call=torch.compile(model) if run.compile else model,
        )
        yield _arm(run, built, step, _first(step, run, "loss"))


@dataclass(frozen=True, kw_only=True)
class _Built:
    """A model on its device, and what it is called with."""

    model: nn.Module
    task: Task
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # x, t and y
    seconds: float
    matmul_tf32: bool
    conv_tf32: bool


def _built(run: Run, weights: str | None, dtype: torch.dtype) -> _Built:
    where = run.environment.device_type
    matmul_tf32, conv_tf32 = device.set_precision(run.precision)
    task = task_at(run.model, *height_width(run.res))
    torch.manual_seed(0)
    begin = time.perf_counter()
    # within the inference_mode of an arm prepared before, this one's weights would be inference tensors,
    # which torch dispatches on a shorter path: all arms but the first would be another thing
    with torch.inference_mode(False):
        model = build(run.model, task, device=where)
        if weights:
            load_official(model, read_weights(Path(weights)))
        randomise_zeros(model)
        model.to(dtype)
        x, t, y = counters.inputs(task, run.batch, where, condition_width(model))
        x = x.to(dtype)
        if run.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
            x = x.to(memory_format=torch.channels_last)
    device.synchronise(where)()
    return _Built(
        model=model,
        task=task,
        inputs=(x, t, y),
        seconds=time.perf_counter() - begin,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )


def enter(settings: ExitStack, run: Run, model: nn.Module) -> None:
    """Put the settings of a case in force that hold while its model is called."""
    if run.checkpointing:
        settings.enter_context(checkpointed(model))
    if run.attention in KERNELS:
        settings.enter_context(sdpa_kernel(KERNELS[run.attention]))
    elif run.attention == "flash-attn":
        settings.enter_context(FlashAttention())


def _first(call: Callable[[], torch.Tensor], run: Run, what: str) -> float | None:
    """Call once, hold what comes out to be finite, and give the seconds if that compiled something."""
    begin = time.perf_counter()
    finite = bool(torch.isfinite(call()).all())
    if not finite:
        raise NotFiniteError(f"the {what} in {run.precision} holds inf or NaN")
    return time.perf_counter() - begin if run.compile else None


def _arm(run: Run, built: _Built, call: Callable[[], object], compile_s: float | None) -> Arm:
    where = run.environment.device_type
    return Arm(
        model=built.model,
        call=call,
        synchronise=device.synchronise(where),
        device_timer=device.cuda_timer if where == "cuda" else None,
        build_s=built.seconds,
        compile_s=compile_s,
        matmul_tf32=built.matmul_tf32,
        conv_tf32=built.conv_tf32,
    )


def compiled_already(run: Run) -> AbstractContextManager[object]:
    """Within it a recompilation raises: in a timed pass it would be taken for slowness."""
    return torch.compiler.set_stance("fail_on_recompile") if run.compile else nullcontext()


@dataclass(frozen=True, kw_only=True)
class CompiledSoFar:
    """What torch.compile did in this process, as torch counts it."""

    frames: int  # functions compiled, again included
    graph_breaks: int


def compiled_so_far() -> CompiledSoFar:
    from torch._dynamo.utils import counters as counted  # takes a second to import

    return CompiledSoFar(frames=counted["frames"]["total"], graph_breaks=sum(counted["graph_break"].values()))


def captured(call: Callable[[], T]) -> Callable[[], T]:
    """Record one pass as a CUDA graph; what is returned replays it over the same tensors, output included."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(GRAPH_WARMUP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> T:
        graph.replay()
        return out

    return replay
