"""Outputs of a network compared with the released code, for the same weights and inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from bench.records.base import ModelCase, Record
from bench.records.columns import ENVIRONMENT, RUN
from bench.records.registry import register
from bench.tables.table import Column, Table, fields

REPRODUCED = "reproduced"


@dataclass(frozen=True, kw_only=True)
class GoldenCase(ModelCase):
    """Comparing one network with the outputs of its release."""

    kind: ClassVar[str] = "golden"

    @property
    def command(self) -> tuple[object, ...]:
        words = "bench.golden", "--model", self.model, "--device", self.device, "--precision", self.precision
        return *words, *self.switch_options("cuda_graphs", "channels_last")


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Distance of one output from its reference."""

    output: str  # out or out_n of the golden; "other inputs": a later call, compared with an eager one
    error: float  # rms of the difference, as a share of the rms of the reference
    tolerance: float  # largest error that rounding in this precision explains

    def __post_init__(self) -> None:
        if not self.error >= 0 or not self.tolerance > 0:
            raise ValueError(
                f"{self.output}: needs an error of at least 0 and a tolerance above 0, "
                f"got {self.error} and {self.tolerance}"
            )


@register
@dataclass(frozen=True, kw_only=True)
class Golden(Record):
    """Deviations of all outputs."""

    case: GoldenCase
    deviations: tuple[Deviation, ...]
    graph_breaks: int | None  # of the first call; None without torch.compile
    recompilations: int | None  # of later calls with the same shapes; None without torch.compile
    matmul_tf32: bool  # torch's two TF32 switches during the calls
    conv_tf32: bool

    def __post_init__(self) -> None:
        if not self.deviations:
            raise ValueError(f"{self.case.model}: needs the deviation of at least one output")

    @property
    def verdict(self) -> str:
        """Reproduced, not reproduced, or recompiled: the outputs agree, but a later call recompiled."""
        if any(deviation.error > deviation.tolerance for deviation in self.deviations):
            return f"not {REPRODUCED}"
        return "recompiled" if self.recompilations else REPRODUCED

    @property
    def result(self) -> str:
        return self.verdict


def _deviations(deviations: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{deviation['output']} {deviation['error']:.1e} ({deviation['tolerance']:.1e})"
        for deviation in deviations
    )


TABLE = Table[Golden](
    title="Outputs compared with those of the released code",
    columns=(
        *RUN,
        Column(
            "relative rms error (tolerance)",
            lambda r: [asdict(deviation) for deviation in r.deviations],
            _deviations,
            key="outputs",
        ),
        Column("graph breaks", "graph_breaks", optional=True),
        Column("recompilations", "recompilations", optional=True),
        *fields("matmul_tf32", "conv_tf32", raw=True),
        *fields("verdict"),
        *ENVIRONMENT,
    ),
)
