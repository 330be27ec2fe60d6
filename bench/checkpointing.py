"""Activation checkpointing from outside: no backbone knows of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Within it, each of a model's `blocks` keeps only its inputs and is computed again for gradients."""

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: checkpoint(forward, *args, use_reentrant=False)

    with ExitStack() as stack:
        for block in blocks(model):
            stack.enter_context(patch.object(block, "forward", recomputing(block.forward)))
        yield
