"""Where the time of passes goes, as torch.profiler measures it."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import ModelCase, Record, register
from bench.stats import intervals, noise

REST = "other"  # the rest of a pass, beside its kinds of operators or its modules


@dataclass(frozen=True, kw_only=True)
class ProfileCase(ModelCase):
    """Profiling inference passes of one model."""

    kind: ClassVar[str] = "profile"

    by: str  # kind of operator, or module

    @property
    def label(self) -> str:
        return f"by {self.by} {super().label}"


@register
@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """Seconds of every profiled pass, by part."""

    case: ProfileCase
    # of the device; the part REST is below 0 where the others sum to more than the pass
    seconds: tuple[tuple[str, tuple[float, ...]], ...]
    wall_s: tuple[float, ...]  # under the profiler

    def __post_init__(self) -> None:
        if odd := [len(times) for _, times in self.seconds if len(times) != self.passes]:
            raise ValueError(f"{self.case.model}: {self.passes} passes cannot have {odd[0]} samples")

    @property
    def passes(self) -> int:
        return len(self.wall_s)

    @property
    def samples(self) -> dict[str, tuple[float, ...]]:
        """Seconds of every pass, by part."""
        return dict(self.seconds)

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by part. They sum to about the median pass, and shares are those of their sum."""
        return {name: max(0.0, intervals.median(times)) for name, times in self.seconds}

    @property
    def median_wall_s(self) -> float:
        return intervals.median(self.wall_s)

    @property
    def whole_s(self) -> tuple[float, ...]:
        """Seconds of the device in every pass."""
        return tuple(map(sum, zip(*self.samples.values(), strict=True)))

    @property
    def spread(self) -> float | None:
        """How much whole passes differ, as a share; None with one pass."""
        return noise.spread(self.whole_s)

    @property
    def noise(self) -> tuple[str, ...]:
        """Why the shares are not to be relied on, by name and size; empty where nothing says so."""
        found = []
        if self.spread is not None and self.spread > noise.MAX_SPREAD:
            found.append(f"passes differ by {100 * self.spread:.0f} %")
        whole, excess = intervals.median(self.whole_s), -intervals.median(self.samples.get(REST, (0.0,)))
        if excess > noise.MAX_EXCESS * whole > 0:
            found.append(f"operators sum to {100 * excess / whole:.0f} % more than the pass")
        return tuple(found)

    def describe_passes(self) -> str:
        """How many passes were profiled, how much they differ, and whether that disturbs the shares."""
        text = "one pass"
        if self.spread is not None:
            text = f"median of {self.passes} passes, spread {100 * self.spread:.0f} %"
        return f"{text}; DISTURBED: {', '.join(self.noise)}" if self.noise else text
