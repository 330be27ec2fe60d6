"""Peak memory of an inference pass or a training step, measured on CUDA or predicted on meta."""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.counting.cuda_dispatch import CudaRules
from bench.machine import device
from bench.measure.live_bytes import CUDA_BLOCK_BYTES, LiveBytes, PeakWatch
from bench.measure.train_step import Region, TrainStep, noise_of
from bench.records.base import Environment, height_width
from bench.records.memory import Memory, MemoryCase, MemoryUse
from models.checkpointing import checkpointed
from models.contract import build, condition_width, make_inputs
from models.registry import task_at
from models.task import Task

Build = Callable[[], nn.Module]


def measure(case: MemoryCase, environment: Environment) -> Memory:
    """Measure one case on CUDA, in a fresh process, or predict it on meta.

    Raises:
        torch.OutOfMemoryError: or another allocation error: the device or the limit is too small.
    """
    task = task_at(case.model, *height_width(case.res))

    def model() -> nn.Module:
        return build(case.model, task, device=case.device, impl=case.impl)

    if case.is_predicted:
        use = predict(model, task, case.batch, case.precision, case.work, case.checkpointing)
    else:
        use = _on_cuda(model, task, case)
    return Memory(case=case, environment=environment, use=use)


class ByteCounter(Protocol):
    """Counts bytes: the allocator of a device, or LiveBytes."""

    @property
    def live_bytes(self) -> int: ...

    @property
    def peak_bytes(self) -> int: ...

    def reset_peak(self) -> None: ...


