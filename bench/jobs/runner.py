"""Runs jobs in order: stored records are reused, and every new record is stored immediately."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.jobs.job import Job
from bench.records.base import Record
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Results:
    """Records of some jobs.

    Attributes:
        records: one for each job, in order.
        stored: number of records that were already stored.
    """

    records: tuple[Record, ...]
    stored: int


def run(jobs: Sequence[Job], store: Store | None, *, force: bool, begin: Callable[[str], None]) -> Results:
    """Run jobs in order.

    Args:
        jobs: what to measure.
        store: of earlier and new records; each new record is on disk before the next job starts.
        force: measure stored cases again.
        begin: called with the name of each case before it starts.
    """
    records: list[Record] = []
    stored = 0
    for job in jobs:
        begin(job.case.label)
        record = job.stored(store) if store is not None and not force else None
        if record is not None:
            stored += 1
        else:
            record = job.measure()
            if store is not None:
                store.append(record)
        records.append(record)
    return Results(records=tuple(records), stored=stored)
