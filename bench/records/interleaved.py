"""Interleaved rounds over two or more arms, and the rows of their tables."""

import math
from dataclasses import dataclass
from typing import Any

from bench.records.base import Environment, Record
from bench.records.quantities import SPEEDS, Quantity, are_times
from bench.stats import processes, ratios


@dataclass(frozen=True, kw_only=True)
class Interleaved(ratios.Rounds, Record):
    """Visits of interleaved rounds over arms, the reference first; ratios are reference time / arm time."""

    order: tuple[int, ...]  # the arm of each visit; a round is two visits of each arm
    visits_s: tuple[float, ...]  # wall clock of each visit, device synchronised
    calls: tuple[int, ...]  # per visit, for each arm
    clocks_mhz: tuple[float | None, ...]  # of the device, after each visit; empty without a clock meter
    warmup_times_s: tuple[tuple[float, ...], ...]  # single calls of each arm, not in the statistics
    warmup_stationary: tuple[bool, ...]
    margin: float  # ratios within 1 +- margin are the same speed
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # criteria not met when sampling ended
    process_starts: tuple[int, ...] = ()  # index of the first round of every process but the first

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in order."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        arms = len(self.calls)
        if arms < 2 or min(self.calls) < 1:
            raise ValueError(f"rounds: need two or more arms, each with its calls, got {arms} arms")
        if len(self.visits_s) != len(self.order) or not are_times(self.visits_s):
            raise ValueError("rounds: need a time from 1e-12 to 1e9 s for every visit")
        if any(self.order.count(arm) * arms != len(self.order) for arm in range(arms)):
            raise ValueError("rounds: every arm needs the same number of visits")
        if self.clocks_mhz and len(self.clocks_mhz) != len(self.order):
            raise ValueError("rounds: need a clock for every visit, or none at all")
        processes.check(self.process_starts, self.rounds)

    def verdict(self, arm: int) -> str:
        """As `ratios.verdict`, or refused; of one process, "faster within one process"."""
        if self.why_refused(arm) is not None:
            return ratios.REFUSED
        found = ratios.verdict(self.interval(arm), self.margin)
        return f"{found} {processes.ONE}" if self.processes == 1 else found

    @property
    def quantities(self) -> list[Quantity]:
        """Times of every arm, and its speeds as multiples of the reference's."""
        times = [
            Quantity.of_times(f"median of {name}", self.by_process_s(arm))
            for arm, name in enumerate(self.arms)
        ]
        speeds = [
            Quantity(
                group=SPEEDS,
                name=f"speed of {name} / {self.arms[0]}",
                unit="x",
                processes=tuple(tuple(map(math.exp, logs)) for logs in self.log_ratios(arm)),
            )
            for arm, name in enumerate(self.arms)
            if arm
        ]
        return [*times, *speeds]


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """A row: one arm of interleaved rounds, or one that was not timed."""

    record: Record
    arm: int | None  # 0: the reference; None: not timed
    status: str = "ok"
    failure: str = ""  # why it was not timed

    @property
    def compared(self) -> Any:  # noqa: ANN401 - Interleaved, for a row with an arm
        return self.record

    @property
    def environment(self) -> Environment:
        return self.record.environment

    @property
    def times_s(self) -> list[float]:
        return [] if self.arm is None else [*self.compared.times_s(self.arm)]

    @property
    def ratio(self) -> float | None:
        """Speed relative to the reference; None for the reference itself."""
        return self.compared.ratio(self.arm) if self.arm else None

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        return self.compared.interval(self.arm) if self.arm else None

    @property
    def verdict(self) -> str:
        if self.arm is None:
            return self.status
        return self.compared.verdict(self.arm) if self.arm else "reference"

    @property
    def reason(self) -> str:
        """The reason for a missing verdict; blank with a verdict."""
        return self.failure or (self.compared.why_refused(self.arm) if self.arm else None) or ""

    @property
    def remark(self) -> str:
        return "" if self.arm is None else self.compared.clock_remark(self.arm)

    @property
    def noise(self) -> tuple[str, ...]:
        return () if self.arm is None else self.compared.noise(self.arm)
