"""The engines that call a network: eager, torch.compile, AOTInductor, and replays of a CUDA graph."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from bench.machine.failures import RecompiledError
from bench.measure.prepared.work_check import Inputs
from bench.records.base import ModelCase

T = TypeVar("T")
Network = Callable[..., Tensor]

GRAPH_WARMUP = 3  # passes on a side stream before graph capture, required by torch


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


@contextmanager
def compiled_already(*cases: ModelCase) -> Iterator[None]:
    """Context manager in which compiling, which a timed pass would include, is a RecompiledError."""
    if not any(case.is_compiled for case in cases):
        yield
        return
    from torch._dynamo import config
    from torch._dynamo.exc import RecompileError
    from torch._dynamo.utils import counters as counted

    before = counted["frames"]["ok"]
    try:
        with config.patch(error_on_recompile=True):
            yield
    except RecompileError as error:
        raise RecompiledError(str(error)) from error
    if more := counted["frames"]["ok"] - before:
        raise RecompiledError(f"torch.compile compiled {more} more functions while passes were timed")


@dataclass(frozen=True, kw_only=True)
class CompiledSoFar:
    """Torch's counters of torch.compile in this process."""

    frames: int  # compiled functions, recompilations included
    graph_breaks: int


def compiled_so_far() -> CompiledSoFar:
    from torch._dynamo.utils import counters as counted  # takes 1 s to import

    return CompiledSoFar(frames=counted["frames"]["total"], graph_breaks=sum(counted["graph_break"].values()))


def replayed(call: Callable[[], T], inputs: Inputs) -> Callable[[Inputs], T]:
    """Capture one pass, which reads the inputs, as a CUDA graph; the result replays it."""
    replay = captured(call)

    def function(given: Inputs) -> T:
        for target, source in zip(inputs, given, strict=True):
            if target is not source:
                target.copy_(source)
        return replay()

    return function


def captured(call: Callable[[], T]) -> Callable[[], T]:
    """Capture one pass as a CUDA graph; returns a function that replays it on the same tensors."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(GRAPH_WARMUP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> T:
        graph.replay()
        return out

    return replay
