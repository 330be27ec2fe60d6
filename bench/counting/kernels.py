"""Kernels of an eager pass on CUDA, from meta tensors: the kind, MACs, bytes and module of each.

Rules of counting and of ideal fusion: docs/roofline.md
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from bench.counting.cuda_dispatch import CudaRules
from bench.counting.dispatch import CachedDispatch
from bench.counting.paths import RunningModules, folded_paths
from bench.counting.rules import TORCH_RULES, names, rule_of
from bench.machine import device
from bench.records.operators import OperatorCost
from models.contract import condition_width, make_inputs, require_meta
from models.task import Task

Shape = Sequence[int]


# operators without a kernel
_FREE = names(
    "_unsafe_view empty empty_like empty_strided empty_permuted new_empty new_empty_strided lift_fresh "
    "resize_ set_"
)
_CONVOLUTIONS = names("convolution convolution_backward")
_MATRICES = names("mm addmm mv addmv")
_BATCHES = names("bmm baddbmm")
_SCANS = names("gla gla_fla gla_backward selective_scan selective_scan_backward selective_scan_mamba_ssm")
_ATTENTION = ("_scaled_dot_product_", "neighbourhood_attention", "_softmax", "_safe_softmax")
_NORMS = (
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "_fused_rms_norm",
    "linalg_vector_norm",
)
_MOVEMENTS = names(
    "clone copy copy_ _to_copy cat stack pixel_shuffle pixel_unshuffle constant_pad_nd index index_select "
    "gather scatter scatter_add index_put index_put_ _index_put_impl_ flip roll repeat embedding "
    "embedding_dense_backward slice_backward select_backward slice_scatter select_scatter fill fill_ zero_ "
    "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full arange upsample_nearest2d "
    "upsample_nearest2d_backward"
)
_GATHERS = names("embedding index index_select gather")  # read as many bytes as they write, plus the indices
_OVERWRITES = names("copy_ fill_ zero_")  # do not read their output


def kind_of(op: str, weight: Shape = (), channels: int = 0) -> str:
    """The kind of an operator, of bench.analysis.rooflines.roofline.KINDS; convolutions by their weight."""
    if op in _CONVOLUTIONS:
        if weight[1] == 1 and channels > 1:
            return "depthwise"
        return "pointwise" if weight[1] == channels and math.prod(weight[2:]) == 1 else "convolution"
    if op.removesuffix("_") in _MATRICES:
        return "linear"
    if op.removesuffix("_") in _BATCHES or op.startswith(_ATTENTION):
        return "attention"
    if op in _SCANS:
        return "scan"
    if op.startswith(_NORMS):
        return "norm"
    return "movement" if op in _MOVEMENTS else "elementwise"


def size_bytes(x: Tensor) -> int:
    """Bytes of a tensor's distinct elements; an expanded dimension counts once."""
    return _elements(x) * x.element_size()


def _elements(x: Tensor) -> int:
    return math.prod(side for side, stride in zip(x.shape, x.stride(), strict=True) if stride)


def _tensors(value: object) -> list[Tensor]:
    return [x for x in tree_iter(value) if isinstance(x, Tensor) and x.is_meta]


@dataclass(frozen=True)
class _Call:
    """Costs of one call, from shapes and types alone."""

    kind: str
    calls: int
    macs: int
    eager_bytes: int
    own_bytes: int | None  # of a product under ideal fusion, without fused calls; None: not a product


@dataclass
class _Recorded:
    """A recorded call with its bytes under ideal fusion, which grow when later calls are fused into it."""

    call: _Call
    kind: str
    op: str
    module: str
    phase: str
    fused_bytes: int
    read: set[int]  # numbers of earlier tensors read by calls fused into this one


