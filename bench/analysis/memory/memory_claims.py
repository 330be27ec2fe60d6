"""The papers' claims that a model can be trained in the memory of certain GPUs, and their verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.memory import memory_fit
from bench.records import columns, memory
from bench.records.base import Record, Size, Skipped
from bench.records.memory import Memory, MemoryCase
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's claim that a model can be trained on certain GPUs."""

    id: str  # in baselines/claims.csv
    source: str = "FCDM, training at 256 px"
    text: str
    model: str = "FCDM-XL"
    res: Size = 256
    batch: int  # on each GPU
    gpus: int
    gpu: str  # name in baselines/gpus.csv


_ONE, _FOUR = "batch 256 on one A100 40 GB", "batch 256 on 4 x RTX 4090 24 GB, 64 each"
CLAIMS = (
    Claim(id="fcdm-memory-40", text=_ONE, batch=256, gpus=1, gpu="A100 PCIe 40GB"),
    Claim(id="fcdm-memory-24", text=_FOUR, batch=64, gpus=4, gpu="RTX 4090"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the case of a claim fits, with the buckets that average gradients across GPUs."""

    claim: Claim
    device: memory_fit.Device
    memory: Record  # Memory, or Skipped

    @property
    def case(self) -> MemoryCase:
        assert isinstance(self.memory.case, MemoryCase)
        return self.memory.case

    @property
    def peak_bytes(self) -> int | None:
        return self.memory.peak_bytes if isinstance(self.memory, Memory) else None

    @property
    def buckets_bytes(self) -> int | None:
        """DistributedDataParallel's buckets: a second copy of the gradients, allocated throughout."""
        if not isinstance(self.memory, Memory):
            return None
        return self.memory.use.gradients_bytes if self.claim.gpus > 1 else 0

    @property
    def needed_bytes(self) -> int | None:
        if self.peak_bytes is None or self.buckets_bytes is None:
            return None
        return self.peak_bytes + self.buckets_bytes

    @property
    def margin_bytes(self) -> int | None:
        """Usable memory minus required memory."""
        return None if self.needed_bytes is None else self.device.usable_bytes - self.needed_bytes

    @property
    def text(self) -> str:
        if self.needed_bytes is not None:
            return memory_fit.fits(
                self.needed_bytes, self.device.usable_bytes, is_predicted=self.case.is_predicted
            )
        status = self.memory.status if isinstance(self.memory, Skipped) else "error"
        return "does not fit" if status == "out of memory" else status


def verdicts(records: Sequence[Record], reserve_bytes: int = memory_fit.RESERVE_BYTES) -> list[Verdict]:
    """Judge every claim by its cases in any precision, with its memory size or without a limit."""
    found = []
    for claim in CLAIMS:
        gpu = memory_fit.device(claim.gpu, reserve_bytes)
        for record in records:
            case = record.case
            if (
                isinstance(case, MemoryCase)
                and (case.model, case.res, case.batch) == (claim.model, claim.res, claim.batch)
                and case.work == "training"
                and case.device != "cpu"  # says nothing of a GPU
                and case.limit_bytes in (None, gpu.usable_bytes)
            ):
                found.append(Verdict(claim=claim, device=gpu, memory=record))
    return found


CLAIMS_TABLE = Table[Verdict](
    title="The paper's memory claims, GiB",
    columns=(
        Column("claim", lambda r: f"{r.case.model}, {r.claim.text}"),
        *fields("claim.source", "claim.gpu", "claim.gpus", raw=True),
        columns.PRECISION,
        memory.CHECKPOINTING,
        memory.METHOD,
        Column("measured on", lambda r: r.memory.environment.device, optional=True),
        memory.bytes_column("peak", "peak_bytes"),
        memory.bytes_column("+ DDP buckets", "buckets_bytes"),
        memory.bytes_column("needed", "needed_bytes"),
        memory.bytes_column("usable", "device.usable_bytes"),
        memory.bytes_column("margin", "margin_bytes"),
        Column("verdict", lambda r: r.text),
        *fields("device.capacity_bytes", "device.reserve_bytes", raw=True),
    ),
    records=lambda row: (row.memory,),
)
