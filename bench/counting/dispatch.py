"""Context managers that count every operator that torch dispatches.

Networks repeat their blocks, so the result of an operator is computed once for each signature of its inputs,
also where several passes count it.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.counting.paths import RunningModules
from bench.counting.rules import Rule, attention_macs, rule_of

# operators without arithmetic, which are not listed as uncounted
_WITHOUT_ARITHMETIC = (
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
    "fill_",
    "zero_",
    "set_",
    "resize_",
)

_RESULTS: dict[Any, Any] = {}  # signature -> result on the meta device, of all passes in this process
_MOST_RESULTS = 20_000  # some 20 MB; all are dropped beyond


@dataclass(frozen=True)
class Count:
    """MACs of one pass, by operator and by module."""

    by_op: Mapping[str, int]
    by_module: Mapping[str, int]  # by the innermost module, as of `folded_paths`; empty if not requested
    not_counted: tuple[str, ...]  # operators without a rule, except views and constructors

    @property
    def macs(self) -> int:
        return sum(self.by_op.values())


def _signature(value: Any) -> Any:  # noqa: ANN401 - operators take anything
    """Hashable form of what determines an operator's result on meta. TypeError: values, or another type."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError("a tensor with values")
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    hash(value)
    return (type(value), value)


def _like(out: Any) -> Any:  # noqa: ANN401
    """New tensors with the shapes and types of a result."""
    if isinstance(out, Tensor):
        return torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device="meta")
    if isinstance(out, list | tuple):
        return type(out)(map(_like, out))
    return out


def _is_meta(out: Any) -> bool:  # noqa: ANN401
    """Whether a result has no values: operators without inputs, such as arange, make real tensors too."""
    if isinstance(out, list | tuple):
        return all(map(_is_meta, out))
    return not isinstance(out, Tensor) or out.is_meta


class CachedDispatch(TorchDispatchMode, ABC):
    """Context manager that describes every dispatched operator, once for each signature.

    Most of torch's shape functions are slow Python: for a known signature the result is copied from the
    earlier one without calling the operator. Views are not described.
    """

    def __init__(self) -> None:
        super().__init__()
        self._descriptions: dict[Any, Any] = {}  # by signature

    @abstractmethod
    def describe(self, func: Any, args: Any, keywords: Any, out: Any) -> Any:  # noqa: ANN401 - of operators
        """Describe an operator by the shapes and types of its inputs and outputs."""

    @abstractmethod
    def record(self, func: Any, args: Any, out: Any, description: Any) -> None:  # noqa: ANN401
        """Record one call; `description` is what `describe` returned for its signature."""

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        keywords = kwargs or {}
        if torch.is_inference_mode_enabled():  # composite operators arrive whole: conv2d, linear, attention
            with self:
                out = func.decompose(*args, **keywords)
            if out is not NotImplemented:
                return out
        if func.is_view:
            return func(*args, **keywords)
        signature = None
        if not func._schema.is_mutable:
            with suppress(TypeError):
                given = _signature(args), _signature(tuple(keywords.items()))
                signature = (func, torch.get_default_dtype(), given)
        if signature in _RESULTS:
            out = _like(_RESULTS[signature])
        else:
            out = func(*args, **keywords)
            if signature is not None and _is_meta(out):
                if len(_RESULTS) == _MOST_RESULTS:
                    _RESULTS.clear()
                _RESULTS[signature] = _like(out)
        if signature in self._descriptions:
            description = self._descriptions[signature]
        else:
            description = self.describe(func, args, keywords, out)
            if signature is not None:
                self._descriptions[signature] = description
        self.record(func, args, out, description)
        return out


class CountingMode(CachedDispatch):
    """Context manager that applies rules to every dispatched operator and sums MACs."""

    def __init__(self, rules: Mapping[Any, Rule], modules: RunningModules | None = None) -> None:
        super().__init__()
        self.rules = rules
        self.total = 0
        self.by_op: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self.without_rule: set[str] = set()
        self.recomputed = 0  # MACs of the forward pass that a network runs again in its backward pass
        self._modules = modules
        self._is_backward = False

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Context manager of a backward pass: what runs in it with gradients enabled is recomputed."""
        self._is_backward = True
        try:
            yield
        finally:
            self._is_backward = False

    def describe(self, func: Any, args: Any, keywords: Any, out: Any) -> int | None:  # noqa: ANN401
        """MACs; None without a rule."""
        rule = rule_of(func, self.rules)
        return None if rule is None else rule(*args, **keywords, out_val=out)

    def record(self, func: Any, args: Any, out: Any, description: int | None) -> None:  # noqa: ANN401
        name = func._overloadpacket.__name__
        if description is not None:
            self.add(name.removesuffix("_"), description)
        elif not name.startswith(_WITHOUT_ARITHMETIC):
            self.without_rule.add(name)

    def add(self, op: str, macs: int) -> None:
        if self._is_backward and torch.is_grad_enabled():
            self.recomputed += macs
            return
        self.total += macs
        self.by_op[op] += macs
        if self._modules is not None:
            self.by_module[self._modules.calling("forward")] += macs

    def count(self) -> Count:
        return Count(
            by_op=dict(self.by_op.most_common()),
            by_module=dict(self.by_module.most_common()),
            not_counted=tuple(sorted(self.without_rule)),
        )


class OutsideLayers(CountingMode):
    """CountingMode that also sums MACs outside the forward passes of layers, invisible to hooks on layers."""

    def __init__(self, rules: Mapping[Any, Rule]) -> None:
        super().__init__(rules)
        self.layers_running = 0
        self.outside: Counter[str] = Counter()

    def add(self, op: str, macs: int) -> None:
        super().add(op, macs)
        if not self.layers_running:
            self.outside[op] += macs


class WholeOperators(TorchFunctionMode):
    """Context manager that counts attention, einsum and RMS norm each as one operator, as in traced graphs.

    Below this level attention becomes scalings and softmax, a permuting einsum becomes views, and an RMS
    norm, for which torchprofile has no rule, becomes products and a mean.
    """

    def __init__(self, counting: CountingMode) -> None:
        super().__init__()
        self.counting = counting
        self.scaled_queries = 0  # products of the queries with a scale, inside a fused operator
        self.permuted = 0  # MACs of einsums that only permute

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        keywords = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            self.counting.add("scaled_dot_product_attention", attention_macs(q, k, v))
            if keywords.get("scale") is None:
                self.scaled_queries += q.numel()
            return q.new_empty(*q.shape[:-1], v.shape[-1])
        if func in (F.rms_norm, torch.rms_norm):
            self.counting.without_rule.add("rms_norm")
            return torch.empty_like(args[0])
        if func is torch.einsum:
            return self._einsum(*args)
        return func(*args, **keywords)

    def _einsum(self, equation: str, *operands: Tensor) -> Tensor:
        given, arrow, letters = equation.replace(" ", "").partition("->")
        sides: dict[str, int] = {}
        for of_one, operand in zip(given.split(","), operands, strict=True):
            sides.update(zip(of_one, operand.shape, strict=True))
        if not arrow:
            letters = "".join(sorted(letter for letter in sides if given.count(letter) == 1))
        out = operands[0].new_empty([sides[letter] for letter in letters])
        macs = math.prod(sides.values())
        self.counting.add("einsum", macs)
        if macs == out.numel():
            self.permuted += macs
        return out
