"""MACs of one model at one size under one counter."""

from dataclasses import dataclass
from typing import Any, ClassVar

from bench.records.base import COUNTS, Record, SizedCase
from bench.records.columns import FAMILY, LATENT, MODEL, RES, SPACE
from bench.records.registry import register
from bench.tables.numbers import giga, mega, percent
from bench.tables.table import Column, Table, fields
from models.registry import ENTRIES

COUNTERS = {
    "torch": "convolutions, matrix products, attention, linear attention and scans",
    "closed-form": "formulas of the Config and the Task; no model is built or traced",
    "torchprofile-meta": "torchprofile's rules: elementwise products, means and affine norms too",
    "torchprofile-unfused": "the same where attention is not one operator; DiCo's figures of DiT round to it",
    "module-hooks": "hooks on layers, as in thop; functions are not counted (calflops, never run here, also "
    "counts functional convolutions and matrix products, but not scaled_dot_product_attention)",
    "torchprofile": "the package, on real weights",
    "fvcore": "the package, on real weights",
}
PACKAGES = ("torchprofile", "fvcore")  # counters that need real weights
BY_MODULE = ("torch", "torchprofile-meta")  # counters that count each module


@dataclass(frozen=True, kw_only=True)
class CountCase(SizedCase):
    """Counting a forward pass and a training step under the rules of one counter."""

    kind: ClassVar[str] = "flops"
    view: ClassVar[str] = COUNTS

    counter: str  # one of COUNTERS

    @property
    def title(self) -> str:
        return "MACs"

    @property
    def details(self) -> tuple[str, ...]:
        return (self.counter,)

    @property
    def command(self) -> tuple[object, ...]:
        return "bench.flops", *self.size_options, "--counter", self.counter

    @property
    def label(self) -> str:
        return f"{super().label}, {self.counter}"


@register
@dataclass(frozen=True, kw_only=True)
class MacCount(Record):
    """MACs and parameters."""

    case: CountCase
    params: int  # every parameter of the authors' checkpoint
    params_trainable: int  # without fixed position embeddings
    macs: int  # of one forward pass of the batch
    train_macs: int | None  # forward and backward, without the gradient of the input; None: not counted
    train_macs_checkpointed: int | None  # train_macs with every block recomputed in the backward pass
    not_counted: tuple[str, ...]  # operators without a rule of the counter
    remarks: tuple[str, ...]  # why the training step is not counted; what the count is of; blank for most

    def __post_init__(self) -> None:
        if self.macs < 0 or self.params < 0:
            raise ValueError(f"{self.case.model}: counts cannot be negative")

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def macs_per_image(self) -> float:
        return self.macs / self.case.batch

    @property
    def has_more_passes(self) -> bool:
        """Whether a released training step has a second pass, over masked tokens, which is not counted."""
        return self.case.family in ENTRIES and ENTRIES[self.case.family].masks


@dataclass(frozen=True, kw_only=True)
class MacShare:
    """The MACs of one operator or module of a counted model."""

    count: MacCount
    part: str
    macs: int

    @property
    def case(self) -> CountCase:
        return self.count.case

    @property
    def share(self) -> float:
        return self.macs / self.count.macs if self.count.macs else 0.0


_BATCH: Column[Any] = Column("batch", "case.batch", str, optional=True, usual=1)
(_COUNTER,) = fields("case.counter")
_SIZED: tuple[Column[Any], ...] = (MODEL, FAMILY, RES, LATENT, SPACE, _BATCH)

TABLE = Table[MacCount](
    title="MACs of a forward pass and a training step",
    columns=(
        *_SIZED,
        Column("params M", "params", mega),
        Column("trainable params", "params_trainable", raw=True),
        Column("GMACs", "macs", giga),
        Column("GFLOPs", "flops", giga),
        Column("train GMACs", "train_macs", giga),
        Column("checkpointed", "train_macs_checkpointed", giga),
        Column("released passes not counted", lambda r: r.has_more_passes, optional=True, usual=False),
        _COUNTER,
        Column("not counted", "not_counted", raw=True),
        *fields("remarks", raw=True),
    ),
)
SHARES = Table[MacShare](
    title="MACs of a forward pass by operator or module",
    columns=(
        *_SIZED,
        _COUNTER,
        *fields("part"),
        Column("GMACs", "macs", lambda macs: giga(macs, 4)),
        Column("share %", "share", lambda share: percent(share, 2)),
    ),
    records=lambda row: (row.count,),
)