class CudaAllocator:
    """Bytes allocated by torch's caching allocator on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def live_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    @property
    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)


def predict(make: Build, task: Task, batch: int, precision: str, work: str, checkpointing: bool) -> MemoryUse:
    """Predict the peak from the sizes of meta tensors; nothing is computed or allocated.

    Args:
        make: builds the model on the meta device.
        task: gives the shapes of the inputs.
        batch: images N.
        precision: fp32, tf32 (the same bytes) or bf16.
        work: inference or training.
        checkpointing: recompute the blocks of `models.checkpointing` in training.
    """
    autocast = torch.bfloat16 if precision == "bf16" and work == "training" else None

    def region() -> CudaRules:
        return CudaRules(autocast)

    counter = LiveBytes("meta", CUDA_BLOCK_BYTES)
    with counter:
        if work == "inference":
            return inference(make, task, batch, precision, "meta", counter, region)
        return training(make, task, batch, "meta", counter, region, region if checkpointing else None)


def _on_cuda(make: Build, task: Task, case: MemoryCase) -> MemoryUse:
    """Run on a CUDA device and read its allocator. The process must be fresh: cached memory counts."""
    on = case.device
    if case.limit_bytes is not None:
        total = torch.cuda.get_device_properties(on).total_memory
        # by index: this function does not accept "cuda"; without an index it uses the current device
        torch.cuda.set_per_process_memory_fraction(min(1.0, case.limit_bytes / total), torch.device(on).index)
    device.set_precision(case.precision)
    autocast = case.precision == "bf16" and case.work == "training"

    def region() -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext()

    torch.manual_seed(0)
    counter = CudaAllocator(on)
    if case.work == "inference":
        use = inference(make, task, case.batch, case.precision, on, counter, region)
    else:
        # torch restores autocast around a recomputation
        recomputation = nullcontext if case.checkpointing else None
        use = training(make, task, case.batch, on, counter, region, recomputation)
    return replace(use, reserved_bytes=torch.cuda.max_memory_reserved(on), process_bytes=_process_bytes(on))


def inference(
    make: Build,
    task: Task,
    batch: int,
    precision: str,
    on: str,
    counter: ByteCounter,
    region: Region,
) -> MemoryUse:
    """One denoising pass as in bench.throughput: weights and x in the given precision."""
    before = counter.live_bytes
    dtype = device.DTYPES[precision]
    model = make().to(dtype).eval()
    parameters = counter.live_bytes - before
    x, t, y = make_inputs(task, batch, on, condition_width(model))
    x = x.to(dtype)
    with torch.inference_mode(), region():
        if on != "meta":
            model(x, t, y)  # allocates the persistent workspaces of libraries
        counter.reset_peak()
        model(x, t, y)
    return MemoryUse(
        passes_peak_bytes=counter.peak_bytes,
        passes_peak_phase="forward",
        passes_gradients_bytes=0,
        update_peak_bytes=None,
        parameters_bytes=parameters,
        gradients_bytes=0,
        optimizer_bytes=0,
        ema_bytes=0,
        reserved_bytes=None,
        process_bytes=None,
    )


def training(
    make: Build,
    task: Task,
    batch: int,
    on: str,
    counter: ByteCounter,
    region: Region,
    around_recomputation: Region | None,
) -> MemoryUse:
    """One training step in steady state: it starts with the optimizer's moments and without gradients.

    Args:
        make, task, batch: as in `predict`.
        on: the device.
        counter: of the device's bytes.
        region: context of the forward pass and the loss.
        around_recomputation: context of a block's recomputation; None: no checkpointing.
    """
    before = counter.live_bytes
    model = make().train()
    parameters = counter.live_bytes - before
    inputs = make_inputs(task, batch, on, condition_width(model))
    noise = noise_of(inputs[0], task)
    before = counter.live_bytes
    # not fused: torch's default on CUDA, used by the releases
    step = TrainStep(model, inputs, noise, region, fused=False)
    ema_bytes = counter.live_bytes - before
    watched = _WatchedStep(step, counter)
    wrapped = nullcontext() if around_recomputation is None else checkpointed(model, around_recomputation)
    with wrapped:
        # the first step allocates the moments of the parameters that get a gradient
        first = steady = watched.run()
        if on != "meta":
            steady = watched.run()
    # a prediction needs no second step: its passes hold the memory of the first plus the moments
    moments = first.optimizer_bytes if steady is first else 0
    return MemoryUse(
        passes_peak_bytes=steady.watch.peak_bytes + moments,
        passes_peak_phase=steady.watch.peak_at.phase,
        passes_gradients_bytes=steady.watch.peak_at.gradients_bytes,
        update_peak_bytes=steady.update_peak_bytes,
        parameters_bytes=parameters,
        gradients_bytes=steady.gradients_bytes,
        optimizer_bytes=first.optimizer_bytes,
        ema_bytes=ema_bytes,
        reserved_bytes=None,
        process_bytes=None,
    )


@dataclass(frozen=True, kw_only=True)
class _StepPeaks:
    """Bytes of one training step."""

    watch: PeakWatch  # of both passes
    gradients_bytes: int  # of all gradients
    optimizer_bytes: int  # persistent state of the optimizer
    update_peak_bytes: int


class _WatchedStep:
    """A repeatable training step with a PeakWatch."""

    def __init__(self, step: TrainStep, counter: ByteCounter) -> None:
        self.step = step
        self.counter = counter
        self.gradients = 0
        self.watch = PeakWatch(lambda: counter.peak_bytes)
        for p in step.trained:
            p.register_post_accumulate_grad_hook(self._accumulated)

    def _accumulated(self, p: Tensor) -> None:
        assert p.grad is not None
        self.gradients += p.grad.untyped_storage().nbytes()
        self.watch.begin("backward", self.gradients)

    def run(self) -> _StepPeaks:
        self.gradients = 0
        self.counter.reset_peak()
        self.watch = watch = PeakWatch(lambda: self.counter.peak_bytes)
        watch.begin("forward", 0)
        loss = self.step.loss()
        watch.begin("backward", 0)
        loss.backward()
        watch.begin("update", self.gradients)
        self.counter.reset_peak()
        before = self.counter.live_bytes
        self.step.optimize()
        made = self.counter.live_bytes - before
        self.step.average()
        update_peak = self.counter.peak_bytes
        self.step.clear()
        return _StepPeaks(
            watch=watch, gradients_bytes=self.gradients, optimizer_bytes=made, update_peak_bytes=update_peak
        )


def _process_bytes(on: str) -> int | None:
    """Bytes of this process from the driver; None without nvidia-ml-py, or where processes are hidden."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        # by UUID: CUDA_VISIBLE_DEVICES renumbers devices in torch, not in NVML
        uuid = torch.cuda.get_device_properties(on).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    own = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
    return own[0] if own else None
