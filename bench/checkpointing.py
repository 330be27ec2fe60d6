"""Activation checkpointing from outside: no backbone knows of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: the members of its nn.ModuleLists, the outermost where they nest.

    FCDM's release checkpoints each of these; none of the other three releases checkpoints anything.
    """
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
                found.append(child)
            else:
                walk(child)

    walk(model)
    return found


@contextmanager
def checkpointed(
    model: nn.Module, around_recomputation: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Within it, each of a model's `blocks` keeps only its inputs and is computed again for gradients.

    Args:
        model: its blocks are changed, and changed back.
        around_recomputation: makes what a block's second computation runs in; torch's own autocast is
            restored without it.
    """

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        if around_recomputation is nullcontext:  # torch.compile takes no context_fn of ours
            return lambda *args: checkpoint(forward, *args, use_reentrant=False)
        return lambda *args: checkpoint(
            forward,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), around_recomputation()),
        )

    with ExitStack() as stack:
        for block in blocks(model):
            stack.enter_context(patch.object(block, "forward", recomputing(block.forward)))
        yield
