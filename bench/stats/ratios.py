"""Ratios of speeds from interleaved visits, with intervals and verdicts.

A ratio compares the speed of an arm with a reference, by default the first arm: reference time / arm time. It
is above 1 if the arm is faster.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Protocol

from bench.stats import intervals, noise, processes

CONFIDENCE = 0.99
MIN_ROUNDS = 10  # fewer show no drift of clocks
MAX_CLOCK_GAP = 0.01  # relative difference of mean clocks without a remark; a GPU's step is 15 of 2000 MHz

LEAST_ROUNDS = 8  # of one process that bound a ratio at CONFIDENCE, by the sign test

FASTER, SLOWER, SAME, INCONCLUSIVE, REFUSED = "faster", "slower", "same", "too close to call", "refused"
TOO_FEW = "too few rounds"  # to bound the ratio


class Visits(Protocol):
    """Every visit in order of time; the source of all ratios."""

    @property
    def order(self) -> Sequence[int]:
        """The arm of each visit; a round is two visits of each arm."""

    @property
    def visits_s(self) -> Sequence[float]: ...

    @property
    def calls(self) -> Sequence[int]:
        """Number of calls in one visit, for each arm."""

    @property
    def process_starts(self) -> Sequence[int]:
        """Index of the first round of every process but the first."""

    @property
    def clocks_mhz(self) -> Sequence[float | None]:
        """Device clock at the end of each visit; empty without a clock meter."""


def seconds_per_call(visits: Visits, arm: int) -> tuple[float, ...]:
    """Mean seconds of a call in each visit of an arm, in order."""
    return tuple(
        seconds / visits.calls[arm]
        for visited, seconds in zip(visits.order, visits.visits_s, strict=True)
        if visited == arm
    )


def log_ratios(visits: Visits, arm: int, against: int = 0) -> tuple[float, ...]:
    """log(time of `against` / arm time) of every round; a time is the geometric mean of two visits."""
    reference, other = seconds_per_call(visits, against), seconds_per_call(visits, arm)
    return tuple(
        (math.log(reference[i] * reference[i + 1]) - math.log(other[i] * other[i + 1])) / 2
        for i in range(0, len(reference), 2)
    )


def by_process(visits: Visits, arm: int, against: int = 0) -> tuple[Sequence[float], ...]:
    """The log ratios of every round, by process."""
    return processes.split(log_ratios(visits, arm, against), visits.process_starts)


def ratio(visits: Visits, arm: int, against: int = 0) -> float:
    """Speed of an arm / speed of the arm `against`: mean over processes of the median round."""
    return math.exp(fmean(map(intervals.median, by_process(visits, arm, against))))


def ratio_interval(visits: Visits, arm: int, against: int = 0) -> tuple[float, float] | None:
    """99 % interval of the ratio of speeds, by Student's t over processes; of one process, of its median.

    A disturbance of both arms of a round cancels, and the median is robust against interrupted passes. A
    regime that an arm keeps for a whole process does not cancel: only other processes show it. None for one
    process with too few rounds.
    """
    return processes.interval_of_logs(by_process(visits, arm, against), CONFIDENCE)


def verdict(interval: tuple[float, float] | None, margin: float) -> str:
    """Verdict of the interval of a speed ratio: faster, slower, same, too close to call or too few rounds."""
    if interval is None:
        return TOO_FEW
    low, high = interval
    if low > 1 + margin:
        return FASTER
    if high < 1 - margin:
        return SLOWER
    return SAME if 1 - margin <= low and high <= 1 + margin else INCONCLUSIVE


def mean_clock_mhz(visits: Visits, arm: int) -> float | None:
    """Mean of the clocks read after the visits of an arm; None without readings."""
    clocks = [
        clock
        for visited, clock in zip(visits.order, visits.clocks_mhz, strict=False)
        if visited == arm and clock is not None
    ]
    return sum(clocks) / len(clocks) if clocks else None


def clock_remark(visits: Visits, arm: int, against: int = 0) -> str:
    """The difference of two arms' mean clocks in words; blank up to 1 %.

    Rounds are in random order, so a steady difference is caused by the arms themselves, for example under a
    power cap. The difference is part of their speeds on this device; the comparison remains valid.
    """
    reference, other = mean_clock_mhz(visits, against), mean_clock_mhz(visits, arm)
    if reference is None or other is None or abs(other / reference - 1) <= MAX_CLOCK_GAP:
        return ""
    gap = 100 * (other / reference - 1)
    return f"clock {gap:+.1f} %, {other:.0f} MHz against {reference:.0f} MHz of the reference"


def why_refused(visits: Visits, arm: int, against: int = 0) -> str | None:
    """Reason why a comparison is invalid (the ratio of the clocks drifted), or None.

    A drift is a significant trend of the clock ratio over the rounds (`noise.drift`) of 2 % or more from the
    first third to the last: the ratio of speeds then changes during the measurement. A drift common to both
    clocks cancels in every round. Without readings, or with fewer than `MIN_ROUNDS` rounds, the result is
    None.
    """
    gaps = _clock_gaps(visits, arm, against)
    change = noise.drift(gaps) if len(gaps) >= MIN_ROUNDS else None
    if change is None:
        return None
    return (
        f"clocks drifted apart: this one's by {100 * change:+.1f} % against the reference's, from the first "
        "third of the rounds to the last; lock the clocks, or give the device time to settle"
    )


def _clock_gaps(visits: Visits, arm: int, against: int) -> list[float]:
    """Clock of an arm / clock of another, in every round that has all four readings."""
    ours, theirs = (
        [clock for visited, clock in zip(visits.order, visits.clocks_mhz, strict=False) if visited == which]
        for which in (arm, against)
    )
    gaps = []
    for i in range(0, len(ours), 2):
        a, b, c, d = *ours[i : i + 2], *theirs[i : i + 2]
        if a and b and c and d:
            gaps.append((a + b) / (c + d))
    return gaps
