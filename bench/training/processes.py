"""The processes that train one network: a single one, or the process group that torchrun starts.

Under torchrun (WORLD_SIZE above 1) accelerate starts the process
group: NCCL on CUDA, gloo on a CPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bench.machine import torchrun

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class Processes:
    """The processes of a training run, from the view of one process; by default it is the only one."""

    rank: int = 0
    count: int = 1

    def __init__(self, device: str) -> None:
        self.device = device

    def wrap(self, model: "nn.Module", all_used: bool) -> "nn.Module":
        """Average a model's gradients over the processes; `all_used`: every parameter has one."""
        return model

    def unsynchronised(self, wrapped: "nn.Module") -> AbstractContextManager[object]:
        """Context manager in which gradients accumulate in this process and are not averaged."""
        return nullcontext()

    def sum(self, values: "Tensor") -> "Tensor":
        """All-reduce: the sum of a tensor over the processes, on every process."""
        return values

    def gather(self, value: T) -> list[T]:
        """All-gather: the values of all processes in order of rank, on every process."""
        return [value]

    def broadcast(self, decide: Callable[[], T]) -> T:
        """Call a function on the first process, and return its result on every process."""
        return decide()

    def close(self) -> None:
        """Destroy the process group."""


class ProcessGroup(Processes):
    """The process group of torchrun's processes; each takes the CUDA device of its local rank."""

    def __init__(self, device_type: str) -> None:
        from accelerate import Accelerator

        # override a mixed precision from accelerate's config file or environment, which would change
        # results
        self._engine = Accelerator(cpu=device_type == "cpu", mixed_precision="no")
        super().__init__(str(self._engine.device))
        self.rank = self._engine.process_index
        self.count = self._engine.num_processes

    def wrap(self, model: "nn.Module", all_used: bool) -> "nn.Module":
        from accelerate import DistributedDataParallelKwargs

        self._engine.free_memory()  # drop accelerate's reference to the previous run's model
        self._engine.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=not all_used)
        return cast("nn.Module", self._engine.prepare_model(model))

    def unsynchronised(self, wrapped: "nn.Module") -> AbstractContextManager[object]:
        return cast(AbstractContextManager[object], self._engine.no_sync(wrapped))

    def sum(self, values: "Tensor") -> "Tensor":
        return cast("Tensor", self._engine.reduce(values, reduction="sum"))

    def gather(self, value: T) -> list[T]:
        import torch

        gathered: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(gathered, value)
        return cast(list[T], gathered)

    def broadcast(self, decide: Callable[[], T]) -> T:
        import torch

        decided: list[Any] = [decide() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(decided, src=0)
        return cast(T, decided[0])

    def close(self) -> None:
        import torch

        torch.distributed.destroy_process_group()


def join(device_type: str) -> Processes:
    """Join the process group of torchrun; without torchrun, return a single process."""
    return ProcessGroup(device_type) if torchrun.world_size() > 1 else Processes(device_type)
