"""Diffusion backbones behind one interface: model(x, t, y)."""

from models.registry import create, names
from models.task import Task
from models.weights import load_official

__all__ = ["Task", "create", "load_official", "names"]
