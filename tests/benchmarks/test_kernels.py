"""Every operation of bench.kernels by every implementation that runs here, at a size of FCDM-S.

pytest --benchmark-only tests/benchmarks/test_kernels.py

A call is timed with its launch; bench.kernels times calls of several inputs in rounds, and compares them.
Where nothing is timed, images are small and torch.compile is left out.
"""

from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.machine import device
from bench.measure.operations.implementations import TOLERANCE, Draws, error
from bench.measure.operations.kernels import OPERATIONS
from bench.records.kernels import DEPTHWISE, NORMS, DepthwiseCase, KernelCase, NormCase, ProductCase
from tests.records.examples import MODEL

WHERE = device.default()
KERNEL = 7
AVAILABLE = [
    (operation, name)
    for operation, one in OPERATIONS.items()
    for name, implementation in one.implementations.items()
    if not implementation.why_not(WHERE, KERNEL)
]
WIDTHS = {"gelu-product": (128, 384), "scaled-product": (384, 128), "shuffled-product": (256, 128)}
SMALL = (8, 8)


def case(operation: str, *, small: bool) -> KernelCase:
    """An operation of FCDM-S at 256 px, at its first level."""
    channels, out_channels = SMALL if small else WIDTHS.get(operation, (128, 128))
    fields: dict[str, Any] = {
        **{**MODEL, "device": WHERE},
        "operation": operation,
        "channels": channels,
        "image_size": 4 if small else 32,
        "calls_per_pass": 1,
        "budget_s": 1.0,
        "precision_target": 0.01,
    }
    if operation in DEPTHWISE:
        return DepthwiseCase(**fields, kernel=KERNEL)
    if operation in NORMS:
        return NormCase(**fields, groups=channels // 4)
    return ProductCase(**fields, out_channels=out_channels)


@pytest.mark.parametrize(("operation", "name"), AVAILABLE)
def test_kernel(
    operation: str, name: str, benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark.group = f"{operation} of FCDM-S, 32x32, batch 4, fp32"
    if benchmark.disabled:
        monkeypatch.setattr(torch, "compile", lambda function, **_options: function)
    synchronise = device.synchronise(WHERE)
    device.set_precision("fp32")
    one = OPERATIONS[operation]
    given = one.draw(case(operation, small=benchmark.disabled), Draws(torch.float32, WHERE))
    with torch.inference_mode():
        call = one.implementations[name].make(given)

        def once() -> object:
            out = call(0)
            synchronise()
            return out

        out = benchmark.pedantic(once, rounds=30, iterations=1, warmup_rounds=3)
        off = error(out, one.exact(given))
    assert off is not None
    assert off < TOLERANCE["fp32"]
