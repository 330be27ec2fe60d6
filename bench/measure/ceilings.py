"""Ceilings of a device: the rate of its fastest matrix product, convolution and copy.

FLOPs are twice the MACs; a copy counts its bytes twice, read and written. Setup and warm-up are not timed.
"""

import time
from collections.abc import Callable, Sequence

import torch

from bench.machine import device
from bench.measure import timing
from bench.records.base import Environment
from bench.records.ceiling import Ceiling, CeilingCase

SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}  # of the square matrices
CHANNELS, LATENT, IMAGES = 256, 32, 4  # of the convolution: in and out, side, batch
COPIED = {"cpu": 2**29, "cuda": 2**31}  # bytes, much larger than the caches


def measure(case: CeilingCase, environment: Environment, budget_s: float) -> Ceiling:
    """Measure one ceiling in this process; a matrix product at the fastest of SIDES."""
    device.set_precision(case.precision)
    if case.what == "copy":
        return copy(case, environment, budget_s)
    if case.what == "convolution":
        return convolution(case, environment, budget_s)
    sides = SIDES[case.device]
    return fastest([matmul(case, environment, side, budget_s / len(sides)) for side in sides])


def fastest(ceilings: Sequence[Ceiling]) -> Ceiling:
    return max(ceilings, key=lambda ceiling: ceiling.per_s)


def matmul(case: CeilingCase, environment: Environment, side: int, budget_s: float) -> Ceiling:
    """Time the product of two square normal random matrices, with a preallocated output."""
    dtype = device.DTYPES[case.precision]
    a, b = (torch.randn(side, side, device=case.device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = _times(lambda: torch.matmul(a, b, out=out), case.device, budget_s)
    return Ceiling(case=case, environment=environment, size=side, work=2 * side**3, times_s=times)


def convolution(case: CeilingCase, environment: Environment, budget_s: float) -> Ceiling:
    """Time a 3x3 convolution with CHANNELS inputs and outputs."""
    dtype = device.DTYPES[case.precision]
    x = torch.randn(IMAGES, CHANNELS, LATENT, LATENT, device=case.device).to(dtype)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, device=case.device).to(dtype)
    times = _times(lambda: torch.conv2d(x, weight, padding=1), case.device, budget_s)
    flops = 2 * IMAGES * LATENT**2 * 9 * CHANNELS**2
    return Ceiling(case=case, environment=environment, size=CHANNELS, work=flops, times_s=times)


def copy(case: CeilingCase, environment: Environment, budget_s: float) -> Ceiling:
    """Time the copy of a tensor larger than the caches."""
    size = COPIED[case.device]
    source = torch.randn(size // 4, device=case.device)
    target = torch.empty_like(source)
    times = _times(lambda: target.copy_(source), case.device, budget_s)
    return Ceiling(case=case, environment=environment, size=size, work=2 * size, times_s=times)


def _times(call: Callable[[], object], where: str, budget_s: float) -> tuple[float, ...]:
    """Seconds of each call after warm-up, device synchronised."""
    clock, synchronise = time.perf_counter, device.synchronise(where)
    policy = timing.Policy(budget_s=budget_s, min_warmup_s=min(0.2, budget_s / 4), min_sampling_s=0.2)
    begin = clock()
    timing.warm_up(call, policy, clock=clock, synchronise=synchronise)
    samples = timing.sample(call, policy, spent_s=clock() - begin, clock=clock, synchronise=synchronise)
    return samples.wall_s
