"""Timing of one model, or of several in turn, in a worker."""

from pathlib import Path

from bench.jobs import worker
from bench.records.base import Record
from bench.records.comparison import ComparisonCase
from bench.records.throughput import PassCase

STARTUP_S = 300.0  # upper bound for building and compiling the largest model


def measure(case: PassCase, weights: Path | None) -> Record:
    """Time one case in a worker, in the current environment."""
    from bench.machine import environment

    return worker.run(
        "bench.measure.passes:measure",
        case,
        environment.gather(case.device, case.model),
        STARTUP_S + case.soak_s + 4 * case.budget_s,
        weights=None if weights is None else str(weights),
    )


def compare(case: ComparisonCase) -> Record:
    """Compare models in a worker, in the current environment."""
    from bench.machine import environment

    return worker.run(
        "bench.measure.passes:compare",
        case,
        environment.gather(case.device, case.arms[0].model),
        STARTUP_S * len(case.arms) + 4 * case.budget_s,
    )
