"""Jobs of the roofline: operator costs in this process, ceilings and profiles in workers."""

from functools import partial
from typing import TYPE_CHECKING

from bench.jobs import worker
from bench.jobs.job import Job
from bench.machine import environment
from bench.records.base import Record
from bench.records.ceiling import CeilingCase
from bench.records.operators import OperatorCase
from bench.records.profile import ProfileCase

if TYPE_CHECKING:
    from torch import nn

TRACE_S = 0.5  # of one pass
STARTUP_S = 5.0  # typical, of a worker
MAX_STARTUP_S = 120.0
PROFILE_S = 15.0  # typical, of one case
MAX_PROFILE_S = 600.0


def operator_job(case: OperatorCase, model: "nn.Module") -> Job:
    """Count the operators of one pass; the model is on the meta device."""
    from bench.counting import work

    return Job(
        case=case,
        environment=environment.gather("meta", case.model),
        measure=partial(work.count, case, model),
        estimate_s=TRACE_S,
    )


def ceiling_job(case: CeilingCase, budget_s: float) -> Job:
    """Measure one ceiling."""
    return Job(
        case=case,
        environment=environment.gather(case.device, ""),
        measure=partial(_ceiling, case, budget_s),
        estimate_s=STARTUP_S + 2 * budget_s,
    )


def profile_job(case: ProfileCase) -> Job:
    """Profile the passes of one model."""
    return Job(
        case=case,
        environment=environment.gather(case.device, case.model),
        measure=partial(_profile, case),
        estimate_s=PROFILE_S,
    )


def _ceiling(case: CeilingCase, budget_s: float) -> Record:
    here = environment.gather(case.device, "")
    timeout_s = MAX_STARTUP_S + 4 * budget_s
    return worker.run("bench.measure.ceilings:measure", case, here, timeout_s, budget_s=budget_s)


def _profile(case: ProfileCase) -> Record:
    here = environment.gather(case.device, case.model)
    return worker.run("bench.measure.profiler:measure", case, here, MAX_PROFILE_S)
