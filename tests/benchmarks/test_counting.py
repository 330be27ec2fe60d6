"""Counting without computing, beside a tracer of real weights: seconds here, memory in each row's extra_info.

pytest --benchmark-only tests/benchmarks/test_counting.py

Where nothing is timed, small models are counted in the process of the tests.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from baselines import load
from bench import flops
from bench.counting import counters
from models import Task, create, names

ROOT = Path(__file__).resolve().parents[2]
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes

PREPARE = """
import json, resource, torch
from time import perf_counter as now
from tests.benchmarks.test_counting import built_and_counted
"""
ARMS = {
    "meta": ("meta", "torchprofile-meta"),
    "torchprofile": ("cpu", "torchprofile"),
}


def built_and_counted(arm: str, model: str) -> int:
    """MACs of a model at 256 px."""
    where, counter = ARMS[arm]
    with torch.device(where):
        network = create(model)
    return counters.count_forward(network, Task(), counter=counter).macs


def count(arm: str, model: str) -> dict[str, float]:
    """Build and count a model in its own process: MACs, seconds without imports, peak memory."""
    code = (
        f"{PREPARE}begin = now()\n"
        f"macs = built_and_counted({arm!r}, {model!r})\n"
        "seconds = now() - begin\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps({'macs': macs, 'seconds': seconds, 'peak': peak}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


@pytest.mark.benchmark(group="count FCDM-XL at 256 px, whole process")
@pytest.mark.parametrize("arm", ARMS)
def test_counting_fcdm_xl(arm: str, benchmark: BenchmarkFixture) -> None:
    if benchmark.disabled:
        assert benchmark(built_and_counted, arm, "FCDM-S") == load.macs()["FCDM-S", 32][1]
        return
    model = "FCDM-XL"
    result = benchmark.pedantic(count, args=(arm, model), rounds=3, iterations=1)
    benchmark.extra_info["build and count, s"] = round(result["seconds"], 3)
    benchmark.extra_info["peak, MiB"] = round(result["peak"] * PEAK_UNIT / 2**20)
    assert result["macs"] == load.macs()[model, 32][1]


@pytest.mark.benchmark(group="count the zoo at 256 and 512 px, import included")
def test_counting_the_zoo(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["FCDM-S", "DiT-S/2"] if benchmark.disabled else names()
    options = ["--model", *models, "--res", "256", "512", "--format", "csv"]

    def run() -> str:
        if benchmark.disabled:
            assert flops.main(options) == 0
            return capsys.readouterr().out
        command = [sys.executable, "-m", "bench.flops", *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout

    printed = benchmark.pedantic(run, rounds=1, iterations=1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * PEAK_UNIT
    benchmark.extra_info["peak of any child so far, MiB"] = round(peak / 2**20)
    assert printed.count("\n") == 1 + 2 * len(models)
