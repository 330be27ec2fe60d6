"""The most memory that an inference pass or a training step holds, measured on CUDA or predicted on meta."""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.checkpointing import checkpointed
from bench.counting import counters
from bench.counting.cuda_dispatch import CudaRules
from bench.machine import device as device
from bench.measure.live_bytes import CUDA_BLOCK_BYTES, Footprint, PeakWatch
from bench.measure.train_step import Region, Step, noise_of
from bench.records.record import MemoryUse
from models.contract import condition_width
from models.task import Task


class Ledger(Protocol):
    """Who counts the bytes: the allocator of a device, or a Footprint."""

    @property
    def live_bytes(self) -> int: ...

    @property
    def peak_bytes(self) -> int: ...

    def reset_peak(self) -> None: ...


class CudaLedger:
    """What torch's caching allocator has handed out on a device."""

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


def predict(
    make: Callable[[], nn.Module], task: Task, batch: int, precision: str, work: str, checkpointing: bool
) -> MemoryUse:
    """Work out the peak from the sizes of meta tensors; nothing is computed or allocated.

    Args:
        make: builds the model on the meta device.
        task: gives the shapes of the inputs.
        batch: images N.
        precision: fp32, tf32 (the same bytes) or bf16.
        work: inference or training.
        checkpointing: training recomputes the blocks of `bench.checkpointing`.
    """
    autocast = torch.bfloat16 if precision == "bf16" and work == "training" else None

    def region() -> CudaRules:
        return CudaRules(autocast)

    ledger = Footprint("meta", CUDA_BLOCK_BYTES)
    with ledger:
        if work == "inference":
            return inference(make, task, batch, precision, "meta", ledger, region)
        return training(make, task, batch, "meta", ledger, region, region if checkpointing else None)


def measure(
    make: Callable[[], nn.Module],
    task: Task,
    batch: int,
    precision: str,
    work: str,
    checkpointing: bool,
    on: str,
    limit_bytes: int | None,
) -> MemoryUse:
    """Run on a CUDA device and read its allocator. The process must be fresh: caches count.

    Args:
        make: builds the model on the device.
        task, batch, precision, work, checkpointing: as for `predict`.
        on: the device.
        limit_bytes: what the allocator may take at most; None: what there is.

    Raises:
        torch.OutOfMemoryError: there is less.
    """
    if limit_bytes is not None:
        total = torch.cuda.get_device_properties(on).total_memory
        # by number, as this one takes no "cuda"; without one it is the current device
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), torch.device(on).index)
    device.set_precision(precision)
    autocast = precision == "bf16" and work == "training"

    def region() -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext()

    torch.manual_seed(0)
    ledger = CudaLedger(on)
    if work == "inference":
        use = inference(make, task, batch, precision, on, ledger, region)
    else:
        # torch restores its own autocast around a recomputation
        use = training(make, task, batch, on, ledger, region, nullcontext if checkpointing else None)
    return replace(use, reserved_bytes=torch.cuda.max_memory_reserved(on), process_bytes=_of_process(on))


def inference(
    make: Callable[[], nn.Module],
    task: Task,
    batch: int,
    precision: str,
    on: str,
    ledger: Ledger,
    region: Region,
) -> MemoryUse:
    """One denoising pass as bench.throughput times it: weights and x in the precision itself."""
    before = ledger.live_bytes
    dtype = device.DTYPES[precision]
    model = make().to(dtype).eval()
    parameters = ledger.live_bytes - before
    x, t, y = counters.inputs(task, batch, on, condition_width(model))
    x = x.to(dtype)
    with torch.inference_mode(), region():
        if on != "meta":
            model(x, t, y)  # workspaces that libraries keep are there from the second pass on
        ledger.reset_peak()
        model(x, t, y)
    return MemoryUse(
        passes_peak_bytes=ledger.peak_bytes,
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
    make: Callable[[], nn.Module],
    task: Task,
    batch: int,
    on: str,
    ledger: Ledger,
    region: Region,
    around_recomputation: Region | None,
) -> MemoryUse:
    """One training step in its steady state: the optimizer's moments are there, gradients not yet.

    Args:
        make, task, batch: as for `predict`.
        on: the device.
        ledger: counts its bytes.
        region: around the forward pass and the loss.
        around_recomputation: around a block's second computation; None: no checkpointing.
    """
    before = ledger.live_bytes
    model = make().train()
    parameters = ledger.live_bytes - before
    inputs = counters.inputs(task, batch, on, condition_width(model))
    noise = noise_of(inputs[0], task)
    before = ledger.live_bytes
    # not fused: torch's default on CUDA, and so what the releases run
    step = Step(model, inputs, noise, region, fused=False)
    ema_bytes = ledger.live_bytes - before
    watched = _Watched(step, ledger)
    wrapped = nullcontext() if around_recomputation is None else checkpointed(model, around_recomputation)
    with wrapped:
        # it makes the moments, for the parameters that get a gradient
        first = steady = watched.run()
        if on != "meta":
            steady = watched.run()
    # sums of sizes need no second step: its passes hold the moments beside what those of the first held
    not_yet = first.made_bytes if steady is first else 0
    return MemoryUse(
        passes_peak_bytes=steady.watch.peak_bytes + not_yet,
        passes_peak_phase=steady.watch.peak_at.phase,
        passes_gradients_bytes=steady.watch.peak_at.gradients_bytes,
        update_peak_bytes=steady.update_peak_bytes,
        parameters_bytes=parameters,
        gradients_bytes=steady.gradients_bytes,
        optimizer_bytes=first.made_bytes,
        ema_bytes=ema_bytes,
        reserved_bytes=None,
        process_bytes=None,
    )


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What one training step held."""

    watch: PeakWatch  # of both passes
    gradients_bytes: int  # of all gradients
    made_bytes: int  # by the optimizer, and kept
    update_peak_bytes: int


class _Watched:
    """A training step whose parts are watched; run it as often as you like."""

    def __init__(self, step: Step, ledger: Ledger) -> None:
        self.step = step
        self.ledger = ledger
        self.gradients = 0
        self.watch = PeakWatch(lambda: ledger.peak_bytes)
        for p in step.trained:
            p.register_post_accumulate_grad_hook(self._accumulated)

    def _accumulated(self, p: Tensor) -> None:
        assert p.grad is not None
        self.gradients += p.grad.untyped_storage().nbytes()
        self.watch.begin("backward", self.gradients)

    def run(self) -> _Seen:
        self.gradients = 0
        self.ledger.reset_peak()
        self.watch = watch = PeakWatch(lambda: self.ledger.peak_bytes)
        watch.begin("forward", 0)
        loss = self.step.loss()
        watch.begin("backward", 0)
        loss.backward()
        watch.begin("update", self.gradients)
        self.ledger.reset_peak()
        before = self.ledger.live_bytes
        self.step.optimize()
        made = self.ledger.live_bytes - before
        self.step.average()
        update_peak = self.ledger.peak_bytes
        self.step.clear()
        return _Seen(
            watch=watch, gradients_bytes=self.gradients, made_bytes=made, update_peak_bytes=update_peak
        )


def _of_process(on: str) -> int | None:
    """What the driver counts for this process; None without nvidia-ml-py, or where it hides processes."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        # by UUID: CUDA_VISIBLE_DEVICES renumbers what torch sees and not what NVML sees
        uuid = torch.cuda.get_device_properties(on).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    mine = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
    return mine[0] if mine else None
