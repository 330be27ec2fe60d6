"""A case of any command, as a sweep plans it, measures it and finds it again."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.records.record import Record, Run
from bench.records.store import Store


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One case; a command that a sweep can run has a function units(args) that gives them in order."""

    label: str  # in words, without the command
    about: Run | Record | tuple[Run, ...]  # what a store knows it by
    estimate_s: float  # that it takes at the most, as a rule
    measure: Callable[[], Record]
    found: Callable[[Store], Record | None] | None = (
        None  # where a store's newest of `about` is not the answer
    )
    forget: Callable[[], None] | None = None  # throws away what an earlier measurement left for the next one

    def held(self, store: Store) -> Record | None:
        """The answer that a store holds, if it does."""
        return self.found(store) if self.found else store.held(self.about)
