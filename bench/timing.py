"""Seconds of repeated calls: warm-up until passes stop changing, samples until the median is known.

The clock, the device's synchronisation and its event timer are arguments, so that a test can drive them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import stats

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
class Timed:
    """Every pass, in order."""

    warmup_s: tuple[float, ...]
    warmup_stationary: bool
    wall_s: tuple[float, ...]  # to after the device has finished
    device_s: tuple[float, ...]  # between device events; empty without a device timer
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]


def time_calls(
    call: Callable[[], object],
    policy: Policy,
    *,
    clock: Clock,
    synchronise: Callable[[], None],
    device_timer: DeviceTimer | None = None,
) -> Timed:
    """Time a call over and over until the policy is content.

    Args:
        call: one pass. Work that it leaves running on a device is waited for.
        policy: when to stop.
        clock: seconds now.
        synchronise: waits until the device has finished.
        device_timer: runs a call between two device events; what it returns reads them.
    """
    started = clock()
    warmup: list[float] = []
    stationary = False
    while True:
        wall, _ = _one(call, clock, synchronise, None)
        warmup.append(wall)
        spent = clock() - started
        stationary = is_stationary(warmup, policy) and spent >= policy.min_warmup_s
        if stationary or spent + wall > policy.budget_s * policy.warmup_share:
            break
    samples: list[float] = []
    device: list[float] = []
    next_look = policy.min_samples
    while True:
        wall, on_device = _one(call, clock, synchronise, device_timer)
        samples.append(wall)
        if on_device is not None:
            device.append(on_device)
        out_of_budget = clock() - started + wall > policy.budget_s
        if len(samples) >= next_look or out_of_budget:
            unmet = _unmet(samples, policy)
            if not unmet or out_of_budget:
                break
            next_look = max(len(samples) + 1, int(1.1 * len(samples)))  # sorting must not outweigh timing
    return Timed(
        warmup_s=tuple(warmup),
        warmup_stationary=stationary,
        wall_s=tuple(samples),
        device_s=tuple(device),
        stopped_by="budget" if unmet else "precision",
        unmet=tuple(unmet),
    )


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
    newest, before = stats.median(times[-third:]), stats.median(times[-2 * third : -third])
    return abs(newest / before - 1) < policy.stationary


def _unmet(samples: Sequence[float], policy: Policy) -> list[str]:
    """Name the criteria that the samples do not meet yet."""
    unmet = []
    if len(samples) < policy.min_samples:
        unmet.append(f"at least {policy.min_samples} samples")
    if sum(samples) < policy.min_sampling_s:
        unmet.append(f"at least {policy.min_sampling_s:g} s of sampling")
    interval = stats.median_interval(samples)
    if interval is None or (interval[1] - interval[0]) / 2 > policy.precision * stats.median(samples):
        unmet.append(f"95 % interval within {100 * policy.precision:g} % of the median")
    return unmet
