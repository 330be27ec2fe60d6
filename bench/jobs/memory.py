"""Peak memory of one case: measured in a worker on CUDA or a CPU, predicted in this process on meta."""

from dataclasses import replace
from functools import partial

from bench.jobs import worker
from bench.jobs.job import Job
from bench.machine import environment, failures
from bench.measure.memory import peak
from bench.records.base import ModelCase, Record
from bench.records.memory import MemoryCase

TIMEOUT_S = 600.0  # of a worker
TYPICAL_S = 3.0
CPU_TYPICAL_S = 30.0  # two steps of an S or B size


def job(case: MemoryCase) -> Job:
    return Job(
        case=case,
        environment=environment.of(case),
        measure=partial(result_of, case),
        estimate_s=CPU_TYPICAL_S if case.device == "cpu" else TYPICAL_S,
    )


def result_of(case: MemoryCase) -> Record:
    """Measure or predict one case; a failure is a Skipped record."""
    now = environment.of(case)
    if not case.is_predicted:
        return worker.run("bench.measure.memory.peak:measure", case, now, TIMEOUT_S)
    try:
        return peak.measure(case, now)
    except failures.RAISED as error:  # a model that passes the check may fail to train on meta tensors
        row = failures.failed_row(case, now, error)
    return replace(row, reason=f"on the meta device: {row.reason}") if row.status == "error" else row


def of_pass(case: ModelCase, work: str, device: str) -> MemoryCase:
    """Memory case of a pass: measured on cuda, predicted on meta."""
    return MemoryCase(
        device=device,
        model=case.model,
        family=case.family,
        res=case.res,
        latent_size=case.latent_size,
        batch=case.batch,
        precision=case.precision,
        impl=case.impl,
        checkpointing=case.checkpointing and work == "training",
        work=work,
        limit_bytes=None,
    )
