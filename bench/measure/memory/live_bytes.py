"""Live bytes of a computation: sizes of tensor storages while operators run over meta tensors.

Nothing is computed or allocated. A meta tensor has a size and is freed like any other, so the sum over live
storages follows the allocations on a device. Not counted: temporary memory within one operator (workspaces,
contiguous copies of inputs).
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

CUDA_BLOCK_BYTES = 512  # allocation unit of torch's CUDA caching allocator


class LiveBytes(TorchDispatchMode):
    """Context manager that tracks the storages of operators' inputs and outputs on one kind of device.

    Args:
        device: meta, or cpu to follow real tensors.
        block_bytes: storage sizes are rounded up to a multiple of this; 1 counts exact bytes.

    Attributes:
        live_bytes: of the current live storages.
        peak_bytes: maximum of live_bytes since `reset_peak`.
    """

    def __init__(self, device: str = "meta", block_bytes: int = 1) -> None:
        super().__init__()
        self.device = device
        self.block_bytes = block_bytes
        self.live_bytes = 0
        self.peak_bytes = 0
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        self.follow(args)
        out = func(*args, **(kwargs or {}))
        self.follow(out)
        return out

    def follow(self, values: object) -> None:
        """Count the storages of all tensors in nested values, each once for all its views."""
        for tensor in tree_iter(values):
            if not isinstance(tensor, Tensor) or tensor.device.type != self.device:
                continue
            storage = tensor.untyped_storage()
            key, taken = storage._cdata, self.rounded(storage.nbytes())
            if key in self._live:
                reference, known = self._live[key]
                if taken == known:
                    continue
            else:
                reference, known = weakref.ref(storage, self._forget(key)), 0
            self._live[key] = (reference, taken)
            self.live_bytes += taken - known
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def rounded(self, size: int) -> int:
        return -(-size // self.block_bytes) * self.block_bytes

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def _forget(self, key: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            self.live_bytes -= self._live.pop(key)[1]

        return forget
