"""Base classes of cases and records, and the environment.

A case describes a measurement in typed fields. A record has its case, the environment of the measurement, and
raw samples; statistics are properties. Units are in field names: seconds (_s), bytes, MACs (1 MAC = 2 FLOPs).
"""

import hashlib
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from bench.records.quantities import Quantity

# a field that may be undefined; a file with NaN or infinity in any other field is refused
FloatOrNaN = Annotated[float, "or NaN"]
Size = int | tuple[int, int]  # the side of a square, or (height, width)
ENGINES = {"eager": "eager", "compile": "torch.compile", "aoti": "AOTInductor"}  # in words
SPEED, COUNTS, MEMORY, TRAINING = VIEWS = ("speed", "counts", "memory", "training")  # of the results table


class StoreError(ValueError):
    """A file of records is unreadable or not writable."""


def size_text(size: Size) -> str:
    """256, or 256x512 for height x width."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def file_name(identity: str) -> str:
    """The name of a file from its identity, "x.pt sha256:0123" or "x.pt:key sha256:0123"."""
    name = identity.partition(" sha256:")[0]
    return name if ":" not in name else name.rpartition(":")[0]


def height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Machine and software of a measurement."""

    device: str  # as the driver or the operating system names it; blank for counts
    device_type: str  # cpu, cuda or meta
    unit: str  # identifies the GPU: head of the SHA-256 of its UUID; blank on a CPU
    driver: str  # blank without a GPU
    cuda: str  # version that torch was built for; blank without CUDA
    torch: str
    python: str
    platform: str
    threads: int  # of torch within one CPU operator
    commit: str  # of this suite; "+dirty" with uncommitted changes, blank outside a checkout
    code: str  # identity of the code that decides the number (bench.machine.sources)
    date: str  # UTC, ISO 8601, to the second

    def describe(self) -> str:
        """One line for the notes below a table."""
        return (
            f"{self.device or 'counted on meta tensors'}; torch {self.torch}; driver {self.driver or '-'}; "
            f"{self.threads} CPU threads; commit {self.commit or '-'}; {self.date}"
        )


# fields of an environment that are not part of a record's key; `code` identifies the sources
INCIDENTAL = ("commit", "date", "platform", "python", "unit")


def _json(value: Any) -> Any:  # noqa: ANN401 - a field of a case
    """A field as a JSON value, several times as fast as `asdict` of the case."""
    if isinstance(value, tuple):
        return tuple(map(_json, value))
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measurement or count to perform. Subclasses name their kind and add typed fields."""

    kind: ClassVar[str]
    view: ClassVar[str] = ""  # of VIEWS; blank: in none of them
    # fields of the sampling budget, ignored when two sessions are compared
    effort: ClassVar[frozenset[str]] = frozenset({"budget_s", "precision_target"})

    device: str  # cpu or cuda; meta for counts from tensor sizes

    @property
    def label(self) -> str:
        """The case in words, without its kind."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The case in words, with its kind."""
        return f"{self.kind} {self.label}"

    @property
    def title(self) -> str:
        """The kind in words."""
        return self.kind

    @property
    def details(self) -> tuple[str, ...]:
        """The settings that have no column in the results table, in words."""
        return ()

    @property
    def command(self) -> tuple[object, ...]:
        """The command that repeats the case, from its module on: "bench.flops", "--model", "FCDM-S"."""
        return ()

    @property
    def is_predicted(self) -> bool:
        """Whether the result is computed from a model of the device, and nothing runs."""
        return False

    @property
    def source_model(self) -> str:
        """The model whose sources are part of the software; blank without one."""
        return ""

    @property
    def runs_fast(self) -> bool:
        """Whether models.fast is part of the software."""
        return False

    @property
    def identified(self) -> "Case":
        """The case reduced to the fields of its identity."""
        return self

    def identity(self, *, effort: bool) -> dict[str, Any]:
        """The fields that identify this case, as JSON values, with or without the sampling budget."""
        names = [field.name for field in fields(self) if effort or field.name not in self.effort]
        return {"kind": self.kind, **{name: _json(getattr(self, name)) for name in names}}


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
    def source_model(self) -> str:
        return self.model

    @property
    def size(self) -> str:
        return f"{size_text(self.res)} px, batch {self.batch}"

    @property
    def size_options(self) -> tuple[object, ...]:
        return "--model", self.model, "--res", size_text(self.res), "--batch", self.batch

    @property
    def label(self) -> str:
        return f"{self.model} {self.size}"


