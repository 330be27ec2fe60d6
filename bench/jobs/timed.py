"""Jobs that time one model, or several in turn, in a worker."""

from pathlib import Path

from bench.jobs.job import Job, in_worker
from bench.records.comparison import ComparisonCase
from bench.records.throughput import PassCase

MAX_STARTUP_S = 300.0  # upper bound for building and compiling the largest model


def pass_job(case: PassCase, weights: Path | None, startup_s: float) -> Job:
    """Time passes of one model; startup_s is the typical time of building and compiling it."""
    return in_worker(
        "bench.measure.passes:measure",
        case,
        estimate_s=startup_s + case.budget_s + 2 * case.soak_s,
        timeout_s=MAX_STARTUP_S + case.soak_s + 4 * case.budget_s,
        weights=None if weights is None else str(weights),
    )


def comparison_job(case: ComparisonCase, startup_s: float) -> Job:
    """Time models in turn; startup_s is the typical time of building and compiling all of them."""
    return in_worker(
        "bench.measure.passes:compare",
        case,
        estimate_s=startup_s + case.budget_s,
        timeout_s=MAX_STARTUP_S * len(case.arms) + 4 * case.budget_s,
    )
