"""Runs jobs in order: stored records are reused, and every new record is stored immediately.

Cases of several processes alternate: one process of every case in order, then one in reverse order, and so
on, so that a slow minute does not meet the same case in every process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.jobs.job import Job
from bench.records.base import Record, Skipped
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Results:
    """Records of some jobs."""

    records: tuple[Record, ...]  # one for each job, in order
    stored: int  # number of records that were already stored


def run(jobs: Sequence[Job], store: Store | None, *, force: bool, begin: Callable[[str], None]) -> Results:
    """Run jobs in order; each new record is in the store, on disk, before the next job starts.

    `force` measures stored cases again; `begin` is called with the name of each case before it starts.
    """
    found: dict[int, Record] = {}
    parts: dict[int, list[Record]] = {}  # records of the finished processes of unfinished cases
    for index, job in enumerate(jobs):
        record = job.stored(store) if store is not None and not force else None
        if record is not None:
            found[index] = record
        elif job.repetition:
            parts[index] = []
    stored = len(found)

    def finish(index: int, record: Record) -> None:
        found[index] = record
        parts.pop(index, None)
        if store is not None:
            store.append(record)

    def one_process(index: int) -> None:
        job = jobs[index]
        begin(job.case.label)
        if job.repetition is None:
            finish(index, job.measure())
            return
        part = job.repetition.one(parts[index])
        if isinstance(part, Skipped):
            finish(index, part)
            return
        parts[index].append(part)
        if len(parts[index]) == job.repetition.processes:
            finish(index, job.repetition.merge(parts[index], len(parts[index])))

    try:
        reverse = False
        while len(found) < len(jobs):
            for index in [index for index in range(len(jobs)) if index not in found][:: -1 if reverse else 1]:
                one_process(index)
            reverse = not reverse
    finally:
        _keep(jobs, parts, store)
    return Results(records=tuple(found[index] for index in range(len(jobs))), stored=stored)


def _keep(jobs: Sequence[Job], parts: Mapping[int, Sequence[Record]], store: Store | None) -> None:
    """Store the finished processes of interrupted cases."""
    for index, finished in parts.items():
        repetition = jobs[index].repetition
        if store is not None and finished and repetition is not None:
            store.append(repetition.merge(finished, len(finished)))
