"""Times of passes: denoising forward calls or training steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from bench.records import telemetry
from bench.records.base import SPEED, ModelCase, Record
from bench.records.columns import ENVIRONMENT, NOISE, RUN
from bench.records.quantities import SUSTAINED, Quantity, are_times
from bench.records.registry import register
from bench.records.telemetry import Telemetry, joules_per_image
from bench.stats import intervals, noise, processes
from bench.tables.numbers import interval, milliseconds
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class PassCase(ModelCase):
    """Timing passes of one model."""

    view: ClassVar[str] = SPEED

    work: str  # inference: one forward call; training: a complete step
    protocol: str = "suite"  # suite, or dico: the published protocol of DiCo
    soak_s: float = 0.0  # continuous work before the sustained samples; 0: no sustained samples
    budget_s: float  # of warm-up and samples, of all processes together
    # half-width of the median's 95 % interval within a process, as a share of the median
    precision_target: float

    @property
    def title(self) -> str:
        return "training step" if self.work == "training" else "forward pass"

    @property
    def pass_options(self) -> list[object]:
        words: list[object] = ["--work", self.work, "--device", self.device, "--precision", self.precision]
        words += [*self.switch_options(), *self.weights_options]
        return words + ["--checkpointing", "off"] * (self.work == "training" and not self.checkpointing)

    @property
    def process_budget_s(self) -> float:
        return self.budget_s

    @property
    def nondefault_settings(self) -> tuple[str, ...]:
        words = super().nondefault_settings
        return (*words, *[f"protocol {self.protocol}"] * (self.protocol != "suite"))


@dataclass(frozen=True, kw_only=True)
class ThroughputCase(PassCase):
    """Timing passes of one model on its own."""

    kind: ClassVar[str] = "throughput"
    effort: ClassVar[frozenset[str]] = PassCase.effort | {"processes"}

    processes: int = 1  # fresh processes, which share the budget

    @property
    def process_budget_s(self) -> float:
        return self.budget_s / self.processes

    @property
    def command(self) -> tuple[object, ...]:
        words = ["bench.throughput", *self.size_options, *self.pass_options]
        words += ["--budget", f"{self.budget_s:g}s", "--processes", self.processes]
        words += ["--precision-target", f"{self.precision_target:g}"] * (self.precision_target != 0.01)
        words += ["--soak", f"{self.soak_s:g}s"] * bool(self.soak_s)
        return (*words, *["--protocol", self.protocol] * (self.protocol != "suite"))

    @property
    def name(self) -> str:
        return f"{'training step' if self.work == 'training' else self.kind} {self.label}"


@dataclass(frozen=True, kw_only=True)
class TimedPasses(processes.OverProcesses, Record):
    """Times of passes, with warm-up, noise and telemetry."""

    case: PassCase
    times_s: tuple[float, ...]  # wall clock of each call, device synchronised
    process_starts: tuple[int, ...] = ()  # index of the first time of every process but the first
    device_times_s: tuple[float, ...]  # between device events; empty on a CPU
    warmup_times_s: tuple[float, ...]  # wall clock, not in the statistics
    warmup_stationary: bool  # the warm-up ended because the pass times were stationary
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # criteria not met when sampling ended
    build_s: float  # building the model and moving it to the device
    compile_s: float | None  # the first call of the compiled model; None without torch.compile
    matmul_tf32: bool  # torch's two TF32 switches during timing
    conv_tf32: bool
    sustained_times_s: tuple[float, ...]  # wall clock, after case.soak_s of work; empty if that is 0
    telemetry: Telemetry | None  # None where unavailable

    def __post_init__(self) -> None:
        if not are_times(self.times_s):
            raise ValueError(f"{self.case.model}: needs at least one time, all from 1e-12 to 1e9 s")
        processes.check(self.process_starts, len(self.times_s))

    @property
    def by_process_s(self) -> tuple[Sequence[float], ...]:
        """The times of each process."""
        return processes.split(self.times_s, self.process_starts)

    @cached_property
    def median_s(self) -> float:
        """Median pass; of several processes, the geometric mean of their medians."""
        return processes.middle(self.by_process_s)

    @cached_property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the median pass, see `interval_covers`; None with too few samples.

        Of several processes on a shared CPU it includes the known difference between hours.
        """
        return processes.interval(
            self.by_process_s, hour_sd=processes.HOUR_SD.get(self.environment.device_type, 0.0)
        )

    @property
    def quantities(self) -> list[Quantity]:
        found = [Quantity.of_times("median", self.by_process_s)]
        if self.sustained_times_s:
            found.append(Quantity.of_times("sustained median", [self.sustained_times_s], SUSTAINED))
        return found

    @property
    def result(self) -> str:
        return "; ".join([f"interval: {self.interval_covers}", *self.noise])

    def quantile_s(self, share: float) -> float:
        """Quantile of the pass times, `share` in [0, 1], interpolated linearly."""
        return intervals.quantile(self.times_s, share)

    def rate(self, seconds: float) -> float:
        return self.case.batch / seconds

    @property
    def images_per_s(self) -> float:
        return self.rate(self.median_s)

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        interval = self.interval_s
        return interval and (self.rate(interval[1]), self.rate(interval[0]))

    @cached_property
    def noise(self) -> tuple[str, ...]:
        """Disturbances of the passes, with their sizes; empty without any."""
        return noise.noise(self.by_process_s, self.telemetry.clocks_mhz if self.telemetry else ())

    @property
    def sustained_images_per_s(self) -> float | None:
        """Images per second of the heat-soaked device; None without a soak."""
        return self.rate(intervals.median(self.sustained_times_s)) if self.sustained_times_s else None

    @property
    def joules_per_image(self) -> float | None:
        """From the energy counter, idle power included; None without a reading."""
        return joules_per_image(self.telemetry, self.case.batch)


@register
@dataclass(frozen=True, kw_only=True)
class Throughput(TimedPasses):
    """Timed passes of one model."""

    case: ThroughputCase


def merged(records: Sequence[Throughput], count: int) -> Throughput:
    """One record of the processes of a case, in order of time, from a record of each."""
    joined = ("times_s", "device_times_s", "warmup_times_s", "sustained_times_s")
    return replace(
        records[0],
        case=replace(records[0].case, processes=count),
        environment=records[-1].environment,
        **processes.joined(records, [len(record.times_s) for record in records], joined),
        warmup_stationary=all(record.warmup_stationary for record in records),
        telemetry=telemetry.merged([record.telemetry for record in records if record.telemetry]),
    )


TABLE = Table[TimedPasses](
    title="Throughput and latency of single passes",
    columns=(
        *RUN,
        Column("work", "case.work", optional=True, usual="inference"),
        Column("protocol", "case.protocol", optional=True, usual="suite"),
        Column("images/s", "images_per_s"),
        Column("95 % interval", "images_per_s_interval", interval),
        Column("interval covers", "interval_covers"),
        Column("p50 ms", lambda r: r.quantile_s(0.5), milliseconds, key="p50_s"),
        Column("p90 ms", lambda r: r.quantile_s(0.9), milliseconds, key="p90_s"),
        Column("p99 ms", lambda r: r.quantile_s(0.99), milliseconds, key="p99_s"),
        Column("sustained images/s", "sustained_images_per_s", optional=True),
        Column("J/image", "joules_per_image", optional=True),
        Column("samples", lambda r: len(r.times_s), str),
        Column("ended by", "ended_by"),
        NOISE,
        *fields("stopped_by", "unmet", "median_s", "compile_s", "times_s", "process_starts", raw=True),
        *ENVIRONMENT,
    ),
)
