"""Count of one model at one size under one counter; a failure is a Skipped record."""

import importlib.util
from collections.abc import Mapping, Sequence

from torch import nn

from bench.counting import closed_form, counters
from bench.counting.dispatch import Count
from bench.machine.device import free_host_bytes
from bench.machine.failures import RAISED, describe, failed_row
from bench.records.base import Environment, Skipped, height_width
from bench.records.counts import PACKAGES, CountCase, MacCount
from models.contract import build, why_real
from models.registry import task_at
from models.task import Task


def count(case: CountCase, environment: Environment, model: nn.Module) -> MacCount | Skipped:
    """Count a forward pass and, under torch's rules, a training step; without one, a remark says why."""
    try:
        counted = forward(case, model)
    except RAISED as error:
        return failed_row(case, environment, error)
    if case.counter != "torch":
        return record(case, environment, model, counted)
    reason = why_real(model)
    remarks = [f"counted on real tensors: {reason}"] if reason else []
    try:
        step = counters.count_step(model, task_of(case), case.batch)
    except RAISED as error:
        remarks.append(f"training not counted: {describe(error)}")
        return record(case, environment, model, counted, remarks=remarks)
    if step.recomputed_macs:
        giga = f"{step.recomputed_macs / 1e9:.3f} GMACs"
        remarks.append(f"the network itself recomputes {giga} in the backward pass; not counted in training")
    return record(case, environment, model, counted, step, remarks)


def forward(case: CountCase, model: nn.Module, *, by_module: bool = False) -> Count:
    """Count a forward pass, by operator and, for some counters, by module.

    The forward pass of a training step may differ: some networks take another path with gradients (U-DiT).

    Raises:
        MemoryError: the real weights for a package do not fit in free memory.
        ValueError: the model has no closed form.
    """
    task = task_of(case)
    if case.counter == "closed-form":
        terms = closed_form.count(case.model, task, case.batch)
        if terms is None:
            raise ValueError(f"{case.model}: no closed form is known")
        return Count(by_op=dict(terms.torch.most_common()), by_module={}, not_counted=())
    if case.counter in PACKAGES:
        if reason := why_too_large(model):
            raise MemoryError(reason)
        model = build(case.model, task, device="cpu")
    return counters.count_forward(model, task, counter=case.counter, batch=case.batch, by_module=by_module)


def parts(case: CountCase, model: nn.Module, by: str) -> Mapping[str, int]:
    """MACs of a forward pass by "op" or "module"; zeros are omitted."""
    counted = forward(case, model, by_module=by == "module")
    named = counted.by_module if by == "module" else counted.by_op
    return {part: macs for part, macs in named.items() if macs}


def record(
    case: CountCase,
    environment: Environment,
    model: nn.Module,
    counted: Count,
    step: counters.StepCount | None = None,
    remarks: Sequence[str] = (),
) -> MacCount:
    parameters = list(model.parameters())
    return MacCount(
        case=case,
        environment=environment,
        params=sum(p.numel() for p in parameters),
        params_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        macs=counted.macs,
        train_macs=step.train_macs if step else None,
        train_macs_checkpointed=step.train_macs_checkpointed if step else None,
        not_counted=counted.not_counted,
        remarks=tuple(remarks),
    )


def has_closed_form(case: CountCase) -> bool:
    return closed_form.count(case.model, task_of(case)) is not None


def task_of(case: CountCase) -> Task:
    return task_at(case.model, *height_width(case.res))


def why_missing(package: str) -> str:
    """Reason why a package cannot run; blank if it can."""
    return "" if importlib.util.find_spec(package) else f"not installed; pip install {package}"


def why_too_large(model: nn.Module) -> str:
    """Reason why a model's real weights do not fit in memory; blank if they do."""
    params = sum(p.numel() for p in model.parameters())
    needed, free = 2 * 4 * params, free_host_bytes()  # float32, doubled for activations
    if free is None or needed <= free:
        return ""
    return f"about {needed / 2**30:.1f} GiB of memory needed, {free / 2**30:.1f} are free"
