"""Runs jobs in order: takes from a store what it holds, and stores every new record at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.jobs.job import Job
from bench.records.base import Record
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Results:
    """The answers of some jobs.

    Attributes:
        records: one a job, in order.
        stored: how many of them the store held already.
    """

    records: tuple[Record, ...]
    stored: int


def run(jobs: Sequence[Job], store: Store | None, *, force: bool, begin: Callable[[str], None]) -> Results:
    """Run jobs in order.

    Args:
        jobs: what to measure.
        store: holds earlier records and takes the new ones; each is on disk before the next job begins.
        force: measure what the store holds too.
        begin: called with the name of the case that begins.
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
