"""Readings of a GPU, from a stand-in for NVML whose clock and counters the test moves."""

from dataclasses import replace

import pytest

from bench.jobs.worker import Case
from bench.machine import telemetry
from bench.machine.telemetry import Monitor
from bench.measure import passes as engine
from bench.records.record import Throughput
from tests.records.test_record import RUN


class NVMLError(Exception):
    pass


class FakeNvml:
    """One GPU that draws 50 W idle and 400 W at work; each figure can be missing, as on some cards."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVMLError = NVMLError

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.now = 0.0
        self.power_w = 50.0
        self.energy_j = 1000.0
        self.missing = missing

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.energy_j += self.power_w * seconds

    def _give(self, what: str, value: float) -> float:
        if what in self.missing:
            raise NVMLError(what)
        return value

    def nvmlDeviceGetPowerUsage(self, handle: object) -> float:  # noqa: N802
        return self._give("power", 1e3 * self.power_w)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> float:  # noqa: N802
        return self._give("energy", 1e3 * self.energy_j)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: object) -> int:  # noqa: N802
        return int(self._give("reasons", 0x04 | 0x01 if self.power_w > 50 else 0x01))  # 0x01: idle

    def nvmlDeviceGetTemperature(self, handle: object, kind: int) -> float:  # noqa: N802
        return self._give("temperature", 60)

    def nvmlDeviceGetClockInfo(self, handle: object, kind: int) -> float:  # noqa: N802
        return self._give("clock", 1980)


def watched(nvml: FakeNvml, passes: int, pass_s: float) -> Monitor:
    monitor = Monitor(nvml, None, clock=lambda: nvml.now)
    monitor.measure_idle(pause=nvml.pass_time)
    monitor.restart()
    nvml.power_w = 400.0
    for _ in range(passes):
        nvml.pass_time(pass_s)
        monitor.between_passes()
    return monitor


def test_energy_is_the_difference_of_the_counter_over_the_window() -> None:
    seen = watched(FakeNvml(), passes=60, pass_s=0.1).finish()
    assert seen.window_s == pytest.approx(6.0)
    assert seen.calls == 60
    assert seen.held_back == ("power cap",)
    assert seen.energy_j == pytest.approx(2400.0)
    assert seen.idle_w == pytest.approx(50.0)
    assert set(seen.clocks_mhz) == {1980.0}
    assert set(seen.power_w) == {400.0}


def test_energy_over_less_than_five_seconds_is_blank_and_not_zero() -> None:
    assert watched(FakeNvml(), passes=10, pass_s=0.1).finish().energy_j is None


def test_readings_are_taken_ten_times_a_second_at_most() -> None:
    seen = watched(FakeNvml(), passes=1000, pass_s=0.01).finish()
    assert 90 <= len(seen.clocks_mhz) <= 100


@pytest.mark.parametrize("what", ["power", "energy", "temperature", "clock", "reasons"])
def test_a_figure_that_the_gpu_does_not_give_is_blank_and_the_rest_is_there(what: str) -> None:
    seen = watched(FakeNvml(missing=(what,)), passes=60, pass_s=0.1).finish()
    blank = {
        "power": seen.power_w == () and seen.idle_w is None,
        "energy": seen.energy_j is None,
        "temperature": seen.temperature_c == (),
        "clock": seen.clocks_mhz == (),
        "reasons": seen.held_back == (),
    }
    assert blank == {name: name == what for name in blank}


def test_a_cpu_has_no_monitor() -> None:
    assert telemetry.monitor("cpu") is None


def test_the_window_of_a_soaked_case_holds_every_pass_and_the_energy_is_shared_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "monitor", lambda _: Monitor(FakeNvml(), None))
    run = replace(RUN, model="tests.tiny:Tiny", soak_s=0.05, budget_s=0.5)
    timed = engine.measure(Case(run=run, weights=None))
    assert isinstance(timed, Throughput)
    assert timed.telemetry
    assert timed.telemetry.calls
    assert timed.telemetry.idle_w == 50.0
    assert timed.telemetry.calls > len(timed.times_s) + len(timed.sustained_times_s)
    spent = replace(timed.telemetry, energy_j=3.0 * timed.telemetry.calls * run.batch)
    assert replace(timed, telemetry=spent).joules_per_image == pytest.approx(3.0)
