"""GPU telemetry sampled while passes are timed."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """Readings of a GPU during timing; None or empty where a reading is not available.

    The window goes from the first timed pass to the last, through a soak and the sustained passes after it.
    """

    clocks_mhz: tuple[float, ...]  # of the streaming multiprocessors, in order of time
    power_w: tuple[float, ...]
    temperature_c: tuple[float, ...]
    window_s: float
    energy_j: float | None  # of the energy counter over the window; None below 5 s, which it resolves badly
    idle_w: float | None  # before the model was there; None where no soak was asked for
    calls: int  # passes within the window
    held_back: tuple[str, ...]  # what limited the clocks at any reading: power cap, thermal, ...


def joules_per_image(telemetry: Telemetry | None, batch: int) -> float | None:
    """Energy of the window over its images; None without a reading."""
    if telemetry is None or telemetry.energy_j is None:
        return None
    return telemetry.energy_j / (telemetry.calls * batch)
