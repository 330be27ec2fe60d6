"""A planned case with its measurement: planned by a command, run by the runner or a sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.jobs import worker
from bench.records.base import Case, Environment, Record, Skipped
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Measurement of one case in several fresh processes."""

    processes: int
    # measures in the next process, given the records of the earlier ones; a failure ends the case
    one: Callable[[Sequence[Any]], Record]
    merge: Callable[[Sequence[Any], int], Record]  # the records of some processes and their number

    def measure(self) -> Record:
        """All processes in turn."""
        parts: list[Record] = []
        while len(parts) < self.processes:
            part = self.one(parts)
            if isinstance(part, Skipped):
                return part
            parts.append(part)
        return self.merge(parts, self.processes)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One planned case. A command that a sweep can run has a function jobs(args), which returns its jobs."""

    case: Case
    environment: Environment  # at planning time; the record has the one of its measurement
    measure: Callable[[], Record]
    estimate_s: float  # usually an upper bound
    # replaces the search for the newest record of the case
    lookup: Callable[[Store], Record | None] | None = None
    # of a case of several processes: the runner alternates between cases, in reverse order every second time
    repetition: Repetition | None = None
    # deletes the checkpoint of an earlier measurement
    discard_checkpoint: Callable[[], None] | None = None

    def stored(self, store: Store) -> Record | None:
        return self.lookup(store) if self.lookup else store.find(self.case, self.environment)


def in_worker(
    measure: str,
    case: Case,
    *,
    estimate_s: float,
    timeout_s: float,
    **inputs: Any,  # noqa: ANN401 - as of `worker.run`
) -> Job:
    """A job that a worker measures as `worker.run` does, in the environment of the time when it runs."""
    from bench.machine import environment

    return Job(
        case=case,
        environment=environment.of(case),
        measure=lambda: worker.run(measure, case, environment.of(case), timeout_s, **inputs),
        estimate_s=estimate_s,
    )
