"""Differences between two records of one case that may explain why their numbers differ."""

from collections.abc import Sequence

from bench.records.base import Record
from bench.records.interleaved import Interleaved
from bench.records.telemetry import Telemetry
from bench.stats import intervals

# smaller relative differences are not reported as causes
CLOCK, POWER = 0.005, 0.03  # as shares
TEMPERATURE_C = 3.0


def of_records(a: Record, b: Record) -> list[str]:
    """Differences of environment, settings and telemetry, the likeliest cause first."""
    return [*_environment(a, b), *_settings(a, b), *_telemetry(a, b)]


def of_sampling(side: str, record: Record) -> list[str]:
    """Weaknesses of the samples of a record: an unfinished warm-up, or sampling that the budget ended."""
    found = []
    warm = getattr(record, "warmup_stationary", True)
    if warm is False or (isinstance(warm, tuple) and not all(warm)):
        found.append(f"warm-up of {side} not stationary")
    if getattr(record, "stopped_by", "") == "budget":
        found.append(f"sampling of {side} stopped by its budget")
    return found


def clocks_mhz(record: Record) -> tuple[float, ...]:
    """Clocks sampled while a record was measured; empty without telemetry."""
    if isinstance(record, Interleaved):
        return tuple(clock for clock in record.clocks_mhz if clock is not None)
    telemetry = _readings(record)
    return telemetry.clocks_mhz if telemetry else ()


def _environment(a: Record, b: Record) -> list[str]:
    one, other = dict(vars(a.environment)), vars(b.environment)
    for name in ("date", "device_type"):
        del one[name]
    if one["commit"] != other["commit"] or one["code"] == other["code"]:
        del one["code"]  # the commit already identifies the code
    found = []
    for name in one:
        if one[name] != other[name]:
            same = name == "commit" and a.environment.code == b.environment.code
            remark = " (the same code)" if same else ""
            found.append(f"{name} {one[name] or '-'} -> {other[name] or '-'}{remark}")
    return found


def _settings(a: Record, b: Record) -> list[str]:
    """Settings that are no part of a case: switches during timing, the fastest size, the time budget."""
    found = []
    for name in ("matmul_tf32", "conv_tf32", "size"):
        one, other = getattr(a, name, None), getattr(b, name, None)
        if one != other:
            found.append(f"{name.replace('_', ' ')} {one} -> {other}")
    budgets = [getattr(record.case, "budget_s", None) for record in (a, b)]
    if budgets[0] != budgets[1]:
        found.append(f"budget {budgets[0]:g} -> {budgets[1]:g} s")
    return found


def _telemetry(a: Record, b: Record) -> list[str]:
    found = []
    clocks = _medians(clocks_mhz(a), clocks_mhz(b))
    if clocks and abs(clocks[1] / clocks[0] - 1) > CLOCK:
        change = 100 * (clocks[1] / clocks[0] - 1)
        found.append(f"clock {clocks[0]:.0f} -> {clocks[1]:.0f} MHz ({change:+.1f} %)")
    one, other = _readings(a), _readings(b)
    for side, telemetry in (("A", one), ("B", other)):
        if telemetry and telemetry.held_back:
            found.append(f"clocks of {side} limited by {', '.join(telemetry.held_back)}")
    if one and other:
        power = _medians(one.power_w, other.power_w)
        if power and abs(power[1] / power[0] - 1) > POWER:
            found.append(f"power {power[0]:.0f} -> {power[1]:.0f} W")
        heat = _medians(one.temperature_c, other.temperature_c)
        if heat and abs(heat[1] - heat[0]) >= TEMPERATURE_C:
            found.append(f"temperature {heat[0]:.0f} -> {heat[1]:.0f} °C")
    return found


def _readings(record: Record) -> Telemetry | None:
    found: Telemetry | None = getattr(record, "telemetry", None)
    return found


def _medians(one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    return (intervals.median(one), intervals.median(other)) if one and other else None
