"""Times of complete sampling chains, from noise to samples, guidance included."""

from dataclasses import dataclass
from typing import Any, ClassVar

from bench.records.base import TRAINING, ModelCase, Record
from bench.records.columns import ENVIRONMENT, RUN
from bench.records.quantities import are_times
from bench.records.registry import register
from bench.records.telemetry import Telemetry, joules_per_image
from bench.stats import intervals, processes, series
from bench.tables.numbers import interval
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class SamplingCase(ModelCase):
    """Drawing samples of one network; `batch` is the number of images of a chain."""

    kind: ClassVar[str] = "sample"
    view: ClassVar[str] = TRAINING

    objective: str  # of bench.records.training.OBJECTIVES
    sampler: str  # ancestral, ddim, sde, euler or heun
    steps: int
    guidance: float  # scale; 1: none
    guided_channels: int
    images: int
    seed: int
    classes: tuple[int, ...]  # labels of the images, repeated in order; empty: all classes

    @property
    def chain(self) -> str:
        """The chain in words: 64 by ddim of iddpm in 50 steps, seed 0."""
        words = [f"{self.images} by {self.sampler} of {self.objective} in {self.steps} steps"]
        words += [f"seed {self.seed}"]
        words += [f"guidance {self.guidance:g} of {self.guided_channels} channels"] * (self.guidance != 1)
        words += [f"classes {' '.join(map(str, self.classes))}"] * bool(self.classes)
        return ", ".join(words)

    @property
    def label(self) -> str:
        return f"{super().label}, {self.chain}"

    @property
    def command(self) -> tuple[object, ...]:
        ema = self.weights.partition(", ema ")[2]
        sizes = ["--batch", self.batch] if ema else self.size_options
        words = ["bench.sample", *sizes, "--objective", self.objective, "--sampler", self.sampler]
        words += ["--steps", self.steps, "--guidance", f"{self.guidance:g}", "--n", self.images]
        words += ["--guided-channels", self.guided_channels] * (self.guidance != 1)
        words += ["--seed", self.seed, "--device", self.device, "--precision", self.precision]
        words += ["--classes", *self.classes] if self.classes else []
        words += [*self.weights_options, *["--ema", ema] * bool(ema)]
        return *words, *self.switch_options()


@dataclass(frozen=True, kw_only=True)
class TimedChains(Record):
    """Times of chains."""

    case: SamplingCase
    passes: int  # of the network in a chain; with guidance each has twice the batch
    times_s: tuple[float, ...]  # wall clock of each chain, from its noise on, device synchronised
    build_s: float
    compile_s: float | None  # the first pass of the compiled model; None without torch.compile
    matmul_tf32: bool
    conv_tf32: bool
    telemetry: Telemetry | None  # of the last session's chains

    def __post_init__(self) -> None:
        if not are_times(self.times_s):
            raise ValueError(f"{self.case.model}: needs at least one time, all from 1e-12 to 1e9 s")

    @property
    def median_s(self) -> float:
        return intervals.median(self.times_s)

    def rate(self, seconds: float) -> float:
        """Images a second of a chain that takes `seconds`."""
        return self.case.batch / seconds

    @property
    def images_per_s(self) -> float:
        return self.rate(self.median_s)

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        """95 % interval within this process; None with fewer than six chains."""
        interval = series.median_interval(self.times_s)
        return interval and (self.rate(interval[1]), self.rate(interval[0]))

    @property
    def result(self) -> str:
        return self.case.chain

    @property
    def joules_per_image(self) -> float | None:
        """From the energy counter, with idle power and work between chains; None without a reading."""
        return joules_per_image(self.telemetry, self.case.batch)


@register
@dataclass(frozen=True, kw_only=True)
class SamplingRun(TimedChains):
    """Times of chains, from the noise to samples of the network."""


CHAIN: tuple[Column[Any], ...] = (  # of every table of chains
    *RUN,
    Column("weights", "case.weights", optional=True, usual="random"),
    *fields("case.objective", "case.sampler", "case.steps"),
    Column("guidance", "case.guidance", "{:g}".format),
    *fields("case.guided_channels", "case.seed", raw=True),
    Column("images/s", "images_per_s"),
    Column("95 % interval", "images_per_s_interval", interval),
    Column("interval covers", lambda r: processes.ONE, key="interval_covers"),
    Column("s/chain", "median_s"),
)
EFFORT: tuple[Column[Any], ...] = (
    *fields("passes"),
    Column("chains", lambda r: len(r.times_s)),
    Column("J/image", "joules_per_image", optional=True),
    *fields("compile_s", "times_s", raw=True),
    *ENVIRONMENT,
)
TABLE = Table[SamplingRun](title="Speed of whole sampling chains", columns=(*CHAIN, *EFFORT))
