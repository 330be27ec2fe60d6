"""Interleaved timing of several calls in one process, until every ratio is precise.

A round visits every arm in a random order and then in the reverse order (ABBA): the mean position is equal
for all arms, and a linear drift of the machine cancels. A visit is at least one call and fills
`Policy.min_visit_s`; arms of similar speed get equal numbers of calls. The clock, the synchronisation and the
clock meter are arguments, so that tests need no device.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.measure import timing
from bench.stats.ratios import MIN_ROUNDS, Rounds
from bench.stats.series import median_interval

LOOK_GROWTH = 1.5  # rounds at a look / rounds at the previous look
SIMILAR = 0.1  # arms whose pass times differ by less get the same number of calls in a visit


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Sampling and stopping rules. At least one round runs, whatever the budget."""

    budget_s: float  # warm-up and rounds of all arms together
    margin: float = 0.01  # ratios within 1 +- margin are the same speed
    seed: int = 0  # of the order of visits
    # the overhead of a visit (two clock reads and a synchronisation) is about 10 us, a share of 2e-4
    min_visit_s: float = 0.05
    min_warmup_s: float = 0.5  # of each arm
    warmup_share: float = 1 / 3  # maximum share of the budget for the warm-up of all arms


@dataclass(frozen=True, kw_only=True)
class Compared(Rounds):
    """All visits, in order."""

    order: tuple[int, ...]
    visits_s: tuple[float, ...]
    calls: tuple[int, ...]
    clocks_mhz: tuple[float | None, ...]
    warmup_times_s: tuple[tuple[float, ...], ...]  # single calls of each arm
    warmup_stationary: tuple[bool, ...]
    stopped_by: str = ""  # precision, or budget
    unmet: tuple[str, ...] = ()
    process_starts: tuple[int, ...] = ()

    def fields(self, margin: float) -> dict[str, Any]:
        return {**vars(self), "margin": margin}


def compare(
    calls: Sequence[Callable[[], object]],
    policy: Policy,
    *,
    clock: timing.Clock,
    synchronise: Callable[[], None],
    read_clock_mhz: Callable[[], float | None] | None = None,
    calls_of_visit: tuple[int, ...] | None = None,
    settle: Callable[[], None] = lambda: None,
    after_visit: Callable[[int], None] = lambda arm: None,
) -> Compared:
    """Time several calls in turn until the interval of each ratio to the first is as narrow as the margin.

    Args:
        calls: one pass of each arm, the reference first; the device is synchronised after each visit, not
            between its calls.
        read_clock_mhz: returns the device's clock, or None if unavailable; called outside the timed region.
        after_visit: called with the arm after each visit, outside the timed region.
        calls_of_visit: of each arm, as in an earlier process; None: chosen from the warm-up.
        settle: called before each visit, outside the timed region.
    """
    started = clock()
    each = timing.Policy(
        budget_s=policy.budget_s / len(calls),
        min_warmup_s=policy.min_warmup_s,
        warmup_share=policy.warmup_share,
    )
    warm = []
    for call in calls:
        settle()
        warm.append(timing.warm_up(call, each, clock=clock, synchronise=synchronise))

    rng = random.Random(policy.seed)
    each_visit = calls_of_visit or _calls_of_a_visit([warm_up.wall_s for warm_up in warm], policy)
    order: list[int] = []
    visits_s: list[float] = []
    clocks_mhz: list[float | None] = []
    next_look = MIN_ROUNDS
    while True:
        round_began = clock()
        shuffled = rng.sample(range(len(calls)), len(calls))
        for arm in [*shuffled, *reversed(shuffled)]:
            order.append(arm)
            settle()
            visits_s.append(_visit(calls[arm], each_visit[arm], clock, synchronise))
            after_visit(arm)
            if read_clock_mhz is not None:
                clocks_mhz.append(read_clock_mhz())
        rounds = len(order) // (2 * len(calls))
        now = clock()
        out_of_budget = now - started + (now - round_began) > policy.budget_s
        if rounds < next_look and not out_of_budget:
            continue
        visits = Compared(
            order=tuple(order),
            visits_s=tuple(visits_s),
            calls=each_visit,
            clocks_mhz=tuple(clocks_mhz),
            warmup_times_s=tuple(warm_up.wall_s for warm_up in warm),
            warmup_stationary=tuple(warm_up.stationary for warm_up in warm),
        )
        unmet = _unmet(visits, policy)
        if not unmet or out_of_budget:
            return replace(visits, stopped_by="budget" if unmet else "precision", unmet=tuple(unmet))
        next_look = math.ceil(rounds * LOOK_GROWTH)


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
    """Calls that fill `min_visit_s`, at least one, by the fastest warm-up pass of each arm.

    A longer visit has more interruptions, which biases a comparison of equal arms. An arm with nearly the
    speed of an earlier arm, the reference first, therefore gets the same number of calls. Visits of other
    arms may differ in length; this changes their ratio by at most the share of time in interruptions, too
    little to reverse a verdict. Visits as long as the slowest arm's would leave too few rounds.
    """
    passes = [min(times) for times in warmups]
    if min(passes) <= 0:  # the clock is too coarse for a pass
        return (1,) * len(passes)
    calls: list[int] = []
    for seconds in passes:
        similar = (
            known for known, other in zip(calls, passes, strict=False) if abs(seconds / other - 1) < SIMILAR
        )
        calls.append(next(similar, max(1, round(policy.min_visit_s / seconds))))
    return tuple(calls)


def _unmet(visits: Rounds, policy: Policy) -> list[str]:
    """Criteria that are not met yet."""
    if visits.rounds < MIN_ROUNDS:
        return [f"at least {MIN_ROUNDS} rounds"]
    open_ratios = 0
    for arm in range(1, len(visits.calls)):
        interval = median_interval(visits.log_ratios(arm)[0])
        open_ratios += interval is None or interval[1] - interval[0] > policy.margin
    if not open_ratios:
        return []
    return [f"{open_ratios} of {len(visits.calls) - 1} ratios within {50 * policy.margin:g} %"]
