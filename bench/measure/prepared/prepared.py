"""A backbone prepared for repeated calls, with the settings of a case applied."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.machine import device
from bench.machine.failures import NotFiniteError
from bench.measure.prepared import engine, work_check
from bench.measure.prepared.preflight import Allowance, NamesMissingKernel, check_budget
from bench.measure.prepared.train_step import TrainStep, noise_of
from bench.measure.prepared.work_check import CheckedPass, Inputs
from bench.records.base import ENGINES, ModelCase, height_width
from models.checkpointing import checkpointed
from models.contract import build, condition_width, make_inputs
from models.guard import unchanged
from models.kernels.flash_attn import FlashAttention
from models.registry import task_at
from models.task import Task
from models.weights import load_official, randomise_zeros, read_weights

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# time of a training step / time of a forward pass, without and with checkpointing
STEP_PASSES = {False: 3.0, True: 4.0}


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device, and its inputs."""

    model: nn.Module
    task: Task
    inputs: Inputs
    build_s: float
    matmul_tf32: bool
    conv_tf32: bool


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A loaded model with the call that is timed."""

    loaded: LoadedModel
    call: Callable[[], object]  # one denoising forward pass, or one training step; inputs rotate
    keep: Callable[[], None]  # to be called after each timed pass or visit, outside the timed region
    # to be called with the median seconds of a pass; raises NoWorkError if no work explains them
    verify: Callable[[float], None]
    synchronise: Callable[[], None]
    compile_s: float | None  # with the first call; None where nothing compiles


@contextmanager
def prepare(
    case: ModelCase, weights: str | None, *, one_condition: bool = False, allowance: Allowance | None = None
) -> Iterator[PreparedModel]:
    """Context manager that applies the settings of a case, builds its model and calls it once.

    Eval mode, inference_mode, a timestep and a label for every image, no zero-initialised layers.

    Args:
        weights: path of a checkpoint, or None.
        one_condition: one timestep and label for the batch, under no_grad, as in DiCo's released timing.
        allowance: time limit of a case on a CPU, checked first; None: not checked.

    Raises:
        NotFiniteError: the first output has inf or NaN.
        DifferentOutputError: the output of the engine is not that of the eager model.
        NoKernelError: the chosen attention kernel does not support the model's tensors.
        OverBudgetError: the predicted time exceeds the limit.
        RuntimeError: from torch, for example if memory runs out.
    """
    dtype = device.DTYPES[case.precision]
    loaded = _load(case, weights, dtype)
    model, (x, t, y) = loaded.model.eval(), loaded.inputs
    if one_condition:
        t, y = t[:1], y[:1]
    with ExitStack() as settings:
        enter(settings, case, model)
        settings.enter_context(torch.no_grad() if one_condition else torch.inference_mode())
        counted = work_check.CountedCall(model, lambda: model(x[:1], t[:1], y[:1]))
        _check(case, model, counted, allowance, images=case.batch)
        begin = time.perf_counter()
        called = engine.network(case, model, (x, t, y))
        compile_s = _first(lambda: called(x, t, y), case, "output", begin)
        if case.engine != "eager":
            with unchanged():
                eager = model(x, t, y)
            work_check.require_equal(ENGINES[case.engine], called(x, t, y), eager, case.precision)
        call: Callable[[Inputs], torch.Tensor] = lambda given: called(*given)  # noqa: E731 - may be a replay
        if case.cuda_graphs:
            call = engine.replayed(lambda: called(x, t, y), (x, t, y))
        checked = CheckedPass(call, [(x, t, y), *_more_inputs(case, loaded, x, t, y)], case.precision)

        def verify(seconds: float) -> None:
            checked.verify()
            work_check.require_time(case, seconds, counted.flops * case.batch)

        yield PreparedModel(
            loaded=loaded,
            call=checked,
            keep=checked.keep,
            verify=verify,
            synchronise=device.synchronise(case.device),
            compile_s=compile_s,
        )


@contextmanager
def prepare_training(
    case: ModelCase, weights: str | None, *, allowance: Allowance | None = None
) -> Iterator[PreparedModel]:
    """As `prepare`, for a complete training step over one batch: train mode, parameters in float32.

    bf16 is autocast around the forward pass and the loss, as in bench.memory. The update is not compiled;
    AdamW is one fused kernel.

    Raises:
        NotFiniteError: the first loss is inf or NaN.
        NoKernelError, OverBudgetError, RuntimeError: as in `prepare`.
    """
    where = case.device
    loaded = _load(case, weights, torch.float32)
    model, inputs = loaded.model.train(), loaded.inputs

    def region() -> AbstractContextManager[object]:
        return torch.autocast(where, torch.bfloat16) if case.precision == "bf16" else nullcontext()

    def one_image() -> None:
        with region():
            model(*(each[:1] for each in inputs))

    counted = work_check.CountedCall(model, one_image)

    with ExitStack() as settings:
        enter(settings, case, model)
        images = case.batch * STEP_PASSES[case.checkpointing]
        _check(case, model, counted, allowance, images=images)
        step = TrainStep(
            model,
            inputs,
            noise_of(inputs[0], loaded.task),
            region,
            fused=True,
            call=engine.network(case, model, inputs),
        )
        compile_s = _first(step, case, "loss", time.perf_counter())
        pool = [inputs, *_more_inputs(case, loaded, *inputs)]
        places = itertools.cycle(range(len(pool)))

        def call() -> torch.Tensor:
            step.inputs = pool[next(places)]
            return step()

        def verify(seconds: float) -> None:
            with torch.no_grad(), region():
                work_check.require_difference(*(model(*given) for given in pool[:2]))
            work_check.require_change(model, step)
            work_check.require_time(case, seconds, counted.flops * case.batch)

        yield PreparedModel(
            loaded=loaded,
            call=call,
            keep=lambda: None,
            verify=verify,
            synchronise=device.synchronise(where),
            compile_s=compile_s,
        )


def _load(case: ModelCase, weights: str | None, dtype: torch.dtype) -> LoadedModel:
    where = case.device
    matmul_tf32, conv_tf32 = device.set_precision(case.precision)
    task = task_at(case.model, *height_width(case.res))
    torch.manual_seed(0)
    begin = time.perf_counter()
    # the inference_mode of an earlier prepared model would turn these weights into inference tensors, which
    # torch dispatches on a shorter path: later arms would differ from the first
    with torch.inference_mode(False):
        model = build(case.model, task, device=where, impl=case.impl)
        if weights:
            load_official(model, read_weights(Path(weights)))
        randomise_zeros(model)
        model.to(dtype)
        x, t, y = make_inputs(task, case.batch, where, condition_width(model))
        x = x.to(dtype)
        if case.channels_last:
            device.lay_channels_last(model)
            x = x.to(memory_format=torch.channels_last)
    device.synchronise(where)()
    return LoadedModel(
        model=model,
        task=task,
        inputs=(x, t, y),
        build_s=time.perf_counter() - begin,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )


def _more_inputs(case: ModelCase, loaded: LoadedModel, *like: torch.Tensor) -> list[Inputs]:
    """The other inputs of the pool, with the shapes, types and layouts of the first."""
    more = []
    with torch.inference_mode(False):  # like the first: torch.compile compiles again for inference tensors
        for _ in range(work_check.POOL - 1):
            drawn = make_inputs(loaded.task, case.batch, case.device, condition_width(loaded.model))
            pairs = zip(like, drawn, strict=True)
            x, t, y = (torch.empty_like(one).copy_(new[: len(one)]) for one, new in pairs)
            more.append((x, t, y))
    return more


def enter(settings: ExitStack, case: ModelCase, model: nn.Module) -> None:
    """Enter the settings of a case that apply while its model is called."""
    if case.checkpointing:
        settings.enter_context(checkpointed(model))
    if case.attention in KERNELS:
        settings.enter_context(sdpa_kernel(KERNELS[case.attention]))
    elif case.attention == "flash-attn":
        settings.enter_context(FlashAttention())


def _check(
    case: ModelCase,
    model: nn.Module,
    one_image: Callable[[], object],
    allowance: Allowance | None,
    *,
    images: float,
) -> None:
    """Call the model for one image, which counts its FLOPs and may reveal a failure of the case."""
    with unchanged():
        if case.attention in KERNELS:
            with NamesMissingKernel():
                one_image()
        if allowance is not None and case.device == "cpu":
            check_budget(model, one_image, allowance, images=images)
        elif allowance is not None and case.attention not in KERNELS:
            one_image()


def _first(call: Callable[[], torch.Tensor], case: ModelCase, what: str, begin: float) -> float | None:
    """Require a finite output of the first call; seconds since `begin`, or None where nothing compiles."""
    with unchanged():
        finite = bool(torch.isfinite(call()).all())
    if not finite:
        raise NotFiniteError(f"the {what} in {case.precision} holds inf or NaN")
    return None if case.engine == "eager" else time.perf_counter() - begin
