"""Training objectives by name, and the task of the network for each objective."""

from bench.records.base import Size
from bench.records.training import Recipe
from bench.training.diffusion import IDDPM
from bench.training.flow import Flow
from bench.training.objective import Objective
from models.task import Task

_OBJECTIVES: dict[str, type[IDDPM] | type[Flow]] = {objective.name: objective for objective in (IDDPM, Flow)}
NAMES = tuple(_OBJECTIVES)


def find(name: str) -> Objective:
    """The objective with a name.

    Raises:
        ValueError: no such objective.
    """
    if name not in _OBJECTIVES:
        raise ValueError(f"{name}: no such objective; known are {', '.join(NAMES)}")
    return _OBJECTIVES[name]()


def task_of(recipe: Recipe, latent_size: Size) -> Task:
    """The task for which a network trained by a recipe is built."""
    return Task(
        latent_size=latent_size,
        in_channels=recipe.channels,
        num_classes=recipe.classes,
        learn_sigma=find(recipe.objective).learn_sigma,
    )
