"""Samples of a record that are compared with those of another record of its case."""

from collections.abc import Sequence
from dataclasses import dataclass


def are_times(seconds: Sequence[float]) -> bool:
    """Whether these are times that ratios and logarithms can bear: at least one, all from 1e-12 to 1e9 s."""
    return bool(seconds) and min(seconds) >= 1e-12 and max(seconds) <= 1e9


TIMES, SUSTAINED, SPEEDS, PEAKS = GROUPS = ("times", "sustained times", "ratios of speeds", "peak memory")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Samples of one quantity of a record."""

    group: str  # of GROUPS
    name: str
    unit: str  # ms, x or MiB
    processes: tuple[Sequence[float], ...]  # samples of each process
    exact: bool = False  # one value without noise

    @classmethod
    def of_times(cls, name: str, processes_s: Sequence[Sequence[float]], group: str = TIMES) -> "Quantity":
        in_ms = tuple(tuple(1e3 * time for time in times_s) for times_s in processes_s)
        return cls(group=group, name=name, unit="ms", processes=in_ms)

    @property
    def samples(self) -> tuple[float, ...]:
        return tuple(sample for samples in self.processes for sample in samples)
