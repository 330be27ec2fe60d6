"""Peak memory of an inference pass or a training step, measured on a GPU or a CPU, or predicted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.records import columns
from bench.records.base import MEMORY, ModelCase, Record
from bench.records.quantities import PEAKS, Quantity
from bench.records.registry import register
from bench.tables.numbers import gibibytes
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class MemoryCase(ModelCase):
    """Measuring the peak memory of one pass or step; on device meta, predicting it from tensor sizes."""

    kind: ClassVar[str] = "memory"
    view: ClassVar[str] = MEMORY

    work: str  # inference or training
    limit_bytes: int | None  # limit of the allocator; None: all memory of the device

    @property
    def is_predicted(self) -> bool:
        return self.device == "meta"

    @property
    def title(self) -> str:
        return "training memory" if self.work == "training" else "memory"

    @property
    def command(self) -> tuple[object, ...]:
        checkpointing = ["--checkpointing", "on" if self.checkpointing else "off"] * (self.work == "training")
        words = "bench.memory", *self.size_options, "--precision", self.precision, "--work", self.work
        return *words, *checkpointing, "--device", self.device

    @property
    def label(self) -> str:
        limit = "" if self.limit_bytes is None else f", within {self.limit_bytes} bytes"
        return f"of {self.work} {super().label}{limit}"


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes of an inference pass or a training step, measured from the allocator or predicted."""

    passes_peak_bytes: int  # peak of the forward and backward pass
    passes_peak_phase: str  # forward or backward: phase of that peak
    passes_gradients_bytes: int  # of the gradients that exist at that peak
    update_peak_bytes: int | None  # peak of the optimizer and EMA update; None for inference
    parameters_bytes: int  # with buffers
    gradients_bytes: int  # of all gradients after the backward pass
    optimizer_bytes: int
    ema_bytes: int
    reserved_bytes: int | None  # peak of the CUDA allocator's reserved memory; None: unknown
    process_bytes: int | None  # of the process: by the driver, on a CPU its resident peak; None: unknown

    def __post_init__(self) -> None:
        if min(self.passes_peak_bytes, self.update_peak_bytes or 0) < 0:
            raise ValueError("a peak cannot be negative")

    @property
    def peak_bytes(self) -> int:
        return max(self.passes_peak_bytes, self.update_peak_bytes or 0)

    @property
    def peak_phase(self) -> str:
        """forward, backward or update."""
        return self.passes_peak_phase if self.peak_bytes == self.passes_peak_bytes else "update"

    @property
    def gradients_at_peak_bytes(self) -> int:
        return self.gradients_bytes if self.peak_phase == "update" else self.passes_gradients_bytes

    @property
    def activations_bytes(self) -> int:
        """Remaining bytes at the peak: activations, casts of weights, temporaries, inputs."""
        persistent = self.parameters_bytes + self.optimizer_bytes + self.ema_bytes
        return self.peak_bytes - persistent - self.gradients_at_peak_bytes

    @property
    def passes_bytes(self) -> int:
        """The peak of the passes minus the tensors that exist before them.

        Gradients are included: where they and not the activations make the peak, nothing would remain
        otherwise.
        """
        return self.passes_peak_bytes - self.parameters_bytes - self.optimizer_bytes - self.ema_bytes


@register
@dataclass(frozen=True, kw_only=True)
class Memory(Record):
    """The memory of one case."""

    case: MemoryCase
    use: MemoryUse

    def __post_init__(self) -> None:
        if self.case.is_predicted and self.use.reserved_bytes is not None:
            raise ValueError(f"{self.case.model}: a prediction has no reserved memory")

    @property
    def peak_bytes(self) -> int:
        return self.use.peak_bytes

    @property
    def quantities(self) -> list[Quantity]:
        if self.case.is_predicted:
            return []
        peak = (self.peak_bytes / 2**20,)
        return [Quantity(group=PEAKS, name="peak", unit="MiB", processes=(peak,), exact=True)]


METHOD: Column[Any] = Column(
    "method", "case.is_predicted", lambda yes: "predicted" if yes else "measured", key="predicted"
)
CHECKPOINTING: Column[Any] = Column("checkpointing", "case.checkpointing", columns.on_off)
# the setting of a case except its batch
SETTING: tuple[Column[Any], ...] = (
    columns.MODEL,
    columns.FAMILY,
    *fields("case.work"),
    columns.RES,
    columns.LATENT,
    columns.SPACE,
    columns.PRECISION,
    CHECKPOINTING,
    METHOD,
)


def bytes_column(
    heading: str, source: Callable[[Any], float | None] | str, key: str = "", *, optional: bool = False
) -> Column[Any]:
    """A column of bytes, formatted in GiB."""
    return Column(heading, source, gibibytes, key=key, optional=optional)


TABLE = Table[Memory](
    title="Peak memory, GiB",
    columns=(
        *SETTING,
        Column("device", "environment.device", optional=True),
        columns.BATCH,
        *fields("case.limit_bytes", raw=True),
        bytes_column("peak GiB", "use.peak_bytes"),
        Column("reached in", "use.peak_phase"),
        bytes_column("parameters", "use.parameters_bytes"),
        bytes_column("gradients", "use.gradients_at_peak_bytes"),
        bytes_column("optimizer", "use.optimizer_bytes"),
        bytes_column("EMA", "use.ema_bytes"),
        bytes_column("activations", "use.activations_bytes"),
        bytes_column("reserved", "use.reserved_bytes", optional=True),
        bytes_column("process", "use.process_bytes", optional=True),
        *fields("use.gradients_bytes", "use.passes_peak_bytes", "use.update_peak_bytes", raw=True),
        *columns.ENVIRONMENT[1:],
    ),
)
