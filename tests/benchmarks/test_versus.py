"""Verdicts of the comparison on real models whose ratio is known, with the noise of this machine.

pytest --benchmark-only tests/benchmarks/test_versus.py

Timed: one whole comparison, building and warm-up included. It stops when it has its verdict, or at its
budget. On the CPU one thread is used: two on a machine shared by more programs wait for each other at every
operator, and a pass of 10 ms takes up to a second.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import versus
from bench.machine import device
from bench.measure.interleaved import Compared, Policy, compare
from bench.measure.prepared import prepared
from bench.stats import intervals, ratios

EQUAL = (20, 6.0)  # comparisons, and the budget of each in seconds
SLOWED = (5, 30.0)
SLOWDOWN = 0.05
VERDICTS = {ratios.FASTER, ratios.SLOWER, ratios.SAME, ratios.INCONCLUSIVE, ratios.TOO_FEW}

Call = Callable[[], object]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_it_is(model: prepared.PreparedModel) -> Call:
    return model.call


def slowed(model: prepared.PreparedModel) -> Call:
    """The same pass, then work that takes `SLOWDOWN` of it.

    On a CPU both are counted in this thread's own seconds: in seconds of the wall, the pass would be
    lengthened by the share of the other programs' time as well, and more than the pass itself.
    """
    now = time.perf_counter if device.default() == "cuda" else time.thread_time

    def call() -> None:
        begin = now()
        model.call()
        model.synchronise()
        until = begin + (1 + SLOWDOWN) * (now() - begin)
        while now() < until:
            pass

    return call


def compared(
    benchmark: BenchmarkFixture,
    other: Callable[[prepared.PreparedModel], Call],
    repetitions: int,
    budget_s: float,
) -> set[str]:
    """Verdicts of repeated comparisons, each with another order.

    Their numbers and the noise are in extra_info; results that depend on a machine's noise are not asserted.

    The model is built anew each time, once for each arm, as in the command: the addresses of its weights
    change the time too, by half a percent on a quiet CPU.
    """
    arguments = ["DiT-S/8", "DiT-S/8", "--res", "128", "--batch", "1"]
    case, *_ = versus.plan(versus.parser().parse_args(arguments))
    seeds = itertools.count()
    comparisons: list[Compared] = []

    budget_s = 0.5 if benchmark.disabled else budget_s

    def once() -> None:
        policy = Policy(budget_s=budget_s, seed=next(seeds), min_visit_s=0.01, min_warmup_s=0.2)
        with (
            prepared.prepare(case.arms[0], None) as first,
            prepared.prepare(case.arms[1], None) as second,
        ):
            visits = compare(
                [first.call, other(second)], policy, clock=time.perf_counter, synchronise=first.synchronise
            )
        comparisons.append(visits)

    benchmark.pedantic(once, rounds=repetitions, iterations=1)
    said = [ratios.verdict(visits.interval(1), Policy.margin) for visits in comparisons]
    spread = []
    for visits in comparisons:
        times = visits.times_s(0)
        spread.append(
            (intervals.quantile(times, 0.75) - intervals.quantile(times, 0.25)) / intervals.median(times)
        )
    benchmark.extra_info["verdicts"] = dict(Counter(said))
    benchmark.extra_info["ratios"] = [round(visits.ratio(1), 4) for visits in comparisons]
    benchmark.extra_info["rounds"] = [len(visits.order) // 4 for visits in comparisons]
    benchmark.extra_info["noise: interquartile range, %"] = [round(100 * share, 1) for share in spread]
    return set(said)


@pytest.mark.benchmark(group="a comparison, DiT-S/8 at 128 px, batch 1")
def test_a_model_against_itself(benchmark: BenchmarkFixture) -> None:
    """At most one of a hundred comparisons should find a difference."""
    assert compared(benchmark, as_it_is, *EQUAL) <= VERDICTS


@pytest.mark.benchmark(group="a comparison, DiT-S/8 at 128 px, batch 1")
def test_a_model_against_itself_slowed_by_5_percent(benchmark: BenchmarkFixture) -> None:
    """It should be found slower; on a noisy machine a comparison may stay open."""
    assert compared(benchmark, slowed, *SLOWED) <= VERDICTS
