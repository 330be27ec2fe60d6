"""A network's outputs for the inputs, and under the weights, of a call of the released code."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import ModelCase, Record, register

REPRODUCED = "reproduced"


@dataclass(frozen=True, kw_only=True)
class GoldenCase(ModelCase):
    """Comparing one network with the outputs of its release."""

    kind: ClassVar[str] = "golden"


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far one output lies from its reference."""

    output: (
        str  # out or out_n of the golden; "other inputs": a later call, against the same model run eagerly
    )
    error: float  # rms of the difference, as a share of the rms of the reference
    tolerance: float  # for the error, in this precision

    def __post_init__(self) -> None:
        if not self.error >= 0 or not self.tolerance > 0:
            raise ValueError(
                f"{self.output}: an error of {self.error} and a tolerance of {self.tolerance} cannot be"
            )


@register
@dataclass(frozen=True, kw_only=True)
class Golden(Record):
    """Deviations of all outputs."""

    case: GoldenCase
    deviations: tuple[Deviation, ...]
    graph_breaks: int | None  # of the first call; None without torch.compile, as the next
    recompilations: int | None  # of all later calls, with other values of the same shapes
    matmul_tf32: bool  # the two switches as they stood
    conv_tf32: bool

    def __post_init__(self) -> None:
        if not self.deviations:
            raise ValueError(f"{self.case.model}: needs the deviation of at least one output")

    @property
    def verdict(self) -> str:
        """Reproduced; not reproduced; or recompiled, where the outputs are right but were compiled again."""
        if any(one.error > one.tolerance for one in self.deviations):
            return f"not {REPRODUCED}"
        return "recompiled" if self.recompilations else REPRODUCED
