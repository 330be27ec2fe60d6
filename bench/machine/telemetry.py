"""GPU telemetry during timing, through nvidia-ml-py if installed.

Clock, power and temperature are read between timed passes, at most ten times a second. Energy is a difference
of the GPU's counter, which has a resolution of about 0.1 s: windows below five seconds give no energy.
Unavailable readings are blank.
"""

import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

from bench.records.telemetry import Telemetry

EVERY_S = 0.1
SHORTEST_ENERGY_WINDOW_S = 5.0
IDLE_READINGS = 10
# bits of nvmlDeviceGetCurrentClocksEventReasons; idleness and user-set clocks are no disturbance
HELD_BACK = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class Monitor:
    """Readings of one GPU over one window, by pynvml or a substitute."""

    def __init__(self, nvml: Any, handle: Any, clock: Callable[[], float] = time.perf_counter) -> None:  # noqa: ANN401
        self._nvml = nvml
        self._handle = handle
        self._clock = clock
        self._idle_w: float | None = None
        self.restart()

    def restart(self) -> None:
        """Discard the readings and start a new window."""
        self._begin = self._last = self._clock()
        self._energy = self.energy_j()
        self._calls = 0
        self._reasons = 0
        self._clocks: list[float] = []
        self._power: list[float] = []
        self._temperature: list[float] = []

    def measure_idle(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Read the idle power of the GPU for one second; call it before any work."""
        readings = []
        for _ in range(IDLE_READINGS):
            readings.append(self._power_w())
            pause(EVERY_S)
        known = [reading for reading in readings if reading is not None]
        self._idle_w = sum(known) / len(known) if known else None

    def between_passes(self) -> None:
        """Count a pass, and take a reading if the last is at least 0.1 s old."""
        self._calls += 1
        now = self._clock()
        if now - self._last < EVERY_S:
            return
        self._last = now
        for kept, reading in (
            (self._clocks, self.clock_mhz()),
            (self._power, self._power_w()),
            (self._temperature, self._read("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)),
        ):
            if reading is not None:
                kept.append(reading)
        self._reasons |= int(self._read("nvmlDeviceGetCurrentClocksEventReasons") or 0)

    def clock_mhz(self) -> float | None:
        return self._read("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)

    def finish(self) -> Telemetry:
        """Close the window that `restart` started."""
        window = self._clock() - self._begin
        begin, end = self._energy, self.energy_j()
        energy = None if begin is None or end is None else end - begin
        return Telemetry(
            clocks_mhz=tuple(self._clocks),
            power_w=tuple(self._power),
            temperature_c=tuple(self._temperature),
            window_s=window,
            calls=self._calls,
            held_back=tuple(name for bit, name in HELD_BACK.items() if self._reasons & bit),
            energy_j=energy if window >= SHORTEST_ENERGY_WINDOW_S else None,
            idle_w=self._idle_w,
        )

    def _power_w(self) -> float | None:
        milliwatts = self._read("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    def energy_j(self) -> float | None:
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def process_bytes(self) -> int | None:
        """Memory of this process by the driver; None where processes are hidden."""
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        return next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)

    def _read(self, function: str, *args: object) -> float | None:
        """One reading; None if this GPU or its driver does not support it."""
        try:
            return float(getattr(self._nvml, function)(self._handle, *args))
        except self._nvml.NVMLError:
            return None


def monitor(device: str) -> Monitor | None:
    """Monitor of a CUDA device; None on a CPU, or if nvidia-ml-py or the driver's library is missing."""
    if not device.startswith("cuda") or importlib.util.find_spec("pynvml") is None:
        return None
    nvml = importlib.import_module("pynvml")
    import torch

    try:
        nvml.nvmlInit()
        # by UUID: CUDA_VISIBLE_DEVICES renumbers devices in torch, not in NVML
        uuid = torch.cuda.get_device_properties(device).uuid
        return Monitor(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except nvml.NVMLError:
        return None
