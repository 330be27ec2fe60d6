"""Time of passes by part, measured with torch.profiler."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import ModelCase, Record
from bench.records.registry import register
from bench.stats import intervals, noise

REST = "other"  # time of a pass outside the named kinds of operators or modules


@dataclass(frozen=True, kw_only=True)
class ProfileCase(ModelCase):
    """Profiling inference passes of one model."""

    kind: ClassVar[str] = "profile"

    by: str  # kind of operator, or module

    @property
    def label(self) -> str:
        return f"by {self.by} {super().label}"

    @property
    def command(self) -> tuple[object, ...]:
        words = "bench.roofline", *self.size_options, "--precision", self.precision, "--device", self.device
        return *words, "--by", self.by, "--profile"


@register
@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """Seconds of every profiled pass, by part."""

    case: ProfileCase
    # (part, seconds of each pass) on the device; REST is negative if the other parts exceed the pass
    seconds: tuple[tuple[str, tuple[float, ...]], ...]
    wall_s: tuple[float, ...]  # wall clock, profiler overhead included

    def __post_init__(self) -> None:
        if odd := [len(times) for _, times in self.seconds if len(times) != self.passes]:
            raise ValueError(f"{self.case.model}: {self.passes} passes cannot have {odd[0]} samples")

    @property
    def passes(self) -> int:
        return len(self.wall_s)

    @property
    def samples(self) -> dict[str, tuple[float, ...]]:
        return dict(self.seconds)

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by part. Their sum is close to the median pass; shares refer to the sum."""
        return {name: max(0.0, intervals.median(times)) for name, times in self.seconds}

    @property
    def median_wall_s(self) -> float:
        return intervals.median(self.wall_s)

    @property
    def whole_s(self) -> tuple[float, ...]:
        """Device seconds of every pass."""
        return tuple(map(sum, zip(*self.samples.values(), strict=True)))

    @property
    def spread(self) -> float | None:
        """Relative range of whole passes (`noise.spread`); None with one pass."""
        return noise.spread(self.whole_s)

    @property
    def noise(self) -> tuple[str, ...]:
        """Reasons why the shares are unreliable, with their sizes; empty without any."""
        found = []
        if self.spread is not None and self.spread > noise.MAX_SPREAD:
            found.append(f"passes differ by {100 * self.spread:.0f} %")
        whole, excess = intervals.median(self.whole_s), -intervals.median(self.samples.get(REST, (0.0,)))
        if excess > noise.MAX_EXCESS * whole > 0:
            found.append(f"operators sum to {100 * excess / whole:.0f} % more than the pass")
        return tuple(found)

    def describe_passes(self) -> str:
        """Number of profiled passes, their spread, and reasons why the shares are unreliable."""
        text = "one pass"
        if self.spread is not None:
            text = f"median of {self.passes} passes, spread {100 * self.spread:.0f} %"
        return f"{text}; DISTURBED: {', '.join(self.noise)}" if self.noise else text
