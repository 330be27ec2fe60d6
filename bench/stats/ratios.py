"""Which of several calls is faster: interleaved visits, and the ratio of speeds that their rounds give.

A round visits every arm in a random order and then in the reverse order (ABBA), so that an arm's mean place
in the round is the same for all and a drift of the machine cancels. A visit is as many calls as fill
`Policy.min_visit_s`, one at the least: exactly as many for arms of nearly the same speed. Every ratio is that
of speeds against the first arm: reference time / arm time, above 1 where the arm is faster. No torch here:
the clock, the synchronisation and the clock meter are arguments.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from bench.measure import timing
from bench.stats import intervals, noise

if TYPE_CHECKING:
    from numpy import float64, int64
    from numpy.random import Generator
    from numpy.typing import NDArray

LOOK_CONFIDENCE = 0.998  # of the interval at one look; see `ratio_interval`
RESAMPLES = 20_000
MIN_ROUNDS = 10  # fewer give no verdict
ALIKE = 0.1  # passes that differ by less are visited with the same number of calls
MAX_CLOCK_GAP = 0.01  # of mean clocks, beyond which it is remarked; a step of a GPU's is 15 of some 2000 MHz

FASTER, SLOWER, SAME, OPEN, REFUSED = "faster", "slower", "same", "too close to call", "refused"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How to sample and when to stop. One round is made whatever the budget."""

    budget_s: float  # warm-up and rounds of all arms together
    margin: float = 0.01  # ratios within 1 +- margin are the same speed
    seed: int = 0  # of the order of visits
    min_rounds: int = MIN_ROUNDS
    look_growth: float = 1.5  # rounds at a look, as a multiple of those at the look before
    # the overhead of a visit, a clock read twice and a synchronisation, is some 10 us: 2e-4 of this
    min_visit_s: float = 0.05
    min_warmup_s: float = 0.5  # of each arm
    warmup_share: float = 1 / 3  # of the budget for the warm-up of all arms, at the most

    def __post_init__(self) -> None:
        if self.budget_s <= 0 or not 0 < self.margin < 1:
            raise ValueError(f"policy: needs a budget above 0 s and a margin in (0, 1), got {self}")
        if self.min_rounds < MIN_ROUNDS or self.look_growth <= 1:
            raise ValueError(
                f"policy: needs min_rounds of at least {MIN_ROUNDS} and a look_growth above 1, got {self}"
            )


class Visits(Protocol):
    """Every visit in the order it was made: what ratios are derived from."""

    @property
    def order(self) -> Sequence[int]:
        """The arm of each visit; a round is two visits of each arm."""

    @property
    def visits_s(self) -> Sequence[float]: ...

    @property
    def calls(self) -> Sequence[int]:
        """Calls in one visit of each arm."""

    @property
    def clocks_mhz(self) -> Sequence[float | None]:
        """The device's clock at the end of each visit; empty where nothing reads it."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All that was timed, in order."""

    order: tuple[int, ...]
    visits_s: tuple[float, ...]
    calls: tuple[int, ...]
    clocks_mhz: tuple[float | None, ...]
    warmup_times_s: tuple[tuple[float, ...], ...]  # single calls of each arm
    warmup_stationary: tuple[bool, ...]
    stopped_by: str  # verdicts, or budget
    unmet: tuple[str, ...]

    def recorded(self, margin: float) -> dict[str, Any]:
        """What bench.record.Interleaved holds, by its names."""
        return {**vars(self), "margin": margin}


