"""MACs of a backbone by name from the formula of its network, without building or tracing it."""

import functools

from models.arithmetic import Terms
from models.registry import find
from models.task import Task
from models.users import UserFactory


def count(name: str, task: Task, batch: int = 1) -> Terms | None:
    """Count `batch` images of a backbone from its configuration alone; None if its network has no formula.

    A factory with a formula is a `functools.partial` of a network class, with a static method
    `closed_form(terms, config, task)`, and a Config. ValueError: an unknown name.
    """
    factory = find(name)
    if isinstance(factory, UserFactory):
        factory = factory.constructor
    if not isinstance(factory, functools.partial) or len(factory.args) != 1:
        return None
    formula = getattr(factory.func, "closed_form", None)
    if formula is None:
        return None
    terms = Terms(batch)
    formula(terms, factory.args[0], task)
    return terms
