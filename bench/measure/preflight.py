"""One uncompiled pass for one image before a case begins: is its attention kernel there, is its budget enough?"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from bench.machine.failures import NoKernelError, OverBudgetError, first_line, out_of_memory

BUDGETS = 4  # a case that is predicted to take more of its budgets is not begun
ALWAYS_S = 10.0  # a case that is predicted to take less is begun whatever its budget


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How long a case may take.

    Attributes:
        budget_s: of warm-up and samples.
        passes: that are made whatever the budget.
    """

    budget_s: float
    passes: int

    @property
    def limit_s(self) -> float:
        return max(ALWAYS_S, BUDGETS * self.budget_s)


def check_budget(one_image: Callable[[], object], allowance: Allowance, *, images: float) -> None:
    """Predict the passes that a case needs at least from the time of one image.

    The prediction is an upper bound as a rule, as larger batches use a CPU better. A first pass takes longer
    than later ones, so one that seems too long is repeated.

    Args:
        one_image: a forward pass for one image; it returns when it has finished.
        allowance: of the case.
        images: forward passes for one image that take as long as one pass of the case.

    Raises:
        OverBudgetError: they would take longer than allowed.
    """
    seconds = _seconds(one_image)
    if seconds * images * allowance.passes > allowance.limit_s:
        seconds = min(seconds, _seconds(one_image))
    pass_s = seconds * images
    if pass_s * allowance.passes > allowance.limit_s:
        raise OverBudgetError(
            f"predicted: {allowance.passes} passes or more of {pass_s:.3g} s each, from {seconds:.3g} s for one "
            f"image, in a budget of {allowance.budget_s:g} s (limit: {allowance.limit_s:g} s); a smaller batch "
            "or a longer budget would work"
        )


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class NamesMissingKernel(TorchFunctionMode):
    """Within it, scaled_dot_product_attention raises NoKernelError where the chosen kernel takes no such tensors.

    torch raises a plain RuntimeError for it, which at this one call means nothing else but failed allocations.
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
