"""Jobs that time one model, or several in turn, in workers: a fresh one for every process of a case."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.jobs import worker
from bench.jobs.job import Job, Repetition
from bench.records import comparison, throughput
from bench.records.base import Case, Environment, Record
from bench.records.comparison import Comparison, ComparisonCase
from bench.records.throughput import PassCase, ThroughputCase

MAX_STARTUP_S = 300.0  # upper bound for building and compiling the largest model


def _environment(case: Case) -> Environment:
    from bench.machine import environment  # imports torch

    return environment.of(case)


def pass_job(case: PassCase, weights: Path | None, startup_s: float) -> Job:
    """Time passes of one model; startup_s is the typical time of building and compiling it."""

    def one(_: Sequence[Record]) -> Record:
        return worker.run(
            "bench.measure.passes:measure",
            case,
            _environment(case),
            MAX_STARTUP_S + case.soak_s + 4 * case.process_budget_s,
            weights=None if weights is None else str(weights),
        )

    processes = case.processes if isinstance(case, ThroughputCase) else 1
    each_s = startup_s + case.process_budget_s + 2 * case.soak_s
    return _job(case, processes, each_s, one, throughput.merged)


def comparison_job(case: ComparisonCase, startup_s: float) -> Job:
    """Time models in turn; startup_s is the typical time of building and compiling all of them."""

    def one(earlier: Sequence[Comparison]) -> Record:
        return worker.run(
            "bench.measure.passes:compare",
            case,
            _environment(case),
            MAX_STARTUP_S * len(case.arms) + 4 * case.process_budget_s,
            calls=list(earlier[0].calls) if earlier else None,
            failures=[asdict(failure) for failure in earlier[0].failures] if earlier else [],
            reverse=len(earlier) % 2 == 1,
        )

    return _job(case, case.processes, startup_s + case.process_budget_s, one, comparison.merged)


def _job(
    case: Case,
    processes: int,
    each_s: float,
    one: Callable[[Sequence[Any]], Record],
    merge: Callable[[Sequence[Any], int], Record],
) -> Job:
    """A job of some processes of `each_s` typical seconds."""
    repetition = Repetition(processes=processes, one=one, merge=merge)
    return Job(
        case=case,
        environment=_environment(case),
        measure=repetition.measure if processes > 1 else partial(one, ()),
        estimate_s=processes * each_s,
        repetition=repetition if processes > 1 else None,
    )