def compare(
    calls: Sequence[Callable[[], object]],
    policy: Policy,
    *,
    clock: timing.Clock,
    synchronise: Callable[[], None],
    read_clock_mhz: Callable[[], float | None] | None = None,
) -> Compared:
    """Time several calls in turn until every one is known to be faster, slower or the same as the first.

    Args:
        calls: one pass of each arm, the reference first; work left running on a device is waited for at the
            end of a visit, not between its calls.
        policy: how to sample and when to stop.
        clock: seconds now.
        synchronise: waits until the device has finished.
        read_clock_mhz: the device's clock now, None where it cannot be read; called outside the timed region.

    Raises:
        ValueError: fewer than two calls.
    """
    if len(calls) < 2:
        raise ValueError(f"calls: a comparison needs at least two, got {len(calls)}")
    started = clock()
    each = timing.Policy(
        budget_s=policy.budget_s / len(calls),
        min_warmup_s=policy.min_warmup_s,
        warmup_share=policy.warmup_share,
    )
    warm = [timing.warm_up(call, each, clock=clock, synchronise=synchronise) for call in calls]

    draw = random.Random(policy.seed)
    made = _Growing(calls=_calls_of_a_visit([one.wall_s for one in warm], policy))
    next_look = policy.min_rounds
    unmet: list[str] = []
    while True:
        round_began = clock()
        there = draw.sample(range(len(calls)), len(calls))
        for arm in [*there, *reversed(there)]:
            made.order.append(arm)
            made.visits_s.append(_visit(calls[arm], made.calls[arm], clock, synchronise))
            if read_clock_mhz is not None:
                made.clocks_mhz.append(read_clock_mhz())
        rounds = len(made.order) // (2 * len(calls))
        now = clock()
        out_of_budget = now - started + (now - round_began) > policy.budget_s
        if rounds >= next_look or out_of_budget:
            unmet = _unmet(made, rounds, policy)
            if not unmet or out_of_budget:
                break
            next_look = math.ceil(rounds * policy.look_growth)
    return Compared(
        order=tuple(made.order),
        visits_s=tuple(made.visits_s),
        calls=made.calls,
        clocks_mhz=tuple(made.clocks_mhz),
        warmup_times_s=tuple(one.wall_s for one in warm),
        warmup_stationary=tuple(one.stationary for one in warm),
        stopped_by="budget" if unmet else "verdicts",
        unmet=tuple(unmet),
    )


@dataclass(frozen=True, kw_only=True)
class _Growing:
    """The visits so far."""

    calls: tuple[int, ...]
    order: list[int] = field(default_factory=list)
    visits_s: list[float] = field(default_factory=list)
    clocks_mhz: list[float | None] = field(default_factory=list)


def _visit(
    call: Callable[[], object], times: int, clock: timing.Clock, synchronise: Callable[[], None]
) -> float:
    synchronise()
    begin = clock()
    for _ in range(times):
        call()
    synchronise()
    return clock() - begin


def _calls_of_a_visit(warmups: Sequence[Sequence[float]], policy: Policy) -> tuple[int, ...]:
    """Calls that fill `min_visit_s`, one at the least, by the fastest warm-up pass of each arm.

    A longer visit is interrupted more often: that alone would tell equal arms apart. So an arm that is nearly
    as fast as one before it, the reference first, gets exactly as many calls. Visits of other arms may differ
    in length by as much as their passes do; that moves their ratio by no more than the share of the time that
    interruptions take, too little to take a faster arm for a slower one. Visits as long as the slowest
    arm's would not: but with one slow arm, rounds would be too few for any verdict.
    """
    passes = [min(times) for times in warmups]
    if min(passes) <= 0:  # a clock too coarse to see a pass
        return (1,) * len(passes)
    calls: list[int] = []
    for one in passes:
        alike = (known for known, other in zip(calls, passes, strict=False) if abs(one / other - 1) < ALIKE)
        calls.append(next(alike, max(1, round(policy.min_visit_s / one))))
    return tuple(calls)


def _unmet(visits: Visits, rounds: int, policy: Policy) -> list[str]:
    """Name what sampling would go on for."""
    if rounds < policy.min_rounds:
        return [f"at least {policy.min_rounds} rounds"]
    arms = range(1, len(visits.calls))
    still_open = sum(verdict(ratio_interval(visits, arm), policy.margin) == OPEN for arm in arms)
    return [f"a verdict on {still_open} of {len(arms)}"] if still_open else []


def seconds_per_call(visits: Visits, arm: int) -> tuple[float, ...]:
    """Mean seconds of a call in each visit of an arm, in order."""
    return tuple(
        seconds / visits.calls[arm]
        for at, seconds in zip(visits.order, visits.visits_s, strict=True)
        if at == arm
    )


def log_ratios(visits: Visits, arm: int, against: int = 0) -> tuple[float, ...]:
    """log(time of `against` / arm time) of every round, each time the geometric mean of its two visits."""
    reference, other = seconds_per_call(visits, against), seconds_per_call(visits, arm)
    return tuple(
        (math.log(reference[i] * reference[i + 1]) - math.log(other[i] * other[i + 1])) / 2
        for i in range(0, len(reference), 2)
    )


def ratio(visits: Visits, arm: int, against: int = 0) -> float:
    """Speed of an arm as a multiple of another's, the reference's: the median round's ratio of times."""
    return math.exp(intervals.median(log_ratios(visits, arm, against)))


