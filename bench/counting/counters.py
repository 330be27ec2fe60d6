"""Multiply-accumulates of a forward pass or a training step, under every counter that traces or hooks.

`torch` takes torch's own table of FLOP formulas (torch.utils.flop_counter) and runs the model on the
meta device, so nothing is computed or allocated: convolutions, matrix products, attention and the fused
operators of models.kernels, which bring their formulas along, count.
`torchprofile-meta` applies torchprofile's rules in the same way: it counts elementwise products, means
and affine norms too, which is what the papers print. `torchprofile-unfused` does so where attention is not
one operator, so that the scaling of the queries counts as well. `module-hooks` sees the layers alone, each
by a hook on its forward pass: no function that a network calls itself. `torchprofile` and `fvcore` are the
packages themselves, which trace a model with real weights.

One MAC is two FLOPs. Everything returned here is in MACs.
"""

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry
from torch.utils.module_tracker import ModuleTracker

from bench.checkpointing import blocks
from models.contract import condition_width
from models.kernels import neighbourhood  # noqa: F401 - defines the operators below
from models.task import Task

aten = torch.ops.aten
ours = torch.ops.backbones

Formula = Callable[..., int]  # (*args, out_val=out, **kwargs) of an operator -> FLOPs


@dataclass(frozen=True)
class Count:
    """MACs of one pass, by operator and by module."""

    by_op: Mapping[str, int]
    by_module: Mapping[str, int]  # by the innermost module, an index in a list as *; empty if not asked for
    not_counted: tuple[str, ...]  # operators that ran without a rule, views and constructors left out

    @property
    def macs(self) -> int:
        return sum(self.by_op.values())


def convolution_backward_flops(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias_sizes: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: list[bool],
    out_val: object = None,
) -> int:
    """FLOPs of a convolution's two gradients: each costs what the forward pass costs.

    torch's own formula (2.11 to 2.13) leaves the groups out of the gradient of the weight, so that the
    backward pass of a depthwise convolution of 64 channels counts as 65 forward passes in place of 2.
    """
    forward = conv_flop_count([*x.shape], [*weight.shape], [*grad_out.shape], transposed=transposed)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def neighbourhood_macs(q: Tensor, _k: Tensor, _v: Tensor, window: int, **_: object) -> int:
    """MACs of neighbourhood attention: a product with each of window^2 keys, and with as many values."""
    return 2 * window**2 * q.numel()


def neighbourhood_backward_macs(_grad: Tensor, *args: Any, **_: object) -> int:  # noqa: ANN401 - q, k, v, window
    """Twice the forward pass: the gradients of both factors of both products."""
    return 2 * neighbourhood_macs(*args)


def _halved(formula: Formula) -> Formula:
    return lambda *args, **kwargs: formula(*args, **kwargs) // 2


TORCH_RULES: Mapping[Any, Formula] = {
    **{op: _halved(formula) for op, formula in flop_registry.items()},
    aten.convolution_backward: _halved(convolution_backward_flops),
    ours.neighbourhood_attention: neighbourhood_macs,
    ours.neighbourhood_attention_backward: neighbourhood_backward_macs,
}


def _per_output(*_args: object, out_val: Tensor, **_kwargs: object) -> int:
    return out_val.numel()


def _per_output_if_affine(weight_at: int) -> Formula:
    def rule(*args: object, out_val: tuple[Tensor, ...], **_kwargs: object) -> int:
        return 0 if args[weight_at] is None else out_val[0].numel()

    return rule


def _torchprofile_convolution(x: Tensor, weight: Tensor, *_args: object, out_val: Tensor) -> int:
    """Every output times the weights of a filter, of a transposed convolution too, whatever its stride."""
    filters_first = out_val.shape[1] == weight.shape[0]
    return out_val.numel() * weight.shape[filters_first] * math.prod(weight.shape[2:])


# what torchprofile 0.1.0 adds to products and convolutions, as far as it occurs in a forward pass; it has
# no rule for operators other than torch's, and so does not see the fused ones of models.kernels
TORCHPROFILE_RULES: Mapping[Any, Formula] = {
    **{
        op: rule
        for op, rule in TORCH_RULES.items()
        if op is not aten.convolution_backward and str(op).startswith("aten.")
    },
    aten.convolution: _torchprofile_convolution,
    aten.mul: _per_output,
    aten.mean: _per_output,
    aten.avg_pool2d: _per_output,
    aten._adaptive_avg_pool2d: _per_output,
    aten.native_layer_norm: _per_output_if_affine(2),
    aten.native_group_norm: _per_output_if_affine(1),
}

