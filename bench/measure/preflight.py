"""One uncompiled pass for one image before a case begins.

It raises where the chosen attention kernel is missing, or where the budget is far too short.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from bench.machine.failures import NoKernelError, OverBudgetError, first_line, out_of_memory

BUDGETS = 4  # a case that is predicted to take more of its budgets is not begun
ALWAYS_S = 10.0  # a case that is predicted to take less is begun whatever its budget
FIRST_PASS = 10  # times as long as later ones at most: kernels are chosen and memory is taken in it


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How long a case may take.

    Attributes:
        budget_s: of warm-up and samples.
        passes: made whatever the budget.
    """

    budget_s: float
    passes: int

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
    """Predict from a pass for one image whether the passes that a case needs at least end in time.

    The prediction is an upper bound as a rule, as larger batches use a CPU better. A pass that takes too long
    is broken off at the next module, so that the answer does not take long either. The first pass may take
    longer than later ones, and is then repeated.

    Args:
        model: that `one_image` calls.
        one_image: a forward pass for one image; it returns when it has finished.
        allowance: of the case.
        images: forward passes for one image that take as long as one pass of the case.
        clock: in seconds.

    Raises:
        OverBudgetError: they would take longer than allowed.
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
    """A pass is broken off."""


def _seconds(
    model: nn.Module, call: Callable[[], object], limit_s: float, clock: Callable[[], float]
) -> float | None:
    """Seconds of a call of a model; None if they were more than the limit."""

    def check(*_: object) -> None:
        if clock() - begin > limit_s:
            raise _TooLongError

    handles = [module.register_forward_pre_hook(check) for module in model.modules()]
    begin = clock()
    try:
        call()
        check()
    except _TooLongError:
        return None
    finally:
        for handle in handles:
            handle.remove()
    return clock() - begin


class NamesMissingKernel(TorchFunctionMode):
    """Within it, scaled_dot_product_attention raises NoKernelError if the chosen kernel is missing.

    torch raises a plain RuntimeError for that. At this one call the only other ones are failed allocations.
    """

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise NoKernelError(first_line(error)) from error
