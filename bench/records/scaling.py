"""One visit of a scaling study: timed passes of a model at one resolution."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import size_text
from bench.records.registry import register
from bench.records.throughput import PassCase, TimedPasses


@dataclass(frozen=True, kw_only=True)
class ScalingCase(PassCase):
    """Timing one model at one resolution during one of several visits."""

    kind: ClassVar[str] = "scaling"

    from_batch: int  # requested batch; `batch` is smaller if memory ran out
    visit: int  # from 1

    @property
    def command(self) -> tuple[object, ...]:
        size = size_text(self.res)
        return (
            *("bench.scaling", "--model", self.model, "--res", size, "--batch", self.from_batch),
            *self.pass_options,
        )

    @property
    def label(self) -> str:
        return f"of {self.work} {super().label}, from batch {self.from_batch}, visit {self.visit}"


@register
@dataclass(frozen=True, kw_only=True)
class ScalingVisit(TimedPasses):
    """Passes of one visit."""

    case: ScalingCase
