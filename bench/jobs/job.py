"""A case that is ready to be measured: what a command plans, and what the runner and a sweep run."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.records.base import Case, Environment, Record
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case. A command that a sweep can run has a function jobs(args) that gives its jobs in order."""

    case: Case
    environment: Environment  # as planned; the record has that of its own time
    measure: Callable[[], Record]
    estimate_s: float  # an upper bound, as a rule
    # how a store is searched, where the newest record of the case is not the answer
    lookup: Callable[[Store], Record | None] | None = None
    # delete what an earlier measurement left for the next one
    discard_checkpoint: Callable[[], None] | None = None

    def stored(self, store: Store) -> Record | None:
        """The answer that a store holds, if it does."""
        return self.lookup(store) if self.lookup else store.find(self.case, self.environment)
