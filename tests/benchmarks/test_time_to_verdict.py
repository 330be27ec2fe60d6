"""Seconds until a difference of 3 % is called right 19 times in 20: timed in rounds, and in a row.

pytest --benchmark-only tests/benchmarks/test_time_to_verdict.py
BENCH_TRIALS=20 pytest --benchmark-only tests/benchmarks/test_time_to_verdict.py -k "real and pyperf"

The result is in extra_info. On the simulated machine it is the same everywhere: a pass takes 20 ms, and a
model 5 s to start; noise of a pass: 2 % normal; a drift of 3 % that is forgotten in 10 s; every fiftieth
takes half as long again. On the real machine a pass is one of FCDM-S at 64 px, a model starts by being built
anew and run three times, and the slower model is the same network followed by a busy wait of 3 % of the pass
just run. Half of the trials compare equal models.

bench.versus starts both models and times them in rounds, here in one process. In a row one model is started
and timed, then the other; they differ if the medians do by more than half of the 3 %:

- torch.utils.benchmark, `adaptive_autorange`: four passes, then more until the interquartile range is below a
  tenth of the median, at most 10 s;
- pyperf: 20 processes of 3 values of at least 100 ms each, after one of warm-up;
- until right: one process and twice as many passes until they are as often right as required.
"""

import math
import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.interleaved import Policy, compare
from bench.stats import processes, ratios
from models import create

PASS_S, STARTUP_S = 0.02, 5.0
WHITE, DRIFT, FORGOTTEN_S, SPIKE = 0.02, 0.03, 10.0, 0.5
TRUE = 1.03
BUDGET_S = 60.0  # of the rounds in a process
TRIALS = 200
REQUIRED = 0.95


Run = Callable[[float], object]  # a pass that lasts this many times as long as the network alone


class Machine(Protocol):
    """Where two models are timed."""

    @property
    def now_s(self) -> float: ...

    def start(self) -> Run:
        """Start a model."""


