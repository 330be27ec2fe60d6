"""Operations of a model by their sizes, and the comparison of an operation's implementations."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.counting.hooks import hooked
from bench.machine import device, telemetry
from bench.measure import interleaved
from bench.measure.operations import depthwise, norms, products
from bench.measure.operations.implementations import Draws, Operands, Operation, Output, prepare
from bench.records.base import Environment, Record, Size, Skipped
from bench.records.kernels import (
    DepthwiseCase,
    DepthwiseComparison,
    KernelCase,
    NormCase,
    NormComparison,
    ProductCase,
    ProductComparison,
)
from models import dic, dico, fcdm
from models.contract import condition_width, device_of, make_inputs
from models.layers.unet import UNet
from models.task import Task

OPERATIONS: dict[str, Operation[Any]] = {
    **depthwise.OPERATIONS,
    **products.OPERATIONS,
    **norms.OPERATIONS,
}
COMPARISONS: dict[type[KernelCase], type[Any]] = {
    DepthwiseCase: DepthwiseComparison,
    ProductCase: ProductComparison,
    NormCase: NormComparison,
}
Found = nn.Conv2d | nn.GroupNorm  # what an operation of a model is
VISIT_S = {"cpu": 0.05, "cuda": 0.01}  # a graph replay is launched in about 10 us, asynchronously


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or a norm of a model at one size."""

    channels: int
    out_channels: int
    image_size: Size
    kernel: int
    groups: int  # of a norm
    calls_per_pass: int


def layers(model: nn.Module, task: Task) -> dict[str, list[Layer]]:
    """The layers of a model on meta that an operation computes, each size once, in order of calls."""
    operations: dict[Found, list[str]] = {}
    for operation, module in _operations(model):
        operations.setdefault(module, []).append(operation)
    calls: dict[str, Counter[Layer]] = {}
    for module, sides in _sides(model, task, operations):
        layer = Layer(
            channels=module.num_channels if isinstance(module, nn.GroupNorm) else module.in_channels,
            out_channels=module.num_channels if isinstance(module, nn.GroupNorm) else module.out_channels,
            image_size=sides[0] if sides[0] == sides[1] else sides,
            kernel=module.kernel_size[0] if isinstance(module, nn.Conv2d) else 1,
            groups=module.num_groups if isinstance(module, nn.GroupNorm) else 1,
            calls_per_pass=0,
        )
        for operation in operations[module]:
            calls.setdefault(operation, Counter())[layer] += 1
    return {
        operation: [replace(layer, calls_per_pass=count) for layer, count in found.items()]
        for operation, found in calls.items()
    }


def _sides(
    model: nn.Module, task: Task, wanted: Collection[Found]
) -> Iterable[tuple[Found, tuple[int, int]]]:
    """Every call of modules that keep the size of their images, with that size."""
    if isinstance(model, fcdm.FCDM | dico.DiCo):  # its blocks keep the size; a pass takes seconds of planning
        known = [
            (module, (task.height // times, task.width // times))
            for level, times in model.unet.levels()
            for module in level.modules()
            if isinstance(module, Found) and module in wanted
        ]
        if len(known) == len(wanted):
            return known
    found: list[tuple[Found, tuple[int, int]]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, Found) and inputs[0].shape[2:] == out.shape[2:]:
            found.append((module, (out.shape[2], out.shape[3])))

    with torch.no_grad(), hooked(wanted, after=record):
        model.eval()(*make_inputs(task, 1, device_of(model), condition_width(model)))
    return found


def _operations(model: nn.Module) -> Iterator[tuple[str, Found]]:
    """Operations, each with the convolution or norm in it, as models.fast replaces them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_depthwise(module):
            yield "conv", module
            yield "block", module
        elif isinstance(module, dico.ConvModule) and isinstance(module.activation, nn.GELU):
            yield "conv-gelu", module.depthwise
        elif isinstance(module, dic.Block):
            yield "norm-gelu", module.norm1
        elif isinstance(module, fcdm.Block):
            yield "gelu-product", module.expand
            if isinstance(module.response, fcdm.GlobalResponseNorm):
                yield "scaled-product", module.contract
        elif isinstance(module, UNet):
            yield "shuffled-product", module.fuse2
            yield "shuffled-product", module.fuse1


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    K = convolution.kernel_size[0]
    is_odd_square = K % 2 == 1 and convolution.kernel_size == (K, K) and convolution.dilation == (1, 1)
    return is_odd_square and convolution.groups == convolution.in_channels == convolution.out_channels > 1


def draw(case: KernelCase) -> tuple[Operands, Output]:
    """Draw the operands of a case and compute the exact output of the first input; sets the TF32 switches."""
    device.set_precision(case.precision)
    operation = OPERATIONS[case.operation]
    given = operation.draw(case, Draws(device.DTYPES[case.precision], case.device))
    with torch.inference_mode():
        return given, operation.exact(given)


def measure(case: KernelCase, environment: Environment) -> Record:
    """Compare implementations; Skipped if the reference, or every other one, cannot be timed."""
    given, exact = draw(case)
    implementations = OPERATIONS[case.operation].implementations
    with torch.inference_mode():
        ready = [prepare(name, implementations, given, exact, case.precision) for name in implementations]
        del exact
        found, calls = tuple(result for result, _ in ready), [call for _, call in ready if call]
        first, *others = found
        if first.status != "ok":
            reason = f"{first.name}: {first.reason}"
            return Skipped(case=case, environment=environment, status=first.status, reason=reason)
        if len(calls) < 2:
            reason = "; ".join(f"{result.name}: {result.reason}" for result in others)
            reason = f"nothing beside {first.name}: {reason}"
            return Skipped(case=case, environment=environment, status="not timed", reason=reason)
        monitor = telemetry.monitor(case.device)
        compared = interleaved.compare(
            calls,
            interleaved.Policy(
                budget_s=case.budget_s,
                margin=case.precision_target,
                min_visit_s=VISIT_S[case.device],
                min_warmup_s=min(0.5, case.budget_s / 20),
            ),
            clock=time.perf_counter,
            synchronise=device.synchronise(case.device),
            read_clock_mhz=monitor.clock_mhz if monitor else None,
        )
    comparison: Record = COMPARISONS[type(case)](
        case=case,
        environment=environment,
        implementations=found,
        inputs=len(given.inputs),
        **compared.fields(case.precision_target),
    )
    return comparison
