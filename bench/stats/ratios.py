"""Ratios of speeds from interleaved visits, with intervals and verdicts.

A ratio compares the speed of an arm with a reference, by default the first arm: reference time / arm time. It
is above 1 if the arm is faster.
"""

import math
from collections.abc import Sequence
from statistics import fmean

from bench.stats import intervals, noise, processes

CONFIDENCE = 0.99
MIN_ROUNDS = 10  # fewer show no drift of clocks
MAX_CLOCK_GAP = 0.01  # relative difference of mean clocks without a remark; a GPU's step is 15 of 2000 MHz

LEAST_ROUNDS = 8  # of one process that bound a ratio at CONFIDENCE, by the sign test

FASTER, SLOWER, SAME, INCONCLUSIVE, REFUSED = "faster", "slower", "same", "too close to call", "refused"
TOO_FEW = "too few rounds"  # to bound the ratio


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


class Rounds(processes.OverProcesses):
    """Every visit of interleaved rounds in order of time: the source of all ratios."""

    order: tuple[int, ...]  # the arm of each visit; a round is two visits of each arm
    visits_s: tuple[float, ...]  # wall clock of each visit, device synchronised
    calls: tuple[int, ...]  # per visit, for each arm
    clocks_mhz: tuple[float | None, ...]  # of the device, after each visit; empty without a clock meter

    @property
    def rounds(self) -> int:
        return len(self.order) // (2 * len(self.calls))

    def times_s(self, arm: int) -> tuple[float, ...]:
        """Mean seconds of a call in each visit of an arm, in order."""
        visits = zip(self.order, self.visits_s, strict=True)
        return tuple(seconds / self.calls[arm] for visited, seconds in visits if visited == arm)

    def by_process_s(self, arm: int) -> tuple[Sequence[float], ...]:
        """The times of an arm, by process."""
        starts = [2 * start for start in self.process_starts]  # two visits in a round
        return processes.split(self.times_s(arm), starts)

    def log_ratios(self, arm: int, against: int = 0) -> tuple[Sequence[float], ...]:
        """log(time of `against` / arm time) of every round, by process; the geometric mean of two visits."""
        reference, other = self.times_s(against), self.times_s(arm)
        logs = tuple(
            (math.log(reference[i] * reference[i + 1]) - math.log(other[i] * other[i + 1])) / 2
            for i in range(0, len(reference), 2)
        )
        return processes.split(logs, self.process_starts)

    def ratio(self, arm: int, against: int = 0) -> float:
        """Speed of an arm / speed of the arm `against`: mean over processes of the median round."""
        return math.exp(fmean(map(intervals.median, self.log_ratios(arm, against))))

    def interval(self, arm: int, against: int = 0) -> tuple[float, float] | None:
        """99 % interval of the ratio of speeds, by Student's t over processes; of one process, of its median.

        A disturbance of both arms of a round cancels, and the median is robust against interrupted passes. A
        regime that an arm keeps for a whole process does not cancel: only other processes show it. None for
        one process with too few rounds.
        """
        return processes.interval_of_logs(self.log_ratios(arm, against), CONFIDENCE)

    def noise(self, arm: int) -> tuple[str, ...]:
        """Disturbances of the visits of an arm, with their sizes; empty without any."""
        return noise.noise(self.by_process_s(arm), self._read_clocks_mhz(arm))

    def _clocks_mhz(self, arm: int) -> list[float | None]:
        """The reading after each visit of an arm; empty without a clock meter."""
        visits = zip(self.order, self.clocks_mhz, strict=False)
        return [clock for visited, clock in visits if visited == arm]

    def _read_clocks_mhz(self, arm: int) -> list[float]:
        return [clock for clock in self._clocks_mhz(arm) if clock is not None]

    def mean_clock_mhz(self, arm: int) -> float | None:
        """Mean of the clocks read after the visits of an arm; None without readings."""
        clocks = self._read_clocks_mhz(arm)
        return sum(clocks) / len(clocks) if clocks else None

    def clock_remark(self, arm: int, against: int = 0) -> str:
        """The difference of two arms' mean clocks in words; blank up to 1 %.

        Rounds are in random order, so a steady difference is caused by the arms themselves, for example under
        a power cap. The difference is part of their speeds on this device; the comparison remains valid.
        """
        reference, other = self.mean_clock_mhz(against), self.mean_clock_mhz(arm)
        if reference is None or other is None or abs(other / reference - 1) <= MAX_CLOCK_GAP:
            return ""
        gap = 100 * (other / reference - 1)
        return f"clock {gap:+.1f} %, {other:.0f} MHz against {reference:.0f} MHz of the reference"

    def why_refused(self, arm: int, against: int = 0) -> str | None:
        """Reason why a comparison is invalid (the ratio of the clocks drifted), or None.

        A drift is a significant trend of the clock ratio over the rounds (`noise.drift`) of 2 % or more from
        the first third to the last: the ratio of speeds then changes during the measurement. A drift common
        to both clocks cancels in every round. Rounds without all four readings do not count; with fewer than
        `MIN_ROUNDS` others the result is None.
        """
        ours, theirs = self._clocks_mhz(arm), self._clocks_mhz(against)
        gaps = []
        for i in range(0, len(ours), 2):
            a, b, c, d = *ours[i : i + 2], *theirs[i : i + 2]
            if a and b and c and d:
                gaps.append((a + b) / (c + d))
        change = noise.drift(gaps) if len(gaps) >= MIN_ROUNDS else None
        if change is None:
            return None
        return (
            f"clocks drifted apart: this one's by {100 * change:+.1f} % against the reference's, from the "
            "first third of the rounds to the last; lock the clocks, or give the device time to settle"
        )
