"""Benchmarks of backbones. A module with a `main` is a command: `python -m bench.flops`."""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def _import_ours(name: str) -> None:
    """Import a package that lies next to this one, whatever package of its name the current folder has."""
    spec = PathFinder.find_spec(name, [str(Path(__file__).resolve().parents[1])])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


for _package in ("models", "baselines", "reports"):
    if _package not in sys.modules:
        _import_ours(_package)
