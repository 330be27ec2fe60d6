"""Models that users bring: files, modules and classes of diffusers, built and called by the field's names.

Importing the package runs no code of the user's and imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.family import Factory
from models.guard import UsersCodeError, users_code
from models.task import Task
from models.users import constructors, files, names
from models.users.names import UnfitError, UserModel

if TYPE_CHECKING:
    from torch import nn


def published_task(name: str) -> Task:
    """The task of a user's model: its arguments', else latents of 32 x 32 x 4. ValueError: bad ones."""
    model = names.parse(name)
    try:
        return constructors.task_of(_given(model))
    except ValueError as error:
        raise ValueError(f"{model.name}: {error}") from error


def _given(model: UserModel) -> dict[str, object]:
    if not model.is_diffusers:
        return dict(model.arguments)
    from models.users import diffusers_models

    return diffusers_models.arguments(model)


@dataclass(frozen=True)
class UserFactory:
    """Builds a user's model for a task."""

    name: str  # of the model
    constructor: Any  # a class, a function, or a network made at import
    arguments: Mapping[str, Any]  # its keywords given by the user

    def __call__(self, task: Task) -> "nn.Module":
        """Build the model.

        Raises:
            UsersCodeError: it cannot be called with a task, or its network with x, t and y.
            whatever the user's code raises.
        """
        from copy import deepcopy

        from torch import nn

        from models.users.calls import adapt

        try:
            if isinstance(self.constructor, nn.Module):
                made = deepcopy(self.constructor)
            else:
                made = constructors.call(self.constructor, task, self.arguments)
            if isinstance(made, nn.Module):
                if type(made).__hash__ is None:
                    raise UnfitError("torch needs a network with a hash: a dataclass has one with eq=False")
                adapt(made)
        except UnfitError as error:
            raise UsersCodeError(f"{self.name}: {error}") from error
        return made


def factory(name: str) -> Factory:
    """Import a user's model and return its factory.

    ValueError: the form of the name, no such file, no callable of that name in it, or what it raises.
    """
    model = names.parse(name)
    if model.is_diffusers:
        from models.users import diffusers_models

        return diffusers_models.factory(model)
    located = _located(model)
    with users_code(model.name):
        found = _loaded(model, located)
        for part in model.attribute.split("."):
            found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{model.name}: {model.where} has no callable {model.attribute!r} that takes a Task")
    return UserFactory(model.name, found, model.arguments)


def _located(model: UserModel) -> files.Located:
    try:
        return files.of_file(model.where) if model.is_file else files.of_module(model.where)
    except ValueError as error:
        raise ValueError(f"{model.name}: {error}") from error


def _loaded(model: UserModel, located: files.Located) -> object:
    from models.users import imports

    try:
        return imports.load(located)
    except ModuleNotFoundError as error:
        if model.is_file or not f"{model.where}.".startswith(f"{error.name}."):
            raise  # a module that the user's own imports
        raise UsersCodeError(f"{model.name}: cannot import {model.where!r}: {error}") from error


def sources(name: str) -> set[Path]:
    """Source files of a user's model: its own, and those it imports of its repository. ValueError: none."""
    model = names.parse(name)
    if model.is_diffusers:
        from models.users import diffusers_models

        return diffusers_models.sources(model)
    return files.closure(_located(model))
