"""MACs of a forward pass or a training step, traced on meta tensors under the rules of a counter.

`torch` counts convolutions, matrix products, attention and the operators of models.kernels.
`torchprofile-meta` applies torchprofile's rules, the source of the papers' figures. `torchprofile-unfused`
adds the scaling of the queries, which unfused attention executes. `module-hooks` counts layers only, by hooks
on their forward passes. `torchprofile` and `fvcore` run the packages on real weights.

All counts are in MACs; one MAC is two FLOPs.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.counting.dispatch import Count, CountingMode, OutsideLayers, WholeOperators
from bench.counting.hooks import hooked
from bench.counting.paths import RunningModules
from bench.counting.rules import LAYERS, TORCH_RULES, TORCHPROFILE_RULES, layer_macs
from models.checkpointing import blocks
from models.contract import condition_width, device_of, make_inputs
from models.task import Task


@dataclass(frozen=True)
class StepCount:
    """MACs of one training step without the optimizer."""

    forward: Count
    train_macs: int  # forward and backward
    train_macs_checkpointed: int  # train_macs with every block of `models.checkpointing` recomputed
    recomputed_macs: int  # what the network recomputes by itself; in neither of the two


@dataclass(frozen=True)
class SideBySide:
    """One forward pass under every counter that traces meta tensors."""

    counts: Mapping[str, Count]  # by counter
    permuted: int  # MACs that torchprofile assigns to einsums that only permute
    outside_layers: Mapping[str, int]  # MACs by operator, under torch's rules, outside of any layer


def count_step(model: nn.Module, task: Task, batch: int = 1) -> StepCount:
    """Count a forward and a backward pass of `batch` images under torch's rules, on meta or real tensors.

    x has no gradient, as in training. The model is in eval mode: randomly dropped parts count.
    ValueError: the output has no gradient.
    """
    model.eval()
    x, t, y = make_inputs(task, batch, device_of(model), condition_width(model))
    counting = CountingMode(TORCH_RULES)
    in_blocks = 0

    def before(*_: object) -> None:
        nonlocal in_blocks
        in_blocks -= counting.total

    def after(*_: object) -> None:
        nonlocal in_blocks
        in_blocks += counting.total

    try:
        with counting:
            with hooked(blocks(model), before=before, after=after):  # a backward pass may run blocks again
                out = model(x, t, y)
            forward = counting.count()
            if not out.requires_grad:
                raise ValueError(
                    "no gradient in the output: no_grad, inference_mode, detach or no parameters"
                )
            with counting.backward():
                out.backward(torch.empty_like(out))
    finally:
        model.zero_grad()
    return StepCount(
        forward=forward,
        train_macs=counting.total,
        train_macs_checkpointed=counting.total + in_blocks,
        recomputed_macs=counting.recomputed,
    )


def count_side_by_side(model: nn.Module, task: Task, batch: int = 1) -> SideBySide:
    """Count a forward pass in eval mode, without gradients, in two passes over meta tensors."""
    model.eval()
    args = make_inputs(task, batch, device_of(model), condition_width(model))
    running = OutsideLayers(TORCH_RULES)
    by_layer: Counter[str] = Counter()

    def before(*_: object) -> None:
        running.layers_running += 1

    def after(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        running.layers_running -= 1
        by_layer[type(layer).__name__] += layer_macs(layer, given[0], out)

    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    with hooked(layers, before=before, after=after), torch.no_grad(), running:
        model(*args)
    counting = CountingMode(TORCHPROFILE_RULES)
    whole = WholeOperators(counting)
    with torch.no_grad(), counting, whole:
        model(*args)
    plain, fused = running.count(), counting.count()
    scaling = {"query_scaling": whole.scaled_queries} if whole.scaled_queries else {}
    return SideBySide(
        counts={
            "torch": plain,
            "torchprofile-meta": fused,
            "torchprofile-unfused": Count({**fused.by_op, **scaling}, {}, fused.not_counted),
            "module-hooks": Count(
                dict(by_layer.most_common()), {}, tuple(sorted({*running.outside, *plain.not_counted}))
            ),
        },
        permuted=whole.permuted,
        outside_layers=dict(running.outside),
    )


def count_forward(
    model: nn.Module, task: Task, *, counter: str = "torch", batch: int = 1, by_module: bool = False
) -> Count:
    """Count a forward pass of `batch` images in eval mode, without gradients; packages need real tensors.

    `by_module` is slower, and for torch and torchprofile-meta. ImportError: the package is not installed.
    """
    if counter in ("torchprofile-unfused", "module-hooks"):
        return count_side_by_side(model, task, batch).counts[counter]
    model.eval()
    is_package = counter in _PACKAGES
    args = make_inputs(task, batch, device_of(model), condition_width(model))
    if is_package:
        return _PACKAGES[counter](model, args)
    modules = RunningModules(model) if by_module else None
    counting = CountingMode(TORCH_RULES if counter == "torch" else TORCHPROFILE_RULES, modules)
    whole = nullcontext() if counter == "torch" else WholeOperators(counting)
    with torch.no_grad(), modules or nullcontext(), counting, whole:
        model(*args)
    return counting.count()


def _count_torchprofile(model: nn.Module, args: tuple[Tensor, ...]) -> Count:
    """Run the package; it warns at every call of an operator without a rule."""
    from torchprofile import profile_macs

    by_op: Counter[str] = Counter()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        by_node = profile_macs(model, args, reduction=None)
        assert isinstance(by_node, dict)  # without a reduction, MACs by node
        for node, macs in by_node.items():
            by_op[node.operator.removeprefix("aten::")] += macs
    unknown = (re.match(r'No handlers found: "(?:aten::)?(\w+)"', str(warning.message)) for warning in caught)
    return Count(
        by_op={op: macs for op, macs in by_op.most_common() if macs},
        by_module={},
        not_counted=tuple(sorted({match[1] for match in unknown if match})),
    )


def _count_fvcore(model: nn.Module, args: tuple[Tensor, ...]) -> Count:
    """Run the package. Its "flops" are MACs and include some elementwise operators."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses deprecated modules of torch
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, args)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_op = Counter({op: int(macs) for op, macs in analysis.by_operator().items()})
    unknown = {op.removeprefix("aten::") for op in analysis.unsupported_ops()}
    return Count(by_op=dict(by_op.most_common()), by_module={}, not_counted=tuple(sorted(unknown)))


_PACKAGES = {"torchprofile": _count_torchprofile, "fvcore": _count_fvcore}
