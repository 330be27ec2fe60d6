"""Peak memory of an inference pass or a training step, measured on CUDA or a CPU, or predicted on meta."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from bench.counting.cuda_dispatch import CudaRules
from bench.machine import device, telemetry
from bench.measure.memory.live_bytes import CUDA_BLOCK_BYTES, LiveBytes
from bench.measure.memory.sections import CounterMarks, CudaAllocator, Marks, Section, cpu_allocator
from bench.measure.prepared.train_step import Region, TrainStep, noise_of
from bench.records.base import Environment, height_width
from bench.records.memory import Memory, MemoryCase, MemoryUse
from models.checkpointing import checkpointed
from models.contract import build, condition_width, make_inputs
from models.registry import task_at


def measure(case: MemoryCase, environment: Environment) -> Memory:
    """Measure one case on CUDA or a CPU, in a fresh process, or predict it on meta.

    torch.OutOfMemoryError: or another allocation error: the device or the limit is too small.
    """
    if case.is_predicted:
        use = predict(case)
    elif case.device == "cpu":
        use = _on_cpu(case)
    else:
        use = _on_cuda(case)
    return Memory(case=case, environment=environment, use=use)


def predict(case: MemoryCase) -> MemoryUse:
    """Predict the peak from the sizes of meta tensors; nothing is computed or allocated."""
    autocast = torch.bfloat16 if case.precision == "bf16" and case.work == "training" else None

    def region() -> CudaRules:
        return CudaRules(autocast)

    counter = LiveBytes("meta", CUDA_BLOCK_BYTES)
    marks = CounterMarks(counter)
    with counter:
        if case.work == "inference":
            inference(case, marks, region)
        else:
            training(case, marks, region, region)
    return use_of(marks.sections)


def _on_cpu(case: MemoryCase) -> MemoryUse:
    """Run on the CPU and follow torch's allocator. The process must be fresh: its resident peak counts."""
    with cpu_allocator() as marks:
        _run(case, marks)
        process_bytes = device.resident_peak_bytes()
    return replace(use_of(marks.sections), process_bytes=process_bytes)


def _on_cuda(case: MemoryCase) -> MemoryUse:
    """Run on a CUDA device and read its allocator. The process must be fresh: cached memory counts."""
    on = case.device
    if case.limit_bytes is not None:
        total = torch.cuda.get_device_properties(on).total_memory
        # by index: this function does not accept "cuda"; without an index it uses the current device
        torch.cuda.set_per_process_memory_fraction(min(1.0, case.limit_bytes / total), torch.device(on).index)
    marks = CounterMarks(CudaAllocator(on))
    _run(case, marks)
    monitor = telemetry.monitor(on)
    return replace(
        use_of(marks.sections),
        reserved_bytes=torch.cuda.max_memory_reserved(on),
        process_bytes=monitor.process_bytes() if monitor else None,
    )


def _run(case: MemoryCase, marks: Marks) -> None:
    """Run the pass or the steps of a case on its device."""
    device.set_precision(case.precision)
    autocast = case.precision == "bf16" and case.work == "training"

    def region() -> AbstractContextManager[object]:
        return torch.autocast(case.device, torch.bfloat16) if autocast else nullcontext()

    torch.manual_seed(0)
    if case.work == "inference":
        inference(case, marks, region)
    else:
        training(case, marks, region, nullcontext)  # torch restores autocast around a recomputation


def inference(case: MemoryCase, marks: Marks, region: Region) -> None:
    """One denoising pass as in bench.throughput: weights and x in the precision of the case."""
    dtype = device.DTYPES[case.precision]
    task = task_at(case.model, *height_width(case.res))
    marks.begin("model")
    model = build(case.model, task, device=case.device, impl=case.impl).to(dtype).eval()
    marks.begin("inputs")
    x, t, y = make_inputs(task, case.batch, case.device, condition_width(model))
    x = x.to(dtype)
    with torch.inference_mode(), region():
        if not case.is_predicted:
            model(x, t, y)  # allocates the persistent workspaces of libraries
        marks.begin("forward")
        model(x, t, y)
    marks.begin("end")


def training(case: MemoryCase, marks: Marks, region: Region, around_recomputation: Region) -> None:
    """Two training steps, of which the second is in steady state: it starts with the optimizer's moments.

    A prediction needs no second step: its passes hold the memory of the first and the moments (`use_of`).

    Args:
        region: context of the forward pass and the loss.
        around_recomputation: context of a block's recomputation, under checkpointing.
    """
    task = task_at(case.model, *height_width(case.res))
    marks.begin("model")
    model = build(case.model, task, device=case.device, impl=case.impl).train()
    marks.begin("inputs")
    inputs = make_inputs(task, case.batch, case.device, condition_width(model))
    noise = noise_of(inputs[0], task)
    marks.begin("ema")
    # not fused: torch's default on CUDA, used by the releases
    step = TrainStep(model, inputs, noise, region, fused=False)
    marks.begin("ready")
    marked = _MarkedStep(step, marks)
    with checkpointed(model, around_recomputation) if case.checkpointing else nullcontext():
        for _ in range(1 if case.is_predicted else 2):
            marked.run()
    marks.begin("end")


class _MarkedStep:
    """A repeatable training step with marks at its phases and at every gradient."""

    def __init__(self, step: TrainStep, marks: Marks) -> None:
        self.step = step
        self.marks = marks
        self.gradients_bytes = 0
        for p in step.trained:
            p.register_post_accumulate_grad_hook(self._accumulated)

    def _accumulated(self, p: Tensor) -> None:
        assert p.grad is not None
        self.gradients_bytes += p.grad.untyped_storage().nbytes()
        self.marks.begin("backward", self.gradients_bytes)

    def run(self) -> None:
        self.gradients_bytes = 0
        self.marks.begin("forward")
        loss = self.step.loss()
        self.marks.begin("backward")
        loss.backward()
        self.marks.begin("update", self.gradients_bytes)
        self.step.optimize()
        self.marks.begin("average", self.gradients_bytes)
        self.step.average()
        self.marks.begin("clear", self.gradients_bytes)
        self.step.clear()


def use_of(sections: Sequence[Section]) -> MemoryUse:
    """The memory of the last pass or step among the sections of `inference` or `training`."""
    begins = {section.name: section.begin_bytes for section in reversed(sections)}  # the first of each name
    starts = [index for index, section in enumerate(sections) if section.name == "forward"]
    last = sections[starts[-1] :]
    highest = max((s for s in last if s.name in ("forward", "backward")), key=lambda s: s.peak_bytes)
    updates = [s for s in last if s.name in ("update", "average")]
    moments = begins["average"] - begins["update"] if updates else 0
    return MemoryUse(
        passes_peak_bytes=highest.peak_bytes + (moments if len(starts) == 1 else 0),
        passes_peak_phase=highest.name,
        passes_gradients_bytes=highest.gradients_bytes,
        update_peak_bytes=max((s.peak_bytes for s in updates), default=None),
        parameters_bytes=begins["inputs"] - begins["model"],
        gradients_bytes=max((s.gradients_bytes for s in updates), default=0),
        optimizer_bytes=moments,
        ema_bytes=begins["ready"] - begins["ema"] if updates else 0,
        reserved_bytes=None,
        process_bytes=None,
    )
