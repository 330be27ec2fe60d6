"""The training objectives by name."""

from bench.training.diffusion import IDDPM
from bench.training.flow import Flow
from bench.training.objective import Objective

_OBJECTIVES: dict[str, type[IDDPM] | type[Flow]] = {objective.name: objective for objective in (IDDPM, Flow)}
NAMES = tuple(_OBJECTIVES)


def find(name: str) -> Objective:
    """Make the objective of a name.

    Raises:
        ValueError: no such objective.
    """
    if name not in _OBJECTIVES:
        raise ValueError(f"{name}: no such objective; known are {', '.join(NAMES)}")
    return _OBJECTIVES[name]()
