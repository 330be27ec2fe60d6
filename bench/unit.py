"""A case of any command, as a sweep plans it, measures it and finds it again."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.record import Record, Run


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One case; a command that a sweep can run has a function units(args) that gives them in order."""

    label: str  # in words, without the command
    about: Run | Record | tuple[Run, ...]  # what a store knows it by
    estimate_s: float  # that it takes at the most, as a rule
    measure: Callable[[], Record]