def ratio_interval(visits: Visits, arm: int, against: int = 0) -> tuple[float, float] | None:
    """99 % interval of the ratio of speeds: a percentile bootstrap of the median round.

    Rounds are resampled, each with its pair of times, so what disturbs both arms of a round cancels. The
    median, because a pass that the machine interrupted must not decide; percentile rather than BCa, because
    the latter's acceleration comes from a jackknife, which does not converge for a median, while percentile
    ends are order statistics, as those of the sign test. Each look takes a 99.8 % interval: sampling stops
    at the look that decides, and over ten looks at growing rounds that leaves 99 % for all of them.

    Returns:
        (low, high), or None with fewer than `MIN_ROUNDS` rounds.
    """
    import numpy

    rounds = log_ratios(visits, arm, against)
    if len(rounds) < MIN_ROUNDS:
        return None
    ends = [(1 - LOOK_CONFIDENCE) / 2, (1 + LOOK_CONFIDENCE) / 2]
    low, high = numpy.quantile(resampled_medians(rounds), ends)
    return math.exp(low), math.exp(high)


def resampled_medians(values: Sequence[float], draw: "Generator | None" = None) -> "NDArray[float64]":
    """Medians of `RESAMPLES` resamples with replacement; by default seeded, the same every time.

    A resample's k-th smallest value is the one at the rank of the k-th smallest of n uniform numbers, which
    has a beta distribution: that is drawn, so the cost does not grow with n.
    """
    import numpy

    draw = numpy.random.default_rng(0) if draw is None else draw
    ordered = numpy.sort(values)
    n = len(ordered)
    k = (n + 1) // 2
    middle = draw.beta(k, n - k + 1, RESAMPLES)
    if n % 2:
        return ordered[_rank(middle, n)]
    above = 1 - (1 - middle) * draw.random(RESAMPLES) ** (
        1 / (n - k)
    )  # the smallest of the n - k larger ones
    return (ordered[_rank(middle, n)] + ordered[_rank(above, n)]) / 2


def _rank(uniform: "NDArray[float64]", n: int) -> "NDArray[int64]":
    return (uniform * n).astype(int).clip(max=n - 1)


def verdict(interval: tuple[float, float] | None, margin: float) -> str:
    """Say what an interval of a ratio of speeds means: faster, slower, same or too close to call."""
    if interval is None:
        return OPEN
    low, high = interval
    if low > 1 + margin:
        return FASTER
    if high < 1 - margin:
        return SLOWER
    return SAME if 1 - margin <= low and high <= 1 + margin else OPEN


def mean_clock_mhz(visits: Visits, arm: int) -> float | None:
    """Mean of the clocks read after the visits of an arm; None where none was read."""
    clocks = [
        clock
        for at, clock in zip(visits.order, visits.clocks_mhz, strict=False)
        if at == arm and clock is not None
    ]
    return sum(clocks) / len(clocks) if clocks else None


def clock_remark(visits: Visits, arm: int, against: int = 0) -> str:
    """Say by how much an arm's mean clock differs from another's, the reference's; blank up to 1 %.

    Rounds are in random order, so that no state of the machine keeps to one arm: a steady difference is what
    the arms themselves make of the clock, as under a power cap, which busier units reach sooner. It belongs
    to their speeds on this device, and refuses nothing.
    """
    reference, other = mean_clock_mhz(visits, against), mean_clock_mhz(visits, arm)
    if reference is None or other is None or abs(other / reference - 1) <= MAX_CLOCK_GAP:
        return ""
    gap = 100 * (other / reference - 1)
    return f"clock {gap:+.1f} %, {other:.0f} MHz against {reference:.0f} MHz of the reference"


def why_refused(visits: Visits, arm: int, against: int = 0) -> str | None:
    """Say why an arm must not be compared with another, the reference: their clocks drifted apart; None else.

    They did if one clock as a multiple of the other, round by round, has a trend as `noise.drift` names it:
    2 % or more from the first third of the rounds to the last, which is no chance. The ratio of speeds is
    then not one number. A drift of both alike cancels in every round. Without readings of either, or with
    fewer than `MIN_ROUNDS` of them, there is nothing to refuse.
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
        [clock for at, clock in zip(visits.order, visits.clocks_mhz, strict=False) if at == one]
        for one in (arm, against)
    )
    gaps = []
    for i in range(0, len(ours), 2):
        a, b, c, d = *ours[i : i + 2], *theirs[i : i + 2]
        if a and b and c and d:
            gaps.append((a + b) / (c + d))
    return gaps
