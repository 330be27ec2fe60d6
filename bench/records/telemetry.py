"""GPU telemetry sampled during timing."""

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


def joules_per_image(telemetry: Telemetry | None, batch: int) -> float | None:
    """Energy per image of the window; None without a reading."""
    if telemetry is None or telemetry.energy_j is None:
        return None
    return telemetry.energy_j / (telemetry.calls * batch)
