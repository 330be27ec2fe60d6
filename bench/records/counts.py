"""MACs of one model at one size under one counter."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import Record, SizedCase, register


@dataclass(frozen=True, kw_only=True)
class CountCase(SizedCase):
    """Counting a forward pass and a training step under the rules of one counter."""

    kind: ClassVar[str] = "flops"

    counter: str  # of bench.flops: torch, closed-form, torchprofile-meta, module-hooks, fvcore, ...

    @property
    def label(self) -> str:
        return f"{super().label}, {self.counter}"


@register
@dataclass(frozen=True, kw_only=True)
class MacCount(Record):
    """MACs and parameters."""

    case: CountCase
    params: int  # every tensor the authors' checkpoint holds as a parameter
    params_trainable: int  # without fixed position tables
    macs: int  # of one forward pass of the batch
    train_macs: int | None  # forward and backward, the input needing no gradient; None: not counted
    train_macs_checkpointed: int | None  # the same with every block recomputed in the backward pass
    not_counted: tuple[str, ...]  # operators that ran and that the counter gave nothing for

    def __post_init__(self) -> None:
        if self.macs < 0 or self.params < 0:
            raise ValueError(f"{self.case.model}: counts cannot be negative")

    @property
    def flops(self) -> int:
        return 2 * self.macs