# operators that do no arithmetic: nobody expects them to be counted
_SILENT = (
    "empty",
    "arange",
    "zeros",
    "ones",
    "full",
    "clone",
    "_unsafe_view",
    "copy",
    "_to_copy",
    "cat",
    "detach",
    "pixel_",
    "new_",
)


def _signature(value: Any) -> Any:  # noqa: ANN401 - operators take anything
    """What an operator's result on the meta device depends on, as something that can be hashed.

    Raises:
        TypeError: the value has no such form, a tensor with values or an object unknown here.
    """
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError("a tensor with values")
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    hash(value)
    return (type(value), value)


def _like(out: Any) -> Any:  # noqa: ANN401
    """A fresh result of the same form."""
    if isinstance(out, Tensor):
        return torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device="meta")
    if isinstance(out, list | tuple):
        return type(out)(map(_like, out))
    return out


class Remembering(TorchDispatchMode, ABC):
    """Within it, every operator that reaches the dispatcher is described once for each signature.

    Networks repeat their blocks, and most of torch's shape functions are slow Python: the result of an
    operator on shapes seen before is made anew from the one before, without asking the operator. Views are
    passed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Any, tuple[Any, Any]] = {}  # signature -> result, what describes it

    @abstractmethod
    def describe(self, func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], out: Any) -> Any:  # noqa: ANN401
        """Whatever is to be known of an operator, from the shapes and types alone of what goes in and out."""

    @abstractmethod
    def saw(self, func: Any, args: tuple[Any, ...], out: Any, described: Any) -> None:  # noqa: ANN401
        """Take note of one call; described is what `describe` gave for its signature."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - the dispatcher's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        keywords = kwargs or {}
        if func.is_view:
            return func(*args, **keywords)
        signature = None
        if not func._schema.is_mutable:
            with suppress(TypeError):
                signature = (func, _signature(args), _signature(tuple(keywords.items())))
        if signature in self._seen:
            held, described = self._seen[signature]
            out = _like(held)
        else:
            out = func(*args, **keywords)
            described = self.describe(func, args, keywords, out)
            if signature is not None:
                self._seen[signature] = (_like(out), described)
        self.saw(func, args, out, described)
        return out


def innermost(modules: ModuleTracker) -> str:
    """The path of the module that runs now, `starred`."""
    name = max(modules.parents, key=lambda name: (name != "Global", name.count("."), name))
    return starred(name.partition(".")[2])  # the first is the network


def starred(path: str) -> str:
    """A module's path with indices in lists as *; of the network itself, "(itself)"."""
    return ".".join("*" if part.isdigit() else part for part in path.split(".")) or "(itself)"


class _Dispatched(Remembering):
    """Applies rules to every operator that reaches the dispatcher."""

    def __init__(self, rules: Mapping[Any, Formula], modules: ModuleTracker | None = None) -> None:
        super().__init__()
        self.rules = rules
        self.modules = modules
        self.by_op: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self.without_rule: set[str] = set()
        self.total = 0
        self.listening = True

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Count nothing of what runs within."""
        self.listening = False
        try:
            yield
        finally:
            self.listening = True

    def describe(
        self,
        func: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        keywords: Mapping[str, Any],
        out: Any,  # noqa: ANN401
    ) -> int | None:
        """MACs; None without a rule."""
        rule = self.rules.get(func._overloadpacket)
        return None if rule is None else rule(*args, **keywords, out_val=out)

    def saw(self, func: Any, args: tuple[Any, ...], out: Any, described: int | None) -> None:  # noqa: ANN401
        name = func._overloadpacket.__name__
        if described is not None:
            self.add(name, described)
        elif not func._schema.is_mutable and not name.startswith(_SILENT):
            self.without_rule.add(name)

    def add(self, op: str, macs: int) -> None:
        if not self.listening:
            return
        self.total += macs
        self.by_op[op] += macs
        if self.modules is not None:
            self.by_module[innermost(self.modules)] += macs

    def count(self) -> Count:
        return Count(
            by_op=dict(self.by_op.most_common()),
            by_module=dict(self.by_module.most_common()),
            not_counted=tuple(sorted(self.without_rule)),
        )


class _BesideLayers(_Dispatched):
    """Also tells apart what runs while no layer's forward pass does, which hooks on layers do not see."""

    def __init__(self, rules: Mapping[Any, Formula]) -> None:
        super().__init__(rules)
        self.layers_running = 0
        self.beside: Counter[str] = Counter()

    def add(self, op: str, macs: int) -> None:
        super().add(op, macs)
        if not self.layers_running:
            self.beside[op] += macs