class Arm(NamedTuple):
    """What tells the prepared models of a comparison from each other."""

    model: str
    impl: str
    engine: str

    def __str__(self) -> str:
        """FCDM-S, or FCDM-S (fast, torch.compile)."""
        words = [self.impl] * (self.impl != "reference") + [ENGINES[self.engine]] * (self.engine != "eager")
        return f"{self.model} ({', '.join(words)})" if words else self.model


@dataclass(frozen=True, kw_only=True)
class ModelCase(SizedCase):
    """A model run on a device; the defaults are torch's default settings."""

    precision: str  # fp32 (no TF32 anywhere), tf32, torch-default (TF32 in convolutions only), bf16, fp16
    impl: str = "reference"  # reference, or fast: models.fast
    engine: str = "eager"  # eager, compile: torch.compile, or aoti: AOTInductor
    cuda_graphs: bool = False
    channels_last: bool = False
    attention: str = "auto"  # auto (torch chooses), flash, cudnn, efficient, math, flash-attn
    checkpointing: bool = False
    weights: str = "random"  # random; golden (baselines/README.md); or a file and its SHA-256

    @property
    def runs_fast(self) -> bool:
        return self.impl == "fast"

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile runs, which may compile again at a later call."""
        return self.engine == "compile"

    @property
    def arm(self) -> Arm:
        return Arm(self.model, self.impl, self.engine)

    @property
    def common(self) -> Self:
        """This case with the reference implementation, eager: what the arms of a comparison share."""
        return replace(self, impl="reference", engine="eager")

    @property
    def nondefault_settings(self) -> tuple[str, ...]:
        """Settings that differ from their defaults, in words."""
        words = [f"{self.impl} implementation"] * (self.impl != "reference")
        words += [ENGINES[self.engine]] * (self.engine != "eager") + ["CUDA graphs"] * self.cuda_graphs
        words += ["channels last"] * self.channels_last + ["checkpointing"] * self.checkpointing
        return (*words, *[f"{self.attention} attention"] * (self.attention != "auto"))

    @property
    def details(self) -> tuple[str, ...]:
        return self.nondefault_settings

    def switch_options(self, *switches: str) -> list[object]:
        """Options of the settings that differ from their defaults, of switches by default all."""
        words: list[object] = ["--impl", self.impl] if self.runs_fast else []
        words += ["--engine", self.engine] * (self.engine != "eager")
        for name in switches or ("cuda_graphs", "channels_last", "checkpointing"):
            words += [f"--{name.replace('_', '-')}", "on"] * getattr(self, name)
        return words + ["--attention", self.attention] * (self.attention != "auto")

    @property
    def weights_options(self) -> list[object]:
        """The file of weights by its name, without its folder."""
        return [] if self.weights == "random" else ["--weights", file_name(self.weights)]

    @property
    def settings(self) -> str:
        """256 px, batch 64, bf16, and the settings that differ from their defaults."""
        return ", ".join([self.size, self.precision, *self.nondefault_settings])

    @property
    def label(self) -> str:
        return f"{self.model} {self.settings}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of a case. Subclasses narrow the type of `case` and are registered by its kind.

    Their properties params, macs_per_image, images_per_s (with images_per_s_interval), median_s,
    joules_per_image, peak_bytes and validation_loss fill the columns of these names in the results table.
    """

    case: Case
    environment: Environment

    @property
    def is_skipped(self) -> bool:
        return False

    @property
    def result(self) -> str:
        """The result in words, where it is more than numbers."""
        return ""

    @property
    def quantities(self) -> list[Quantity]:
        """Samples to compare with another record of the case; here the times of its calls."""
        times: tuple[float, ...] = getattr(self, "times_s", ())
        return [Quantity.of_times("median", [times])] if times else []

    @cached_property
    def age(self) -> tuple[str, str]:
        """Sorting key: date, then a digest of the content, so that equal dates have one order."""
        return self.environment.date, hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The case in words, with its kind."""
        return self.case.name


@dataclass(frozen=True, kw_only=True)
class Skipped(Record):
    """A case of any kind without a result, with the reason; it remains a row of tables."""

    # out of memory, crashed, timed out, error, not finite, no kernel, recompiled, over budget, refused
    status: str
    reason: str

    @property
    def is_skipped(self) -> bool:
        return True

    @property
    def result(self) -> str:
        return f"{self.status}: {self.reason}"
