"""What a measurement becomes: frozen dataclasses, kept as JSON lines.

Units: seconds, bytes, counts of multiply-accumulates (MACs; 1 MAC = 2 FLOPs). Statistics are derived
from the samples when read; none is stored. Nothing here imports torch.
"""

import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench import stats

SCHEMA = 1

Size = int | tuple[int, int]  # a square's side, or (height, width)


class StoreError(ValueError):
    """A file of records that cannot be read as one."""


def size_text(size: Size) -> str:
    """Write 256 or 256x512 (height x width)."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software that a number depends on."""

    device: str  # as the driver or the operating system names it
    device_type: str  # cpu or cuda
    driver: str  # blank without a GPU
    cuda: str  # the version torch was built for; blank without
    torch: str
    python: str
    platform: str
    threads: int  # of one operator on the CPU
    commit: str  # of this suite; "+dirty" with uncommitted changes, blank outside a checkout
    date: str  # UTC, ISO 8601, to the second


@dataclass(frozen=True, kw_only=True)
class Run:
    """One timed case: the model, the work and the settings."""

    model: str
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int
    precision: str  # fp32 (no TF32 anywhere), tf32, bf16, fp16
    compile: bool
    channels_last: bool
    weights: str  # "random" or the file's name with the head of its SHA-256
    environment: Environment

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch: must be at least 1, got {self.batch}")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """MACs of one model at one size under one counter."""

    model: str
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int
    counter: str  # torch, torchprofile, torchprofile-meta or fvcore
    params: int  # every tensor the authors' checkpoint holds as a parameter
    params_trainable: int  # without fixed position tables
    macs: int  # of one forward pass of the batch
    train_macs: int | None  # forward and backward, the input needing no gradient; None: not counted
    train_macs_checkpointed: int | None  # the same with every block recomputed in the backward pass
    not_counted: tuple[str, ...]  # operators that ran and that the counter gave nothing for
    environment: Environment

    def __post_init__(self) -> None:
        if self.macs < 0 or self.params < 0:
            raise ValueError(f"{self.model}: counts cannot be negative")

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of every timed pass of one denoising forward call."""

    run: Run
    times_s: tuple[float, ...]  # wall clock, from before the call to after the device has finished
    device_times_s: tuple[float, ...]  # between device events; empty on a CPU
    warmup_times_s: tuple[float, ...]  # wall clock, not in the statistics
    warmup_stationary: bool  # the warm-up ended because passes had stopped getting faster
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # the criteria that were open when sampling ended
    build_s: float  # making the model and moving it
    compile_s: float | None  # the first call of the compiled model; None without torch.compile
    matmul_tf32: bool  # the two switches as they stood while timing
    conv_tf32: bool

    def __post_init__(self) -> None:
        if not self.times_s or min(self.times_s) <= 0:
            raise ValueError(f"{self.run.model}: needs at least one time, all above zero")

    @property
    def median_s(self) -> float:
        return stats.median(self.times_s)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the median pass; None with fewer than six samples."""
        return stats.median_interval(self.times_s)

    @property
    def images_per_s(self) -> float:
        return self.run.batch / self.median_s

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        interval = self.interval_s
        return interval and (self.run.batch / interval[1], self.run.batch / interval[0])


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A case that gave no number: a row with its reason, not a gap."""

    run: Run
    status: str  # out of memory, crashed, timed out, error, not finite
    reason: str


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes that an inference pass or a training step holds, counted by the allocator or as it would."""

    passes_peak_bytes: int  # allocated at once in the forward and backward pass
    passes_peak_phase: str  # forward or backward: where that was
    passes_gradients_bytes: int  # of the gradients there at that peak: they come as activations go
    update_peak_bytes: int | None  # allocated at once while optimizer and EMA update; None for inference
    parameters_bytes: int  # with buffers
    gradients_bytes: int  # of all gradients, at the end of the backward pass
    optimizer_bytes: int
    ema_bytes: int
    reserved_bytes: int | None  # the most that the allocator held of the device; None: not known
    process_bytes: int | None  # of the whole process, as the driver counts; None: not known

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
        """The rest at the peak: activations, casts of weights, temporaries, inputs."""
        held = self.parameters_bytes + self.optimizer_bytes + self.ema_bytes
        return self.peak_bytes - held - self.gradients_at_peak_bytes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory of one case, measured on a GPU or predicted; or what kept it from being known."""

    run: Run
    work: str  # inference or training
    checkpointing: bool
    predicted: bool  # from the sizes of tensors that were never there
    limit_bytes: int | None  # what the allocator was held to; None: all of the device
    status: str  # ok; or out of memory, crashed, timed out, error: then there is no use
    reason: str  # blank if ok
    use: MemoryUse | None

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.use is not None):
            raise ValueError(f"{self.run.model}: status {self.status!r} with use {self.use}")
        if self.predicted and self.use is not None and self.use.reserved_bytes is not None:
            raise ValueError(f"{self.run.model}: nothing was reserved for a prediction")


