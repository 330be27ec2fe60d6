"""How many bytes would a computation hold? Counts live storages while operators run over meta tensors.

Nothing is computed and nothing allocated: a meta tensor knows its size and dies like any other, so the
sum over those alive follows what a device's allocator would hand out. Not seen: what a kernel takes and
gives back within one operator (workspaces, copies to make an input contiguous).
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA_BLOCK_BYTES = 512  # torch's caching allocator on CUDA counts every allocation in these


class Footprint(TorchDispatchMode):
    """Within it, follows the storages that operators take and make on one kind of device.

    Args:
        device: meta, or cpu to follow what is really there.
        block_bytes: every storage counts as a multiple of this; 1 counts bytes as they are.

    Attributes:
        live_bytes: of the storages alive now.
        peak_bytes: the most that were alive at once since `reset_peak`.
    """

    def __init__(self, device: str = "meta", block_bytes: int = 1) -> None:
        super().__init__()
        self.device = device
        self.block_bytes = block_bytes
        self.live_bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - the dispatcher's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self.follow(_tensors(args))
        out = func(*args, **(kwargs or {}))
        self.follow(_tensors(out))
        return out

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of tensors, each once however many views of it there are."""
        for tensor in tensors:
            if tensor.device.type != self.device:
                continue
            storage = tensor.untyped_storage()
            key, taken = storage._cdata, self.rounded(storage.nbytes())
            if key in self._alive:
                reference, known = self._alive[key]
                if taken == known:
                    continue
            else:
                reference, known = weakref.ref(storage, self._forget(key)), 0
            self._alive[key] = (reference, taken)
            self.live_bytes += taken - known
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def rounded(self, size: int) -> int:
        return -(-size // self.block_bytes) * self.block_bytes

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def _forget(self, key: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            self.live_bytes -= self._alive.pop(key)[1]

        return forget


@dataclass(frozen=True)
class Moment:
    """Where a computation stands: its phase, and the bytes of the gradients that are there by now."""

    phase: str
    gradients_bytes: int


class PeakWatch:
    """Finds out when a peak was reached by reading it between the phases of a computation.

    Args:
        read_peak: gives the highest figure so far, as an allocator or a Footprint keeps it.
    """

    def __init__(self, read_peak: Callable[[], int]) -> None:
        self.read_peak = read_peak
        self.peak_bytes = 0
        self.now = self.peak_at = Moment("before", 0)

    def begin(self, phase: str, gradients_bytes: int) -> None:
        """Say what begins now; a peak that has risen was reached in what ends here."""
        peak = self.read_peak()
        if peak > self.peak_bytes:
            self.peak_bytes, self.peak_at = peak, self.now
        self.now = Moment(phase, gradients_bytes)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