class _TracedWhole(TorchFunctionMode):
    """Counts attention, einsum and RMS norms as single operators, the way a traced graph shows them.

    Below this level they fall apart: attention into scalings and softmax, a permuting einsum into views, an
    RMS norm, for which torchprofile has no rule, into products and a mean.
    """

    def __init__(self, counted: _Dispatched) -> None:
        super().__init__()
        self.counted = counted
        self.scaled_queries = 0  # products of the queries with a scale, which a fused operator hides
        self.permuted = 0  # MACs given to einsums that multiply nothing

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            macs = math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
            self.counted.add("scaled_dot_product_attention", macs)
            if (kwargs or {}).get("scale") is None:
                self.scaled_queries += q.numel()
            return q.new_empty(*q.shape[:-1], v.shape[-1])
        if func in (F.rms_norm, torch.rms_norm):
            self.counted.without_rule.add("rms_norm")
            return torch.empty_like(args[0])
        if func is torch.einsum:
            equation, *operands = args
            sides: dict[str, int] = {}
            for letters, operand in zip(equation.partition("->")[0].split(","), operands, strict=True):
                sides.update(zip(letters.strip(), operand.shape, strict=True))
            with self.counted.unheard():
                out = func(*args, **(kwargs or {}))
            self.counted.add("einsum", math.prod(sides.values()))
            if math.prod(sides.values()) == out.numel():
                self.permuted += out.numel()
            return out
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    """What one training step of a model costs, the optimizer left out."""

    forward: Count
    train_macs: int  # forward and backward
    train_macs_checkpointed: int  # and every block of `bench.checkpointing` once more, in full


