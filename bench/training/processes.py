"""One process or several that train together: who is there, and what they must agree on.

Alone nothing but torch is needed. Under torchrun (WORLD_SIZE above 1) accelerate starts the process group:
NCCL on CUDA, gloo on a CPU. Imports no torch at the top.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class Processes(Protocol):
    """The processes of a training run, seen from one of them."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def device(self) -> str: ...

    def wrap(self, model: "nn.Module", all_used: bool) -> "nn.Module":
        """A model whose gradients are averaged over the processes.

        Args:
            model: on this process's device.
            all_used: every parameter gets a gradient in every pass.
        """

    def unsynchronised(self, wrapped: "nn.Module") -> AbstractContextManager[object]:
        """Within it gradients add up in this process and are not averaged."""

    def sum(self, values: "Tensor") -> "Tensor":
        """The sum over the processes of a tensor on their devices, for each of them."""

    def gather(self, value: T) -> list[T]:
        """What every process holds, in order of rank, for each of them."""

    def first(self, decide: Callable[[], T]) -> T:
        """What the first process decides, for each of them."""

    def close(self) -> None:
        """Take leave of the others."""


class Alone:
    """This process trains by itself."""

    rank = 0
    count = 1

    def __init__(self, device: str) -> None:
        self.device = device

    def wrap(self, model: "nn.Module", all_used: bool) -> "nn.Module":
        return model

    def unsynchronised(self, wrapped: "nn.Module") -> AbstractContextManager[object]:
        return nullcontext()

    def sum(self, values: "Tensor") -> "Tensor":
        return values

    def gather(self, value: T) -> list[T]:
        return [value]

    def first(self, decide: Callable[[], T]) -> T:
        return decide()

    def close(self) -> None:
        return


class Together:
    """This process is one of several that torchrun started.

    Args:
        kind: cpu or cuda; of CUDA devices each process takes that of its number on its machine.
    """

    def __init__(self, kind: str) -> None:
        from accelerate import Accelerator

        # accelerate's own settings, of a config file or an environment, would cast what is compared
        self._engine = Accelerator(cpu=kind == "cpu", mixed_precision="no")
        self.rank: int = self._engine.process_index
        self.count: int = self._engine.num_processes
        self.device = str(self._engine.device)

    def wrap(self, model: "nn.Module", all_used: bool) -> "nn.Module":
        from accelerate import DistributedDataParallelKwargs

        self._engine.free_memory()  # of the arm before, which the engine holds on to
        self._engine.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=not all_used)
        return cast("nn.Module", self._engine.prepare_model(model))

    def unsynchronised(self, wrapped: "nn.Module") -> AbstractContextManager[object]:
        return cast(AbstractContextManager[object], self._engine.no_sync(wrapped))

    def sum(self, values: "Tensor") -> "Tensor":
        return cast("Tensor", self._engine.reduce(values, reduction="sum"))

    def gather(self, value: T) -> list[T]:
        import torch

        held: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(held, value)
        return cast(list[T], held)

    def first(self, decide: Callable[[], T]) -> T:
        import torch

        decided: list[Any] = [decide() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(decided, src=0)
        return cast(T, decided[0])

    def close(self) -> None:
        import torch

        torch.distributed.destroy_process_group()


def expected() -> int:
    """How many processes torchrun has started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among those of torchrun; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number among those of torchrun on its machine; 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def why_not(count: int) -> str | None:
    """Say why so many processes cannot train together here; None where they can."""
    if count > 1 and importlib.util.find_spec("accelerate") is None:
        return (
            f"WORLD_SIZE {count}: several processes need accelerate, which is not installed here; "
            "pip install accelerate"
        )
    return None


def join(kind: str) -> Processes:
    """Meet the other processes, if there are others."""
    return Together(kind) if expected() > 1 else Alone(kind)
