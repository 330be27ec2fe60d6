"""Checks that timed passes did the work of their network: a time that no work explains is no time.

Inputs rotate from a pool. One timed output, chosen at random, is copied as soon as the clock stops. Later it
is compared with a fresh pass on equal values in another tensor, and with a pass on other values; the time is
compared with the counted FLOPs.
"""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.counting.hooks import hooked
from bench.counting.rules import STRAIGHT, layer_macs
from bench.machine.failures import DifferentOutputError, NoWorkError
from bench.records.base import ModelCase
from bench.records.operators import WINOGRAD

POOL = 3  # inputs: of the timed output, of the same values in other memory, of other values
# relative difference of two passes with equal values: reductions in another order
TOLERANCE = {"fp32": 1e-3, "tf32": 0.03, "torch-default": 0.03, "bf16": 0.1, "fp16": 0.03}
# FLOP/s beyond any device, with its full precision or less: two AVX-512 FMA units or one AMX unit a thread at
# 6 GHz; more than twice a B200
CPU_FLOPS = {"fp32": 6e9 * 64, "less": 6e9 * 2048}
GPU_FLOPS = {"fp32": 2e14, "less": 5e15}

Inputs = tuple[Tensor, Tensor, Tensor]  # x, t and y
_chance = random.SystemRandom()  # not to be seeded by a model


class CountedCall:
    """A call for one image whose first run counts FLOPs.

    Attributes:
        flops: of the linear and convolutional layers that ran, the latter at Winograd's factor: a lower
            bound; 0 before.
    """

    def __init__(self, model: nn.Module, call: Callable[[], object]) -> None:
        self.flops = 0.0
        self._model, self._call = model, call
        self._counted = False

    def __call__(self) -> None:
        def add(layer: nn.Module, _: object, out: object) -> None:
            if isinstance(out, Tensor):
                needed = 1 if isinstance(layer, nn.Linear) else WINOGRAD
                self.flops += 2 * layer_macs(layer, out, out) * needed

        layers = [m for m in self._model.modules() if isinstance(m, STRAIGHT)]
        counted, self._counted = self._counted, True
        with hooked([] if counted else layers, after=add):
            self._call()


class CheckedPass:
    """A pass over POOL rotating inputs of equal shapes that remembers its last output."""

    def __init__(self, call: Callable[[Inputs], Tensor], pool: Sequence[Inputs], precision: str) -> None:
        self._function, self._pool, self._precision = call, pool, precision
        self._index = 0
        self._last: tuple[int, object] | None = None
        self._kept: tuple[int, object] | None = None
        self._seen = 0

    def __call__(self) -> Tensor:
        index = self._index
        self._index = (index + 1) % len(self._pool)
        out = self._function(self._pool[index])
        self._last = index, out
        return out

    def keep(self) -> None:
        """To be called when the clock has stopped: each timed output has an equal chance to be kept."""
        self._seen += 1
        if self._last is not None and _chance.random() * self._seen < 1:
            index, out = self._last
            self._kept = index, out.detach().clone() if type(out) is Tensor else out

    def verify(self) -> None:
        """Compare the kept output with fresh passes.

        NoWorkError: it is no tensor of values, does not depend on the input, or is not what a fresh pass
        gives.
        """
        if self._kept is None:
            return
        index, kept = self._kept
        if type(kept) is not Tensor:
            raise NoWorkError(
                f"the output is a {type(kept).__name__}, which may compute later; return a Tensor"
            )
        same, other = [place for place in range(POOL) if place != index][:2]
        different = self._function(self._pool[other]).clone()
        require_difference(kept, different)
        for target, source in zip(self._pool[same], self._pool[index], strict=True):
            target.copy_(source)
        fresh = self._function(self._pool[same])
        distance = _distance(kept, fresh)
        if not distance <= TOLERANCE[self._precision]:
            raise NoWorkError(
                f"a timed output differs from a fresh pass on equal values by {distance:.2g} of its norm: "
                "work was deferred or skipped, or the network is random or keeps state"
            )


def require_difference(one: Tensor, other: Tensor) -> None:
    """Require that the outputs of two inputs differ. NoWorkError: they are equal."""
    if bool(torch.equal(one, other)):
        raise NoWorkError("the output does not depend on its input: no work explains its times")


def require_equal(engine: str, out: Tensor, eager: Tensor, precision: str) -> None:
    """Require that the outputs of an engine and of the eager model are equal, or DifferentOutputError."""
    distance = _distance(out, eager)
    if not distance <= TOLERANCE[precision]:
        raise DifferentOutputError(
            f"the output under {engine} differs from the eager one by {distance:.2g} of its norm, more than "
            f"{TOLERANCE[precision]:g}"
        )


def require_change(model: nn.Module, step: Callable[[], object]) -> None:
    """Require that a training step changes some of up to eight parameters, or NoWorkError."""
    trained = [p for p in model.parameters() if p.requires_grad]
    chosen = _chance.sample(trained, min(8, len(trained)))
    before = [p.detach().clone() for p in chosen]
    step()
    if all(torch.equal(old, new) for old, new in zip(before, chosen, strict=True)):
        raise NoWorkError("a training step changes no parameter: no work explains its times")


def require_time(case: ModelCase, seconds: float, flops: float) -> None:
    """Require the time that any device needs for a pass's FLOPs by fast algorithms, or NoWorkError."""
    width = "fp32" if case.precision == "fp32" else "less"
    limit = CPU_FLOPS[width] * torch.get_num_threads() if case.device == "cpu" else GPU_FLOPS[width]
    floor_s = flops / limit
    if seconds < floor_s:
        raise NoWorkError(
            f"a pass of {1e3 * seconds:.3g} ms is below its floor of {1e3 * floor_s:.3g} ms, for "
            f"{flops / 1e9:.3g} GFLOPs at {limit / 1e12:.3g} TFLOP/s: no work explains it"
        )


def _distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    difference, norm = (a.float() - b.float()).norm(), b.float().norm()
    return float(difference / norm) if norm > 0 else float(difference)
