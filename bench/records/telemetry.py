"""GPU telemetry sampled during timing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """Readings of a GPU during timing; None or empty where unavailable.

    The window is the time from the first timed pass to the last, soak and sustained passes included.
    """

    clocks_mhz: tuple[float, ...]  # of the streaming multiprocessors, in order of time
    power_w: tuple[float, ...]
    temperature_c: tuple[float, ...]
    window_s: float
    energy_j: float | None  # of the energy counter over the window; None below 5 s (low resolution)
    idle_w: float | None  # before the model was built; None without a soak
    calls: int  # passes within the window
    held_back: tuple[str, ...]  # reasons of limited clocks in any reading: power cap, thermal, ...


def merged(windows: Sequence[Telemetry]) -> Telemetry | None:
    """Telemetry of several processes; None without any."""
    if not windows:
        return None
    energies = [one.energy_j for one in windows if one.energy_j is not None]
    return Telemetry(
        clocks_mhz=tuple(clock for one in windows for clock in one.clocks_mhz),
        power_w=tuple(power for one in windows for power in one.power_w),
        temperature_c=tuple(degrees for one in windows for degrees in one.temperature_c),
        window_s=sum(one.window_s for one in windows),
        energy_j=sum(energies) if len(energies) == len(windows) else None,
        idle_w=windows[0].idle_w,
        calls=sum(one.calls for one in windows),
        held_back=tuple(dict.fromkeys(reason for one in windows for reason in one.held_back)),
    )


def joules_per_image(telemetry: Telemetry | None, batch: int) -> float | None:
    """Energy per image of the window; None without a reading."""
    if telemetry is None or telemetry.energy_j is None:
        return None
    return telemetry.energy_j / (telemetry.calls * batch)
