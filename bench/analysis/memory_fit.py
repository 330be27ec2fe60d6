"""Memory as a line over the batch: the fit, the largest batch for a size of device, the paper's claims.

Imports no torch. GiB are 2**30 bytes; what makers call GB on a GPU are GiB.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.records.record import Memory, MemoryUse, Size

GIB = 2**30
MIB = 2**20
MIN_BATCHES = 3  # for a fit that can disagree with a line
RESERVE_BYTES = GIB  # of a device's nominal size: the driver's share and the CUDA context, about half each
BENT = 0.01  # of the largest peak: a residual that a line should not have
MOST = 2**20  # no search looks for larger batches

_UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What must hold a model."""

    name: str
    capacity_bytes: int
    reserve_bytes: int

    @property
    def usable_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.reserve_bytes)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Peak of the passes = fixed_bytes + per_image_bytes * batch; the update needs the same for any batch."""

    fixed_bytes: float
    per_image_bytes: float
    residual_bytes: float  # the largest distance of a point from the line
    update_peak_bytes: int | None  # None for inference
    batches: tuple[int, ...]

    def peak_bytes(self, batch: int) -> float:
        return max(self.fixed_bytes + self.per_image_bytes * batch, self.update_peak_bytes or 0)

    @property
    def bent(self) -> bool:
        """The points are no line: at small batches the peak is reached elsewhere."""
        return self.residual_bytes > BENT * self.peak_bytes(max(self.batches))

    def max_batch(self, usable_bytes: int) -> int:
        """The largest batch whose peak is usable; 0 if not even one image's is."""
        if self.peak_bytes(1) > usable_bytes:
            return 0
        if self.per_image_bytes <= 0:
            return MOST
        return min(MOST, int((usable_bytes - self.fixed_bytes) // self.per_image_bytes))


def fit(memories: Iterable[Memory]) -> Fit | None:
    """Least squares over the cases of one model and setting; None with fewer than three batches known.

    With small batches a checkpointed step may peak at the end of its backward pass, when the gradients are
    there, and with large ones at the beginning. Where three batches or more peak like the largest, only
    these make the line.
    """
    known = {memory.run.batch: memory.use for memory in memories if memory.use is not None}
    if len(known) < MIN_BATCHES:
        return None
    alike = {batch for batch, use in known.items() if _late(use) == _late(known[max(known)])}
    batches = sorted(alike if len(alike) >= MIN_BATCHES else known)
    peaks = [known[batch].passes_peak_bytes for batch in batches]
    slope, intercept = statistics.linear_regression(batches, peaks)
    line = [intercept + slope * batch for batch in batches]
    updates = [use.update_peak_bytes for use in known.values() if use.update_peak_bytes is not None]
    return Fit(
        fixed_bytes=intercept,
        per_image_bytes=slope,
        residual_bytes=max(abs(peak - at) for peak, at in zip(peaks, line, strict=True)),
        update_peak_bytes=max(updates, default=None),
        batches=tuple(batches),
    )


def _late(use: MemoryUse) -> bool:
    """Most gradients are there at the peak of the passes."""
    return 2 * use.passes_gradients_bytes > use.gradients_bytes


def largest(holds: Callable[[int], bool], guess: int) -> int:
    """The batch that holds while the next does not: two questions if the guess is right.

    Args:
        holds: says whether a batch fits; true up to some batch, then false.
        guess: where to begin.

    Returns:
        From 0, where not even one image fits, to MOST.
    """
    low, high, step = max(0, min(guess, MOST)), 0, 1
    if low == 0 or holds(low):
        high = low + step
        while high <= MOST and holds(high):
            low, step = high, 2 * step
            high = low + step
        high = min(high, MOST + 1)
    else:
        low, high = low - step, low
        while low > 0 and not holds(low):
            high, step = low, 2 * step
            low = high - step
        low = max(low, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def device(text: str, reserve_bytes: int = RESERVE_BYTES) -> Device:
    """A GPU of baselines/gpus.csv by its name there, or a part that says which, or a size such as 24GiB.

    Raises:
        ValueError: neither, with the nearest names.
    """
    size = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", text)
    if size:
        capacity = int(float(size[1]) * _UNITS[size[2]])
        if capacity <= reserve_bytes:
            raise ValueError(f"{text}: nothing is left of it after a reserve of {reserve_bytes / GIB:g} GiB")
        return Device(name=text, capacity_bytes=capacity, reserve_bytes=reserve_bytes)
    from baselines import load

    try:
        gpu = load.gpu(text)
    except ValueError as error:
        raise ValueError(f"{error}; a size such as 24GiB would work too") from error
    return Device(name=gpu.gpu, capacity_bytes=int(gpu.mem_gb * GIB), reserve_bytes=reserve_bytes)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says a model can be trained on."""

    id: str  # in baselines/claims.csv
    source: str
    text: str
    model: str
    res: Size
    batch: int  # on each GPU
    gpus: int
    gpu: str  # as baselines/gpus.csv names it


CLAIMS = (
    Claim(
        id="fcdm-memory-40",
        source="FCDM, training at 256 px",
        text="batch 256 on one A100 40 GB",
        model="FCDM-XL",
        res=256,
        batch=256,
        gpus=1,
        gpu="A100 PCIe 40GB",
    ),
    Claim(
        id="fcdm-memory-24",
        source="FCDM, training at 256 px",
        text="batch 256 on 4 x RTX 4090 24 GB, 64 each",
        model="FCDM-XL",
        res=256,
        batch=64,
        gpus=4,
        gpu="RTX 4090",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a claim's case fits, with what averaging gradients across GPUs adds."""

    claim: Claim
    device: Device
    memory: Memory

    @property
    def buckets_bytes(self) -> int | None:
        """DistributedDataParallel's buckets: a second copy of the gradients, there all the time."""
        if self.memory.use is None:
            return None
        return self.memory.use.gradients_bytes if self.claim.gpus > 1 else 0

    @property
    def needed_bytes(self) -> int | None:
        if self.memory.use is None or self.buckets_bytes is None:
            return None
        return self.memory.use.peak_bytes + self.buckets_bytes

    @property
    def margin_bytes(self) -> int | None:
        """What is left of the usable memory; below zero, what is missing."""
        return None if self.needed_bytes is None else self.device.usable_bytes - self.needed_bytes

    @property
    def text(self) -> str:
        if self.margin_bytes is None:
            return "does not fit" if self.memory.status == "out of memory" else self.memory.status
        return "fits" if self.margin_bytes >= 0 else "does not fit"


def verdicts(memories: Sequence[Memory], reserve_bytes: int = RESERVE_BYTES) -> list[Verdict]:
    """Judge every claim by the cases there are of it, in both kinds of checkpointing and any precision.

    A case that was held to another size than the claim's says nothing about it.
    """
    found = []
    for claim in CLAIMS:
        on = device(claim.gpu, reserve_bytes)
        for memory in memories:
            run = memory.run
            same = (run.model, run.res, run.batch) == (claim.model, claim.res, claim.batch)
            if same and memory.work == "training" and memory.limit_bytes in (None, on.usable_bytes):
                found.append(Verdict(claim=claim, device=on, memory=memory))
    return found
