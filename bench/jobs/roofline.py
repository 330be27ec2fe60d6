"""Jobs of the roofline: operator costs in this process, ceilings and profiles in workers."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import settings
from bench.jobs.job import Job, in_worker
from bench.machine import environment
from bench.machine.failures import RAISED, failed_row
from bench.records.base import Record
from bench.records.ceiling import CeilingCase
from bench.records.operators import OperatorCase
from bench.records.profile import ProfileCase

if TYPE_CHECKING:
    from torch import nn

TRACE_S = 0.5  # of one pass
MAX_STARTUP_S = 120.0
PROFILE_S = 15.0  # typical, of one case
MAX_PROFILE_S = 600.0


def operator_job(case: OperatorCase, model: "nn.Module | None" = None) -> Job:
    """Count the operators of one pass; the model is on the meta device, by default built when counted."""
    return Job(
        case=case,
        environment=environment.of(case),
        measure=partial(_counted, case, model),
        estimate_s=TRACE_S,
    )


def _counted(case: OperatorCase, model: "nn.Module | None") -> Record:
    from bench.counting import work

    try:
        return work.count(case, model)
    except RAISED as error:
        return failed_row(case, environment.of(case), error)


def ceiling_job(case: CeilingCase, budget_s: float) -> Job:
    """Measure one ceiling."""
    return in_worker(
        "bench.measure.ceilings:measure",
        case,
        estimate_s=settings.TYPICAL_STARTUP_S + 2 * budget_s,
        timeout_s=MAX_STARTUP_S + 4 * budget_s,
        budget_s=budget_s,
    )


def profile_job(case: ProfileCase, trace: Path | None = None) -> Job:
    """Profile the passes of one model; `trace` is a file for the trace of one of them."""
    return in_worker(
        "bench.measure.profiler:measure",
        case,
        estimate_s=PROFILE_S,
        timeout_s=MAX_PROFILE_S,
        trace=None if trace is None else str(trace.resolve()),
    )
