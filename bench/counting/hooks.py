"""Functions called around the forward passes of modules."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def hooked(
    modules: Iterable[nn.Module],
    *,
    before: Callable[[nn.Module, Any], None] | None = None,
    after: Callable[[nn.Module, Any, Any], None] | None = None,
) -> Iterator[None]:
    """Context manager that calls before(module, inputs) and after(module, inputs, output)."""
    with ExitStack() as hooks:
        for module in modules:
            if before is not None:
                hooks.enter_context(module.register_forward_pre_hook(before))
            if after is not None:
                hooks.enter_context(module.register_forward_hook(after))
        yield
