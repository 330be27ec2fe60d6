"""Training runs in workers, with the batch of a pass halved where memory runs out."""

from dataclasses import asdict
from functools import partial

from bench.jobs import worker
from bench.jobs.job import Job
from bench.records.base import Skipped
from bench.records.training import TrainingRun
from bench.training import study
from bench.training.study import PlannedRun

TIMEOUT_S = 20 * 24 * 3600.0  # of a worker; select() allows little more


def job(run: PlannedRun) -> Job:
    return Job(
        case=run.case,
        environment=run.environment,
        measure=partial(train, run),
        estimate_s=study.estimate_s(run),
        lookup=partial(study.find_stored, run),
        discard_checkpoint=partial(discard, run),
    )


def train(run: PlannedRun) -> TrainingRun | Skipped:
    """Train a run in a worker; when memory runs out, retry with half the pass batch if the run allows it."""
    from bench.machine import environment

    for smaller in study.batch_halvings(run):
        result = worker.run(
            "bench.training.study:measure",
            smaller.case,
            environment.of(smaller.case),
            TIMEOUT_S,
            setup=asdict(smaller.setup),
        )
        if not isinstance(result, Skipped) or result.status != "out of memory":
            break
    assert isinstance(result, TrainingRun | Skipped)
    return result


def discard(run: PlannedRun) -> None:
    """Delete the checkpoints of a run."""
    from bench.training import checkpoint

    checkpoint.discard(run.folder)