Record = Counted | Throughput | Memory | Skipped
KINDS: dict[str, type[Record]] = {
    "counted": Counted,
    "throughput": Throughput,
    "memory": Memory,
    "skipped": Skipped,
}
_NAMES = {cls: kind for kind, cls in KINDS.items()}


def to_dict(record: Record) -> dict[str, Any]:
    return {"kind": _NAMES[type(record)], "schema": SCHEMA, **asdict(record)}


def to_line(record: Record) -> str:
    return json.dumps(to_dict(record), ensure_ascii=False) + "\n"


def from_dict(data: Mapping[str, Any]) -> Record:
    """Rebuild a record.

    Raises:
        StoreError: an unknown kind, another schema version, a field missing, unknown or of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise StoreError(f"a record is an object, got {type(data).__name__}")
    kind, schema = data.get("kind"), data.get("schema")
    if schema != SCHEMA:
        raise StoreError(f"schema {schema!r}; this version reads {SCHEMA}")
    if kind not in KINDS:
        raise StoreError(f"kind {kind!r}; known are {', '.join(KINDS)}")
    body = {key: value for key, value in data.items() if key not in ("kind", "schema")}
    record: Record = decode(KINDS[kind], body)
    return record


def decode(annotation: Any, value: Any) -> Any:  # noqa: ANN401 - it walks annotations of any kind
    """Check a JSON value against an annotation, a dataclass's or a field's; lists become tuples on the way.

    Raises:
        StoreError: says which value does not fit, or which fields are missing or unknown.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for choice in args:
            try:
                return decode(choice, value)
            except StoreError:
                continue
    elif origin is tuple and isinstance(value, list):
        items = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(items) == len(value):
            return tuple(decode(item, entry) for item, entry in zip(items, value, strict=True))
    elif annotation is type(None) and value is None:
        return None
    elif isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__"):
        if isinstance(value, Mapping):
            hints = typing.get_type_hints(annotation)
            names = {field.name for field in fields(annotation)}
            if names != set(value):
                odd = sorted(names ^ set(value))
                raise StoreError(f"{annotation.__name__}: fields missing or unknown: {', '.join(odd)}")
            try:
                return annotation(**{name: decode(hints[name], value[name]) for name in names})
            except StoreError:
                raise
            except ValueError as error:
                raise StoreError(str(error)) from error
    elif annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif annotation in (int, str, bool) and type(value) is annotation:
        return value
    raise StoreError(f"expected {annotation}, got {value!r}")


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to a file of JSON lines, each flushed; what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(to_line(record))
            file.flush()


def read(path: Path) -> list[Record]:
    """Read every record of a file of JSON lines, in order.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
    """
    records: list[Record] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(from_dict(json.loads(line)))
        except (json.JSONDecodeError, StoreError) as error:
            raise StoreError(f"{path}, line {number}: not a record of this suite: {error}") from error
    return records