class Simulated:
    """A clock that passes move."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.drift = self.random.gauss(0, DRIFT)

    def start(self) -> Run:
        self._pass_time(STARTUP_S)
        return self._run

    def _run(self, relative: float) -> None:
        noise = 1 + self.drift + self.random.gauss(0, WHITE) + SPIKE * (self.random.random() < 0.02)
        self._pass_time(PASS_S * relative * noise)

    def _pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        kept = math.exp(-seconds / FORGOTTEN_S)
        self.drift = kept * self.drift + DRIFT * (1 - kept**2) ** 0.5 * self.random.gauss(0, 1)


class Real:
    """This machine: FCDM-S at 64 px, and for a slower pass a busy wait after it."""

    def __init__(self, seed: int) -> None:
        self.inputs = torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.tensor([0])

    @property
    def now_s(self) -> float:
        return time.perf_counter()

    def start(self) -> Run:
        network = create("FCDM-S", latent_size=8).eval()

        def run(relative: float) -> None:
            begin = time.perf_counter()
            with torch.no_grad():
                network(*self.inputs)
            end = begin + relative * (time.perf_counter() - begin)
            while time.perf_counter() < end:
                pass

        for _ in range(3):
            run(1)
        return run


Call = Callable[[Machine, float], bool | None]


def in_rounds(starts: int) -> Call:
    """Whether bench.versus calls the second model slower; None without a verdict."""

    def called(machine: Machine, relative: float) -> bool | None:
        logs = []
        for seed in range(starts):
            first, second = machine.start(), machine.start()
            found = compare(
                [partial(first, 1), partial(second, relative)],
                Policy(budget_s=BUDGET_S, margin=0.01, seed=seed),
                clock=lambda: machine.now_s,
                synchronise=lambda: None,
            )
            logs += found.log_ratios(1)
        verdict = ratios.verdict(processes.interval_of_logs(logs, ratios.CONFIDENCE), 0.01)
        return None if verdict in (ratios.INCONCLUSIVE, ratios.TOO_FEW) else verdict == ratios.SLOWER

    return called


def in_a_row(times: Callable[[Machine, float], list[float]]) -> Call:
    def called(machine: Machine, relative: float) -> bool:
        first, second = (statistics.median(times(machine, each)) for each in (1.0, relative))
        return second / first > 1 + (TRUE - 1) / 2

    return called


def timed(machine: Machine, run: Run, relative: float) -> float:
    """Seconds of a pass."""
    begin = machine.now_s
    run(relative)
    return machine.now_s - begin


def adaptive_autorange(machine: Machine, relative: float) -> list[float]:
    run = machine.start()
    begin, times = machine.now_s, [timed(machine, run, relative) for _ in range(4)]
    while machine.now_s - begin < 10:
        low, middle, high = statistics.quantiles(times, n=4)
        if (high - low) / middle < 0.1:
            break
        times.append(timed(machine, run, relative))
    return times


def pyperf(machine: Machine, relative: float) -> list[float]:
    values = []
    for _ in range(20):
        run = machine.start()
        for value in range(4):
            passes = [timed(machine, run, relative)]
            while sum(passes) < 0.1:
                passes.append(timed(machine, run, relative))
            values += [statistics.mean(passes)] * (value > 0)
    return values


def passes(count: int) -> Callable[[Machine, float], list[float]]:
    def times(machine: Machine, relative: float) -> list[float]:
        run = machine.start()
        return [timed(machine, run, relative) for _ in range(count)]

    return times


def tried(
    call: Call, trials: int = TRIALS, machine_of: Callable[[int], Machine] = Simulated
) -> tuple[float, float]:
    """Share of right calls of 3 % and of equal models, half of each, and mean seconds of the machine."""
    right, seconds = 0, 0.0
    for trial in range(trials):
        machine, differs = machine_of(trial), trial % 2 == 0
        begin = machine.now_s
        right += call(machine, TRUE if differs else 1.0) is differs
        seconds += machine.now_s - begin
    return right / trials, seconds / trials


def until_right() -> tuple[float, float]:
    count = 8
    while (found := tried(in_a_row(passes(count))))[0] < REQUIRED and count < 2**15:
        count *= 2
    return found


METHODS = {
    "bench.versus, one process": in_rounds(1),
    "bench.versus, five processes": in_rounds(5),
    "adaptive_autorange": in_a_row(adaptive_autorange),
    "pyperf": in_a_row(pyperf),
}


@pytest.mark.benchmark(group="time to a verdict on 3 %, on a simulated machine")
def test_time_to_a_verdict_on_3_percent(benchmark: BenchmarkFixture) -> None:
    trials = 4 if benchmark.disabled else TRIALS
    methods: dict[str, Callable[[], tuple[float, float]]] = {
        name: partial(tried, call, trials) for name, call in METHODS.items()
    }
    if not benchmark.disabled:
        methods["until right"] = until_right
    found = benchmark.pedantic(
        lambda: {name: method() for name, method in methods.items()}, rounds=1, iterations=1
    )
    _note(benchmark, found)
    assert found["bench.versus, one process"][0] >= max(
        right for name, (right, _) in found.items() if name in ("adaptive_autorange", "pyperf")
    )


@pytest.mark.benchmark(group="time to a verdict on 3 %, on this machine")
@pytest.mark.parametrize("method", METHODS)
def test_time_to_a_verdict_on_a_real_machine(method: str, benchmark: BenchmarkFixture) -> None:
    if benchmark.disabled:
        pytest.skip("is a benchmark only: takes minutes")
    trials = int(os.environ.get("BENCH_TRIALS", "2"))
    found = benchmark.pedantic(lambda: tried(METHODS[method], trials, Real), rounds=1, iterations=1)
    _note(benchmark, {method: found})


def _note(benchmark: BenchmarkFixture, found: dict[str, tuple[float, float]]) -> None:
    for name, (right, seconds) in found.items():
        benchmark.extra_info[name] = f"right {100 * right:.0f} %, {seconds:.1f} s"
