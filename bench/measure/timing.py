"""Timing of repeated calls: warm-up until stationary, samples until the median is precise.

The clock, the device's synchronisation and its event timer are arguments, so that tests need no device.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.stats import intervals, series

Clock = Callable[[], float]  # seconds, monotonic
CLOCK: Clock = time.perf_counter  # bound before a user's module is imported, which may replace time's
# runs a call between two device events; returns a function that returns the seconds after synchronisation
DeviceTimer = Callable[[Callable[[], object]], Callable[[], float]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Stopping rules. At least one warm-up pass and one sample run, whatever the budget."""

    budget_s: float  # warm-up and samples together
    precision: float = 0.01  # half-width of the 95 % interval of the median, as a share of the median
    min_samples: int = 10
    min_sampling_s: float = 0.5
    min_warmup: int = 3
    min_warmup_s: float = 0.5
    stationary: float = 0.02  # maximum relative change between the last two thirds of the warm-up
    warmup_share: float = 1 / 3  # maximum share of the budget


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Passes before the samples, in order."""

    wall_s: tuple[float, ...]
    stationary: bool  # the warm-up ended because pass times were stationary, not because time ran out


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Timed passes, in order."""

    wall_s: tuple[float, ...]  # wall clock, device synchronised
    device_s: tuple[float, ...]  # between device events; empty without a device timer
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]


def warm_up(
    call: Callable[[], object], policy: Policy, *, clock: Clock, synchronise: Callable[[], None]
) -> WarmUp:
    """Call until pass times are stationary or the warm-up's share of the budget is spent; at least once."""
    started = clock()
    walls: list[float] = []
    while True:
        wall, _ = _one(call, clock, synchronise, None)
        walls.append(wall)
        spent = clock() - started
        if is_stationary(walls, policy) and spent >= policy.min_warmup_s:
            return WarmUp(wall_s=tuple(walls), stationary=True)
        if spent + wall > policy.budget_s * policy.warmup_share:
            return WarmUp(wall_s=tuple(walls), stationary=False)


def sample(
    call: Callable[[], object],
    policy: Policy,
    *,
    spent_s: float,
    clock: Clock,
    synchronise: Callable[[], None],
    device_timer: DeviceTimer | None = None,
    between: Callable[[], None] = lambda: None,
) -> Samples:
    """Time a call until the policy's criteria are met, at least once; `between` is outside the time."""
    started = clock() - spent_s
    walls: list[float] = []
    on_device: list[float] = []
    next_look = policy.min_samples
    while True:
        wall, device = _one(call, clock, synchronise, device_timer)
        walls.append(wall)
        if device is not None:
            on_device.append(device)
        between()
        out_of_budget = clock() - started + wall > policy.budget_s
        if len(walls) < next_look and not out_of_budget:
            continue
        unmet = _unmet(walls, policy)
        if not unmet or out_of_budget:
            return Samples(
                wall_s=tuple(walls),
                device_s=tuple(on_device),
                stopped_by="budget" if unmet else "precision",
                unmet=tuple(unmet),
            )
        next_look = max(len(walls) + 1, int(1.1 * len(walls)))  # rare looks: each one sorts the samples


def soak(
    call: Callable[[], object],
    seconds: float,
    *,
    clock: Clock,
    synchronise: Callable[[], None],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Keep a device busy for `seconds`, so that temperature and clocks reach their steady state."""
    started = clock()
    while clock() - started < seconds:
        call()
        synchronise()
        between()


def _one(
    call: Callable[[], object],
    clock: Clock,
    synchronise: Callable[[], None],
    device_timer: DeviceTimer | None,
) -> tuple[float, float | None]:
    synchronise()
    begin = clock()
    if device_timer is None:
        call()
        synchronise()
        return clock() - begin, None
    read = device_timer(call)
    synchronise()
    return clock() - begin, read()


def is_stationary(times: Sequence[float], policy: Policy) -> bool:
    """Whether the last third of the passes takes as long as the third before it."""
    if len(times) < policy.min_warmup:
        return False
    third = max(1, len(times) // 3)
    newest, before = intervals.median(times[-third:]), intervals.median(times[-2 * third : -third])
    return abs(newest / before - 1) < policy.stationary


def _unmet(samples: Sequence[float], policy: Policy) -> list[str]:
    """Criteria that the samples do not meet yet."""
    unmet = []
    if len(samples) < policy.min_samples:
        unmet.append(f"at least {policy.min_samples} samples")
    if sum(samples) < policy.min_sampling_s:
        unmet.append(f"at least {policy.min_sampling_s:g} s of sampling")
    interval = series.median_interval(samples)
    if interval is None or (interval[1] - interval[0]) / 2 > policy.precision * intervals.median(samples):
        unmet.append(f"95 % interval within {100 * policy.precision:g} % of the median")
    return unmet