def inputs(task: Task, batch: int, device: str, width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C, H, W), t (N,) and y of one call; on the meta device without values.

    y are labels (N,), or float vectors (N, width) for a network that has a `condition_width`.
    """
    x = torch.randn(batch, task.in_channels, task.height, task.width, device=device)
    t = torch.randint(1000, (batch,), device=device)
    if width is None:
        return x, t, torch.randint(task.num_classes, (batch,), device=device)
    return x, t, torch.randn(batch, width, device=device)


def count_step(model: nn.Module, task: Task, batch: int = 1) -> Step:
    """Count a forward and a backward pass over meta tensors under torch's rules.

    x needs no gradient, as in training. Eval mode: what a model leaves out at random in training counts.

    Args:
        model: on the meta device.
        task: gives the shapes of the inputs.
        batch: images N; the MACs are those of all of them.
    """
    model.eval()
    x, t, y = inputs(task, batch, "meta", condition_width(model))
    counted = _Dispatched(TORCH_RULES)
    in_blocks = 0

    def enter(*_: object) -> None:
        nonlocal in_blocks
        in_blocks -= counted.total

    def leave(*_: object) -> None:
        nonlocal in_blocks
        in_blocks += counted.total

    hooks = [
        hook
        for block in blocks(model)
        for hook in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]
    try:
        with counted:
            out = model(x, t, y)
            forward = counted.count()
            out.backward(torch.empty_like(out))
    finally:
        for hook in hooks:
            hook.remove()
    return Step(
        forward=forward,
        train_macs=counted.total,
        train_macs_checkpointed=counted.total + in_blocks,
    )


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def _layer_macs(layer: nn.Module, x: Tensor, out: Tensor) -> int:
    """What a hook makes of a layer's shapes, biases left out."""
    if isinstance(layer, nn.Linear):
        return out.numel() * layer.in_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.modules.conv._ConvTransposeNd)
    kernel = math.prod(layer.kernel_size)
    if isinstance(layer, _TRANSPOSED):
        return x.numel() * (layer.out_channels // layer.groups) * kernel
    return out.numel() * (layer.in_channels // layer.groups) * kernel


@dataclass(frozen=True)
class SideBySide:
    """One forward pass under every counter that computes nothing."""

    counts: Mapping[str, Count]  # by counter
    permuted: int  # of torchprofile's: MACs given to einsums that multiply nothing
    beside_layers: Mapping[str, int]  # what hooks on layers do not see, by operator, under torch's rules


def count_side_by_side(model: nn.Module, task: Task, batch: int = 1) -> SideBySide:
    """Count a forward pass in eval mode, without gradients, in two passes over meta tensors.

    Args:
        model: on the meta device.
        task: gives the shapes of the inputs.
        batch: images N; the MACs are those of all of them.
    """
    model.eval()
    args = inputs(task, batch, "meta", condition_width(model))
    running = _BesideLayers(TORCH_RULES)
    by_layer: Counter[str] = Counter()

    def enter(*_: object) -> None:
        running.layers_running += 1

    def leave(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        running.layers_running -= 1
        by_layer[type(layer).__name__] += _layer_macs(layer, given[0], out)

    hooks = [
        hook
        for layer in model.modules()
        if isinstance(layer, _LAYERS)
        for hook in (layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave))
    ]
    try:
        with torch.no_grad(), running:
            model(*args)
    finally:
        for hook in hooks:
            hook.remove()
    counted = _Dispatched(TORCHPROFILE_RULES)
    whole = _TracedWhole(counted)
    with torch.no_grad(), counted, whole:
        model(*args)
    fused = counted.count()
    scaling = {"query_scaling": whole.scaled_queries} if whole.scaled_queries else {}
    plain = running.count()
    return SideBySide(
        counts={
            "torch": plain,
            "torchprofile-meta": fused,
            "torchprofile-unfused": Count(
                by_op={**fused.by_op, **scaling}, by_module={}, not_counted=fused.not_counted
            ),
            "module-hooks": Count(
                by_op=dict(by_layer.most_common()),
                by_module={},
                not_counted=tuple(sorted({*running.beside, *plain.not_counted})),
            ),
        },
        permuted=whole.permuted,
        beside_layers=dict(running.beside),
    )


def count_forward(
    model: nn.Module, task: Task, *, counter: str = "torch", batch: int = 1, by_module: bool = False
) -> Count:
    """Count a forward pass in eval mode, without gradients.

    Args:
        model: on the meta device, but on the CPU for the packages.
        task: gives the shapes of the inputs.
        counter: torch, torchprofile-meta, torchprofile-unfused, module-hooks, torchprofile or fvcore.
        batch: images N; the MACs are those of all of them.
        by_module: fill in Count.by_module too (slower; for torch and torchprofile-meta).

    Raises:
        ImportError: the package that a counter is is not installed.
    """
    model.eval()
    device = "cpu" if counter in ("torchprofile", "fvcore") else "meta"
    args = inputs(task, batch, device, condition_width(model))
    if counter == "torchprofile":
        return _count_torchprofile(model, args)
    if counter == "fvcore":
        return _count_fvcore(model, args)
    if counter in ("torchprofile-unfused", "module-hooks"):
        return count_side_by_side(model, task, batch).counts[counter]
    modules = ModuleTracker() if by_module else None
    counted = _Dispatched(TORCH_RULES if counter == "torch" else TORCHPROFILE_RULES, modules)
    whole = nullcontext() if counter == "torch" else _TracedWhole(counted)
    with torch.no_grad(), modules or nullcontext(), counted, whole:
        model(*args)
    return counted.count()


def _count_torchprofile(model: nn.Module, args: tuple[Tensor, ...]) -> Count:
    """Run the package; it warns of each operator that it has no rule for, once an occurrence."""
    from torchprofile import profile_macs

    by_op: Counter[str] = Counter()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counted = profile_macs(model, args, reduction=None)
        assert isinstance(counted, dict)  # without a reduction, MACs by node
        for node, macs in counted.items():
            by_op[node.operator.removeprefix("aten::")] += macs
    told = (re.match(r'No handlers found: "(?:aten::)?(\w+)"', str(warning.message)) for warning in caught)
    return Count(
        by_op={op: macs for op, macs in by_op.most_common() if macs},
        by_module={},
        not_counted=tuple(sorted({match[1] for match in told if match})),
    )


def _count_fvcore(model: nn.Module, args: tuple[Tensor, ...]) -> Count:
    """Run the package. Its "flops" are MACs, with some elementwise operators counted too."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports and traces through what torch calls deprecated
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, args)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_op = Counter({op: int(macs) for op, macs in analysis.by_operator().items()})
    skipped = {op.removeprefix("aten::") for op in analysis.unsupported_ops()}
    return Count(by_op=dict(by_op.most_common()), by_module={}, not_counted=tuple(sorted(skipped)))
