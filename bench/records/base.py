"""What every record is made of: the case that was asked for, the environment, and the kinds by name.

A case says what to measure, in typed fields. A record holds its case, the environment that it was measured
in, and raw samples; statistics are properties. Units are in the names of fields: seconds (_s), bytes, MACs
(1 MAC = 2 FLOPs).
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

Size = int | tuple[int, int]  # the side of a square, or (height, width)


class StoreError(ValueError):
    """A file of records that cannot be read."""


def size_text(size: Size) -> str:
    """256, or 256x512 for height x width."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software that a number depends on."""

    device: str  # as the driver or the operating system names it; blank for counts
    device_type: str  # cpu, cuda or meta
    unit: str  # which GPU of its kind: head of the SHA-256 of its UUID; blank on a CPU
    driver: str  # blank without a GPU
    cuda: str  # the version torch was built for; blank without
    torch: str
    python: str
    platform: str
    threads: int  # of one operator on the CPU
    commit: str  # of this suite; "+dirty" with uncommitted changes, blank outside a checkout
    code: str  # head of the SHA-256 of the sources that determine the number: models, bench, a user's module
    date: str  # UTC, ISO 8601, to the second

    def describe(self) -> str:
        """One line for the notes below a table."""
        return (
            f"{self.device or 'counted on meta tensors'}; torch {self.torch}; driver {self.driver or '-'}; "
            f"{self.threads} CPU threads; commit {self.commit or '-'}; {self.date}"
        )


# fields of an environment that do not make a case another one: the code stands for the commit
INCIDENTAL = ("commit", "date", "platform", "python", "unit")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is to be measured or counted. Subclasses name their kind and add typed fields."""

    kind: ClassVar[str]
    # fields that say how long a case may be sampled: a comparison of two sessions leaves them out
    effort: ClassVar[frozenset[str]] = frozenset({"budget_s", "precision_target"})

    device: str  # cpu or cuda; meta for what is counted from the sizes of tensors

    @property
    def label(self) -> str:
        """The case in words, without its kind."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The case in words, with its kind."""
        return f"{self.kind} {self.label}"

    def identity(self, *, effort: bool) -> dict[str, Any]:
        """The fields that tell this case from others, ready for JSON.

        Args:
            effort: include how long it may be sampled.
        """
        named = asdict(self)
        if not effort:
            for field in self.effort:
                named.pop(field, None)
        return {"kind": self.kind, **named}


@dataclass(frozen=True, kw_only=True)
class SizedCase(Case):
    """A model at one size and batch."""

    model: str  # as published, or a user's "my_pkg.my_mod:factory"
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch: must be at least 1, got {self.batch}")

    @property
    def size(self) -> str:
        return f"{size_text(self.res)} px, batch {self.batch}"

    @property
    def label(self) -> str:
        return f"{self.model} {self.size}"


@dataclass(frozen=True, kw_only=True)
class ModelCase(SizedCase):
    """A model as a device runs it, by default under torch's own settings."""

    precision: str  # fp32 (no TF32 anywhere), tf32, torch-default (TF32 in convolutions only), bf16, fp16
    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    attention: str = "auto"  # auto (torch chooses), flash, cudnn, efficient, math, flash-attn
    checkpointing: bool = False
    weights: str = "random"  # random; golden, as baselines/README.md fills them; or a file and its SHA-256

    @property
    def nondefault_settings(self) -> tuple[str, ...]:
        """The settings that are not at their default, in words."""
        words = ["torch.compile"] * self.compile + ["CUDA graphs"] * self.cuda_graphs
        words += ["channels last"] * self.channels_last + ["checkpointing"] * self.checkpointing
        return (*words, *[f"{self.attention} attention"] * (self.attention != "auto"))

    @property
    def settings(self) -> str:
        """256 px, batch 64, bf16, and the settings that are not at their default."""
        return ", ".join([self.size, self.precision, *self.nondefault_settings])

    @property
    def label(self) -> str:
        return f"{self.model} {self.settings}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The answer to a case. Subclasses narrow `case` to their own type and are registered by its kind."""

    case: Case
    environment: Environment

    @property
    def is_skipped(self) -> bool:
        return False

    @property
    def name(self) -> str:
        """The case in words, with its kind."""
        return self.case.name


@dataclass(frozen=True, kw_only=True)
class Skipped(Record):
    """A case of any kind that gave no number: a row with its reason, not a gap."""

    status: str  # out of memory, crashed, timed out, error, not finite, no kernel, recompiled, over budget
    reason: str

    @property
    def is_skipped(self) -> bool:
        return True


R = TypeVar("R", bound=type[Record])
RECORDS: dict[str, type[Record]] = {}  # by kind


def register(record: R) -> R:
    """Make a kind of record known to the store, under the kind of its case."""
    kind = case_type(record).kind
    if RECORDS.setdefault(kind, record) is not record:
        raise ValueError(f"two kinds of record are called {kind!r}")
    return record


def case_type(record: type[Record]) -> type[Case]:
    """The type of a record's case."""
    (field,) = (field for field in fields(record) if field.name == "case")
    if not isinstance(field.type, type) or not issubclass(field.type, Case):
        raise TypeError(f"{record.__name__}.case: must be annotated with a Case, got {field.type}")
    return field.type
