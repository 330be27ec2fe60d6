"""One denoising forward pass of the smallest model of each family, 256 px, batch 1, on the device at hand.

pytest --benchmark-only tests/benchmarks/test_forward.py

Where nothing is timed, images have 64 px.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.machine import device
from models import create
from models.contract import make_inputs
from models.registry import published_task
from models.weights import randomise_zeros


@pytest.mark.benchmark(group="forward pass, 256 px, batch 1, fp32")
def test_forward_pass(published: str, benchmark: BenchmarkFixture) -> None:
    where = device.default()
    synchronise = device.synchronise(where)
    device.set_precision("fp32")
    with torch.device(where):
        task = published_task(published).at(64, 64) if benchmark.disabled else published_task(published)
        model = create(published, task).eval()
    randomise_zeros(model)
    args = make_inputs(task, 1, where)

    def once() -> torch.Tensor:
        out: torch.Tensor = model(*args)
        synchronise()
        return out

    with torch.inference_mode():
        out = benchmark.pedantic(once, rounds=10, iterations=1, warmup_rounds=3)
    assert torch.isfinite(out).all()
