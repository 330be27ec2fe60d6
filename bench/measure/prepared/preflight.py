"""Check before a case by one uncompiled pass for one image.

The check raises if the chosen attention kernel is missing or the budget is far too short.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from bench.counting.hooks import hooked
from bench.machine.failures import NoKernelError, OverBudgetError, first_line, out_of_memory

BUDGETS = 4  # a case with a longer predicted time, in budgets, does not start
ALWAYS_S = 10.0  # a case with a shorter predicted time starts whatever its budget
FIRST_PASS = 10  # upper bound of first pass / later passes: the first selects kernels and allocates memory


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Time limit of a case."""

    budget_s: float  # of warm-up and samples
    passes: int  # minimum number, whatever the budget

    @property
    def limit_s(self) -> float:
        return max(ALWAYS_S, BUDGETS * self.budget_s)


def check_budget(
    model: nn.Module,
    one_image: Callable[[], object],
    allowance: Allowance,
    *,
    images: float,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Predict from a pass for one image whether the minimum passes of a case fit its time limit.

    The prediction is usually an upper bound, as larger batches use a CPU better. A pass that takes too long
    is aborted at the next module. A slow first pass is repeated.

    Args:
        one_image: runs a forward pass for one image and returns when it has finished.
        images: one pass of the case takes as long as this number of passes for one image.

    Raises:
        OverBudgetError: the predicted time exceeds the limit.
    """
    each_s = allowance.limit_s / (allowance.passes * images)
    first_s = _seconds(model, one_image, FIRST_PASS * each_s, clock)
    if first_s is not None and first_s <= each_s:
        return
    if first_s is None or _seconds(model, one_image, each_s, clock) is None:
        raise OverBudgetError(
            f"a pass for one image takes more than {each_s:.2g} s: {allowance.passes} passes, the least, "
            f"would take more than {allowance.limit_s:g} s in a budget of {allowance.budget_s:g} s; a "
            "smaller batch or a longer budget would work"
        )


class _TooLongError(Exception):
    """A pass is aborted."""


def _seconds(
    model: nn.Module, call: Callable[[], object], limit_s: float, clock: Callable[[], float]
) -> float | None:
    """Seconds of a call of a model; None above the limit."""

    def check(*_: object) -> None:
        if clock() - begin > limit_s:
            raise _TooLongError

    begin = clock()
    try:
        with hooked(model.modules(), before=check):
            call()
        check()
    except _TooLongError:
        return None
    return clock() - begin


class NamesMissingKernel(TorchFunctionMode):
    """Context manager in which a missing attention kernel, a plain RuntimeError, is NoKernelError."""

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise NoKernelError(first_line(error)) from error
