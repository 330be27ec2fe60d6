"""The engines that call a network: eager, torch.compile, or AOTInductor."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.records.base import ModelCase

Network = Callable[..., Tensor]


def network(case: ModelCase, model: nn.Module, inputs: tuple[Tensor, ...]) -> Network:
    """The function that a case calls; inputs fix shapes, types, layouts. AOTInductor copies the weights."""
    if case.engine == "aoti":
        return _ahead_of_time(model, inputs)
    return torch.compile(model) if case.is_compiled else model


def _ahead_of_time(model: nn.Module, inputs: tuple[Tensor, ...]) -> Network:
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # takes seconds to import

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        program = torch.export.export(model, inputs)
        package = aoti_compile_and_package(program, package_path=str(Path(folder, "model.pt2")))
        loaded: Network = aoti_load_package(package)
    return loaded
