"""Seconds of repeated calls: warm-up until passes stop changing, samples until the median is known.

The clock, the device's synchronisation and its event timer are arguments, so that a test can drive them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.stats import intervals

Clock = Callable[[], float]  # seconds, monotonic
# runs a call between two device events; what it returns gives the seconds, once the device has finished
DeviceTimer = Callable[[Callable[[], object]], Callable[[], float]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When to stop. A single pass longer than the budget is still warmed up once and timed once."""

    budget_s: float  # warm-up and samples together
    precision: float = 0.01  # half-width of the 95 % interval of the median, as a share of the median
    min_samples: int = 10
    min_sampling_s: float = 0.5
    min_warmup: int = 3
    min_warmup_s: float = 0.5
    stationary: float = 0.02  # the newest third of the warm-up differs from the third before by less
    warmup_share: float = 1 / 3  # of the budget, at the most

    def __post_init__(self) -> None:
        if self.budget_s <= 0 or not 0 < self.precision < 1:
            raise ValueError(f"policy: needs a budget above 0 s and a precision in (0, 1), got {self}")


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Passes before the samples, in order."""

    wall_s: tuple[float, ...]
    stationary: bool  # it ended because passes had stopped changing, not because time ran out


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Timed passes, in order."""

    wall_s: tuple[float, ...]  # to after the device has finished
    device_s: tuple[float, ...]  # between device events; empty without a device timer
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]


def warm_up(
    call: Callable[[], object], policy: Policy, *, clock: Clock, synchronise: Callable[[], None]
) -> WarmUp:
    """Call until passes stop changing, or the warm-up's share of the budget is spent; once at the least."""
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
    """Time a call over and over until the policy is content; once at the least.

    Args:
        call: one pass. Work that it leaves running on a device is waited for.
        policy: when to stop.
        spent_s: of the budget, before this.
        clock: seconds now.
        synchronise: waits until the device has finished.
        device_timer: runs a call between two device events; what it returns reads them.
        between: called after each pass, outside what is timed.
    """
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
        next_look = max(len(walls) + 1, int(1.1 * len(walls)))  # sorting must not outweigh timing


def soak(
    call: Callable[[], object],
    seconds: float,
    *,
    clock: Clock,
    synchronise: Callable[[], None],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Keep a device busy for so long, and let it reach the heat and the clocks of long work."""
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
    """Tell whether the newest third of the passes takes as long as the third before it."""
    if len(times) < policy.min_warmup:
        return False
    third = max(1, len(times) // 3)
    newest, before = intervals.median(times[-third:]), intervals.median(times[-2 * third : -third])
    return abs(newest / before - 1) < policy.stationary


def _unmet(samples: Sequence[float], policy: Policy) -> list[str]:
    """Name the criteria that the samples do not meet yet."""
    unmet = []
    if len(samples) < policy.min_samples:
        unmet.append(f"at least {policy.min_samples} samples")
    if sum(samples) < policy.min_sampling_s:
        unmet.append(f"at least {policy.min_sampling_s:g} s of sampling")
    interval = intervals.median_interval(samples)
    if interval is None or (interval[1] - interval[0]) / 2 > policy.precision * intervals.median(samples):
        unmet.append(f"95 % interval within {100 * policy.precision:g} % of the median")
    return unmet
