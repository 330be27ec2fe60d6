"""Diffusion backbones behind one interface: model(x, t, y). Importing the package imports no torch."""

from typing import TYPE_CHECKING

from models.registry import create, names
from models.task import Task

if TYPE_CHECKING:
    from models.weights import load_official

__all__ = ["Task", "create", "load_official", "names"]


def __getattr__(name: str) -> object:
    if name == "load_official":  # the one name of these that needs torch
        from models.weights import load_official

        return load_official
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
