"""What the engine costs beside what it times, and how fast a command answers without measuring.

pytest --benchmark-only tests/benchmarks/test_engine.py
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import timing
from bench.measure.timing import Policy

ROOT = Path(__file__).resolve().parents[2]
PASS_S = 0.005


def spin() -> None:
    end = time.perf_counter() + PASS_S
    while time.perf_counter() < end:
        pass


@pytest.mark.benchmark(group="the sampling loop around passes of 5 ms")
def test_sampling_loop(benchmark: BenchmarkFixture) -> None:
    # more sampling than the budget allows, so that the loop looks at its samples until the budget ends; a
    # precision out of reach would not do: on a quiet machine half of the passes take the same time to the ns
    budget_s = 0.1 if benchmark.disabled else 2.0
    policy = Policy(budget_s=budget_s, min_sampling_s=2 * budget_s)

    def loop() -> tuple[float, timing.Samples]:
        begin = time.perf_counter()
        samples = timing.sample(spin, policy, spent_s=0.0, clock=time.perf_counter, synchronise=lambda: None)
        return time.perf_counter() - begin, samples

    whole, samples = benchmark.pedantic(loop, rounds=1, iterations=1)
    timed = sum(samples.wall_s)
    benchmark.extra_info["passes"] = len(samples.wall_s)
    benchmark.extra_info["loop beside the timed passes, %"] = round(100 * (whole / timed - 1), 3)
    benchmark.extra_info["timed beside the spinning, %"] = round(
        100 * (timed / (PASS_S * len(samples.wall_s)) - 1), 3
    )
    assert samples.stopped_by == "budget"


@pytest.mark.benchmark(group="a command that measures nothing")
@pytest.mark.parametrize("words", [["--help"], ["--res", "100"]], ids=["help", "bad argument"])
def test_command_line(words: list[str], benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "bench.throughput", *words]

    def answer() -> int:
        return subprocess.run(command, capture_output=True, cwd=ROOT).returncode

    assert benchmark.pedantic(answer, rounds=5, iterations=1, warmup_rounds=1) in (0, 2)