class _Trace(CachedDispatch):
    """Records every kernel that an eager pass would start on CUDA.

    Attributes:
        calls: recorded calls, in order.
        phase: of the next calls: forward or backward.
    """

    def __init__(self, modules: RunningModules, linear: frozenset[str]) -> None:
        super().__init__()
        self.calls: list[_Recorded] = []
        self.phase = "forward"
        self._modules = modules
        self._linear = linear  # paths of linear layers: batched products in them are not attention
        # by storage: number of its content, and the product that made it or into which it is fused
        self._contents: dict[int, tuple[int, int | None]] = {}
        self._numbers = 0

    def describe(self, func: Any, args: Any, keywords: Any, out: Any) -> _Call | None:  # noqa: ANN401
        name = func._overloadpacket.__name__
        if name in _FREE:
            return None
        rule = rule_of(func, TORCH_RULES)
        macs = 0 if rule is None else rule(*args, **keywords, out_val=out)
        inputs = _tensors((args, keywords))
        if name == "convolution":
            kind = kind_of(name, args[1].shape, args[0].shape[1])
        elif name == "convolution_backward":
            kind = kind_of(name, args[2].shape, args[1].shape[1])
            return _convolution_backward(kind, macs, args, out)
        else:
            kind = kind_of(name)
        if name in _GATHERS:
            read = size_bytes(out) + sum(map(size_bytes, inputs[1:]))
        elif name in _OVERWRITES:
            read = sum(map(size_bytes, inputs[1:]))
        else:
            read = sum(map(size_bytes, inputs))
        fused_attention = name.startswith("_scaled_dot_product_") and not name.endswith("backward")
        written = size_bytes(out[0]) if fused_attention else sum(map(size_bytes, _tensors(out)))
        calls = 1
        if name.startswith("native_layer_norm") and not inputs[0].is_contiguous():
            # the kernel needs contiguous rows and copies others first
            calls, read, written = 2, read + size_bytes(inputs[0]), written + size_bytes(inputs[0])
        moved = read + written
        if name == "convolution" and args[2] is not None and kind != "depthwise":
            # cuDNN's convolutions have no bias: torch adds it to the output
            return _Call(kind, 2, macs, moved + 2 * size_bytes(out), moved)
        if name == "native_group_norm":  # reads the input twice: statistics and normalisation
            return _Call(kind, 2, macs, moved + size_bytes(inputs[0]), None)
        return _Call(kind, calls, macs, moved, None if rule is None else moved)

    def record(self, func: Any, args: Any, out: Any, description: _Call | None) -> None:  # noqa: ANN401
        name = func._overloadpacket.__name__
        inputs = _tensors(args)
        if description is None:
            if name == "_unsafe_view":
                self._contents[out.untyped_storage()._cdata] = self._state(inputs[0])
            return
        kind, module = description.kind, self._modules.calling(self.phase)
        if name.removesuffix("_") in _BATCHES and module in self._linear:
            kind = "linear"
        own = description.own_bytes
        self.calls.append(_Recorded(description, kind, name, module, self.phase, own or 0, set()))
        carrier = self._fuse(kind, inputs) if own is None else len(self.calls) - 1
        for tensor in _tensors(out):
            self._set_state(tensor, carrier)

    def _fuse(self, kind: str, inputs: Sequence[Tensor]) -> int | None:
        """Find the product into which a call is fused; add the call's other inputs to its bytes."""
        states = [self._state(tensor) for tensor in inputs]
        carriers = [
            (_elements(tensor), carrier)
            for tensor, (_, carrier) in zip(inputs, states, strict=True)
            if carrier is not None
        ]
        if not carriers:
            return None
        _, chosen = max(carriers)
        if kind != "movement":
            product = self.calls[chosen]
            for tensor, (number, carrier) in zip(inputs, states, strict=True):
                if carrier != chosen and number not in product.read:
                    product.read.add(number)
                    product.fused_bytes += size_bytes(tensor)
        return chosen

    def _state(self, tensor: Tensor) -> tuple[int, int | None]:
        """Number of a storage's content, and the product that made it."""
        key = tensor.untyped_storage()._cdata
        if key not in self._contents:  # a parameter or an input outlives the pass: its key is not reused
            self._set_state(tensor, None)
        return self._contents[key]

    def _set_state(self, tensor: Tensor, carrier: int | None) -> None:
        self._contents[tensor.untyped_storage()._cdata] = (self._numbers, carrier)
        self._numbers += 1


def _convolution_backward(kind: str, macs: int, args: tuple[Any, ...], out: Sequence[Tensor | None]) -> _Call:
    """One kernel for each requested gradient; each reads the gradient of the output."""
    grad, x, weight = map(size_bytes, args[:3])
    to_x, to_weight, to_bias = (0 if tensor is None else size_bytes(tensor) for tensor in out)
    mask = args[-1]
    of_products = mask[0] * (grad + weight + to_x) + mask[1] * (grad + x + to_weight)
    return _Call(kind, sum(mask), macs, of_products + mask[2] * (grad + to_bias), of_products + to_bias)


def trace(model: nn.Module, task: Task, batch: int, precision: str, work: str) -> tuple[OperatorCost, ...]:
    """Trace a pass; returns its operators, ordered by eager bytes, largest first.

    Args:
        precision: of weights and x in inference; in training bf16 and fp16 are torch.autocast.
        work: inference, or training: forward and backward, without the gradient of x.

    Raises:
        ValueError: the model cannot be on the meta device.
    """
    require_meta(model)
    dtype = device.DTYPES[precision]
    training = work == "training"
    if training:
        model = deepcopy(model)  # the copy gets the gradients
    elif dtype != torch.float32:
        model = deepcopy(model).to(dtype)
    model.eval()
    x, t, y = make_inputs(task, batch, "meta", condition_width(model))
    if not training:
        x = x.to(dtype)
    modules = RunningModules(model)
    paths = folded_paths(model)
    linear = frozenset(paths[name] for name, part in model.named_modules() if isinstance(part, nn.Linear))
    calls = _Trace(modules, linear)
    rules = CudaRules(dtype if training and dtype != torch.float32 else None)
    with modules, calls, nullcontext() if training else torch.no_grad():
        with rules:
            out = model(x, t, y)
        if training:
            calls.phase = "backward"
            out.backward(torch.empty_like(out))
    return _parts(calls.calls)


def _parts(calls: Sequence[_Recorded]) -> tuple[OperatorCost, ...]:
    sums: dict[tuple[object, ...], OperatorCost] = {}
    for m in calls:
        cost = OperatorCost(
            kind=m.kind,
            op=m.op,
            module=m.module,
            phase=m.phase,
            calls=m.call.calls,
            macs=m.call.macs,
            eager_bytes=m.call.eager_bytes,
            fused_bytes=m.fused_bytes,
        )
        # of bytes alone the sum has the floor of its parts; products of several sizes stay separate
        key = (m.kind, m.op, m.module, m.phase, cost if cost.macs else None)
        sums[key] = _sum(sums[key], cost) if key in sums else cost
    return tuple(sorted(sums.values(), key=lambda part: -part.eager_bytes))


def _sum(one: OperatorCost, other: OperatorCost) -> OperatorCost:
    names = ("calls", "macs", "eager_bytes", "fused_bytes")
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in names})
