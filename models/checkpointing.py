"""Activation checkpointing of any backbone, applied from outside the network."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils.checkpoint import checkpoint

_LISTS = (nn.ModuleList, nn.ModuleDict)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: the members of its outermost lists and dicts, nested ones flattened.

    FCDM's release checkpoints each of these.
    """
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, _LISTS) and not isinstance(child, _LISTS):
                found.append(child)
            else:
                walk(child)

    walk(model)
    return found


@contextmanager
def checkpointed(
    model: nn.Module, around_recomputation: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Context in which each of a model's `blocks` keeps only its inputs and is recomputed for gradients.

    Args:
        model: its blocks' `forward` is replaced, and restored at the end.
        around_recomputation: makes the context of a block's recomputation; autocast is restored by torch.
    """

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        if around_recomputation is nullcontext:  # torch.compile does not accept a context_fn
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
