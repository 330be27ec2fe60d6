"""A planned case with its measurement: planned by a command, run by the runner or a sweep."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.records.base import Case, Environment, Record
from bench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Job:
    """One planned case. A command that a sweep can run has a function jobs(args), which returns its jobs."""

    case: Case
    environment: Environment  # at planning time; the record has the one of its measurement
    measure: Callable[[], Record]
    estimate_s: float  # usually an upper bound
    # replaces the search for the newest record of the case
    lookup: Callable[[Store], Record | None] | None = None
    # deletes the checkpoint of an earlier measurement
    discard_checkpoint: Callable[[], None] | None = None

    def stored(self, store: Store) -> Record | None:
        """The stored record of this case, or None."""
        return self.lookup(store) if self.lookup else store.find(self.case, self.environment)
