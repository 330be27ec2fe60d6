"""Seconds of a simulated machine until 3 % are called right 19 times in 20: in rounds, and in a row.

pytest --benchmark-only tests/benchmarks/test_time_to_verdict.py

Timed is the simulation; the result is in extra_info, and the same on every machine. A pass takes 20 ms, and
a model 5 s to start. Noise of a pass: 2 % normal; a drift of 3 % that is forgotten in 10 s; every fiftieth
takes half as long again. bench.versus starts both models and times them in rounds, here in one process. In a
row one model is started and timed, then the other; they differ if the medians do by more than half of the
3 %:

- torch.utils.benchmark, `adaptive_autorange`: four passes, then more until the interquartile range is below a
  tenth of the median, at most 10 s;
- pyperf: 20 processes of 3 values of at least 100 ms each, after one of warm-up;
- until right: one process and twice as many passes until they are as often right as required.
"""

import math
import random
import statistics
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.interleaved import Policy, compare
from bench.stats import ratios

PASS_S, STARTUP_S = 0.02, 5.0
WHITE, DRIFT, FORGOTTEN_S, SPIKE = 0.02, 0.03, 10.0, 0.5
TRUE = 1.03
TRIALS = 60
REQUIRED = 0.95


class Machine:
    """A clock that passes move."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.drift = self.random.gauss(0, DRIFT)

    def start(self) -> None:
        """Start a model."""
        self._pass_time(STARTUP_S)

    def run(self, relative: float) -> float:
        """Seconds of a pass of PASS_S * relative."""
        noise = 1 + self.drift + self.random.gauss(0, WHITE) + SPIKE * (self.random.random() < 0.02)
        self._pass_time(PASS_S * relative * noise)
        return PASS_S * relative * noise

    def _pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        kept = math.exp(-seconds / FORGOTTEN_S)
        self.drift = kept * self.drift + DRIFT * (1 - kept**2) ** 0.5 * self.random.gauss(0, 1)


def in_rounds(machine: Machine, relative: float) -> bool | None:
    """Whether bench.versus calls the second model slower; None without a verdict."""
    machine.start()
    machine.start()
    found = compare(
        [lambda: machine.run(1), lambda: machine.run(relative)],
        Policy(budget_s=600, margin=0.01, seed=1),
        clock=lambda: machine.now_s,
        synchronise=lambda: None,
    )
    verdict = ratios.verdict(ratios.ratio_interval(found, 1), 0.01)
    return None if verdict in (ratios.INCONCLUSIVE, ratios.TOO_FEW) else verdict == ratios.SLOWER


def in_a_row(times: Callable[[Machine, float], list[float]]) -> Callable[[Machine, float], bool]:
    def called(machine: Machine, relative: float) -> bool:
        first, second = (statistics.median(times(machine, each)) for each in (1.0, relative))
        return second / first > 1 + (TRUE - 1) / 2

    return called


def adaptive_autorange(machine: Machine, relative: float) -> list[float]:
    machine.start()
    begin, times = machine.now_s, [machine.run(relative) for _ in range(4)]
    while machine.now_s - begin < 10:
        low, middle, high = statistics.quantiles(times, n=4)
        if (high - low) / middle < 0.1:
            break
        times.append(machine.run(relative))
    return times


def pyperf(machine: Machine, relative: float) -> list[float]:
    values = []
    for _ in range(20):
        machine.start()
        for value in range(4):
            mean = statistics.mean(machine.run(relative) for _ in range(5))
            values += [mean] * (value > 0)
    return values


def passes(count: int) -> Callable[[Machine, float], list[float]]:
    def times(machine: Machine, relative: float) -> list[float]:
        machine.start()
        return [machine.run(relative) for _ in range(count)]

    return times


def tried(call: Callable[[Machine, float], bool | None], trials: int = TRIALS) -> tuple[float, float]:
    """Share of right calls of 3 % and of equal models, half of each, and mean seconds of the machine."""
    right, seconds = 0, 0.0
    for trial in range(trials):
        machine, differs = Machine(trial), trial % 2 == 0
        right += call(machine, TRUE if differs else 1.0) is differs
        seconds += machine.now_s
    return right / trials, seconds / trials


def until_right() -> tuple[float, float]:
    count = 8
    while (found := tried(in_a_row(passes(count))))[0] < REQUIRED and count < 2**15:
        count *= 2
    return found


@pytest.mark.benchmark(group="time to a verdict on 3 %, on a simulated machine")
def test_time_to_a_verdict_on_3_percent(benchmark: BenchmarkFixture) -> None:
    methods: dict[str, Callable[[], tuple[float, float]]] = {
        "bench.versus": lambda: tried(in_rounds),
        "adaptive_autorange": lambda: tried(in_a_row(adaptive_autorange)),
        "pyperf": lambda: tried(in_a_row(pyperf)),
        "until right": until_right,
    }
    if benchmark.disabled:
        methods = {"bench.versus": lambda: tried(in_rounds, 2)}
    found = benchmark.pedantic(
        lambda: {name: method() for name, method in methods.items()}, rounds=1, iterations=1
    )
    for name, (right, seconds) in found.items():
        benchmark.extra_info[name] = f"right {100 * right:.0f} %, {seconds:.1f} s"
    assert found["bench.versus"][0] >= max(
        right for name, (right, _) in found.items() if name != "until right"
    )
