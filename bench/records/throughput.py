"""Times of passes: denoising forward calls or training steps."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import ModelCase, Record, register
from bench.records.columns import ENVIRONMENT, NOISE, RUN
from bench.records.telemetry import Telemetry, joules_per_image
from bench.stats import intervals, noise
from bench.tables.numbers import interval, milliseconds
from bench.tables.table import Column, Table


@dataclass(frozen=True, kw_only=True)
class PassCase(ModelCase):
    """Timing passes of one model."""

    work: str  # inference: one forward call; training: a complete step
    protocol: str = "suite"  # suite, or dico: the published protocol of DiCo
    soak_s: float = 0.0  # continuous work before the sustained samples; 0: no sustained samples
    budget_s: float  # of warm-up and samples
    precision_target: float  # half-width of the median's 95 % interval, as a share of the median

    @property
    def nondefault_settings(self) -> tuple[str, ...]:
        words = super().nondefault_settings
        return (*words, *[f"protocol {self.protocol}"] * (self.protocol != "suite"))


@dataclass(frozen=True, kw_only=True)
class ThroughputCase(PassCase):
    """Timing passes of one model on its own."""

    kind: ClassVar[str] = "throughput"

    @property
    def name(self) -> str:
        return f"{'training step' if self.work == 'training' else self.kind} {self.label}"


@dataclass(frozen=True, kw_only=True)
class TimedPasses(Record):
    """Times of passes, with warm-up, noise and telemetry."""

    case: PassCase
    times_s: tuple[float, ...]  # wall clock of each call, device synchronised
    device_times_s: tuple[float, ...]  # between device events; empty on a CPU
    warmup_times_s: tuple[float, ...]  # wall clock, not in the statistics
    warmup_stationary: bool  # the warm-up ended because the pass times were stationary
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # criteria not met when sampling ended
    build_s: float  # building the model and moving it to the device
    compile_s: float | None  # the first call of the compiled model; None without torch.compile
    matmul_tf32: bool  # torch's two TF32 switches during timing
    conv_tf32: bool
    sustained_times_s: tuple[
        float, ...
    ]  # wall clock, after case.soak_s of continuous work; empty if that is 0
    telemetry: Telemetry | None  # None where unavailable

    def __post_init__(self) -> None:
        if not self.times_s or min(self.times_s) <= 0:
            raise ValueError(f"{self.case.model}: needs at least one time, all above zero")

    @property
    def median_s(self) -> float:
        return intervals.median(self.times_s)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the median pass; None with fewer than six samples."""
        return intervals.median_interval(self.times_s)

    def quantile_s(self, share: float) -> float:
        """Quantile of the pass times, `share` in [0, 1], interpolated linearly."""
        return intervals.quantile(self.times_s, share)

    @property
    def images_per_s(self) -> float:
        return self.case.batch / self.median_s

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        interval = self.interval_s
        return interval and (self.case.batch / interval[1], self.case.batch / interval[0])

    @property
    def noise(self) -> tuple[str, ...]:
        """Disturbances of the passes, with their sizes; empty without any."""
        return noise.noise(self.times_s, self.telemetry.clocks_mhz if self.telemetry else ())

    @property
    def sustained_images_per_s(self) -> float | None:
        """Images per second of the heat-soaked device; None without a soak."""
        return self.case.batch / intervals.median(self.sustained_times_s) if self.sustained_times_s else None

    @property
    def joules_per_image(self) -> float | None:
        """From the energy counter, idle power included; None without a reading."""
        return joules_per_image(self.telemetry, self.case.batch)


@register
@dataclass(frozen=True, kw_only=True)
class Throughput(TimedPasses):
    """Timed passes of one model."""

    case: ThroughputCase


def _stopped(record: TimedPasses) -> str:
    return "; ".join([record.stopped_by, *(f"not met: {criterion}" for criterion in record.unmet)])


TABLE = Table[TimedPasses](
    title="Throughput and latency of single passes",
    columns=(
        *RUN,
        Column("work", lambda r: r.case.work, of_case=True, optional=True, usual="inference"),
        Column("protocol", lambda r: r.case.protocol, of_case=True, optional=True, usual="suite"),
        Column("images/s", lambda r: r.images_per_s, key="images_per_s"),
        Column("95 % interval", lambda r: r.images_per_s_interval, interval, key="images_per_s_interval"),
        Column("p50 ms", lambda r: r.quantile_s(0.5), milliseconds, key="p50_s"),
        Column("p90 ms", lambda r: r.quantile_s(0.9), milliseconds, key="p90_s"),
        Column("p99 ms", lambda r: r.quantile_s(0.99), milliseconds, key="p99_s"),
        Column(
            "sustained images/s",
            lambda r: r.sustained_images_per_s,
            key="sustained_images_per_s",
            optional=True,
        ),
        Column("J/image", lambda r: r.joules_per_image, key="joules_per_image", optional=True),
        Column("samples", lambda r: len(r.times_s), str),
        Column("ended by", _stopped),
        NOISE,
        Column("stopped_by", lambda r: r.stopped_by, raw=True),
        Column("unmet", lambda r: list(r.unmet), raw=True),
        Column("median_s", lambda r: r.median_s, raw=True),
        Column("compile_s", lambda r: r.compile_s, raw=True),
        Column("times_s", lambda r: list(r.times_s), raw=True),
        *ENVIRONMENT,
    ),
)
