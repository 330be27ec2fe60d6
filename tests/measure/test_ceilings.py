"""Ceilings: measured sizes, stored records, errors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import roofline
from bench.analysis.rooflines import floors
from bench.jobs import worker
from bench.machine import device, environment
from bench.measure import ceilings
from bench.records.base import Environment, Record, Skipped
from bench.records.ceiling import Ceiling, CeilingCase, cases
from bench.store.codec import read
from bench.tables.render import render
from tests.commands import run
from tests.records.examples import ENVIRONMENT

MATMUL = CeilingCase(device="cpu", what="matmul", precision="fp32")
COPY = replace(MATMUL, what="copy")
HERE = ("--measure-ceilings", "--device", "cpu", "--budget", "0.05")


def ceiling(**values: object) -> Ceiling:
    known = {"case": MATMUL, "environment": ENVIRONMENT, "size": 8, "work": 1, "times_s": (1.0,)}
    return Ceiling(**{**known, **values})  # type: ignore[arg-type]


def test_a_product_counts_two_flops_a_multiply_accumulate() -> None:
    found = ceilings.matmul(MATMUL, ENVIRONMENT, 24, 0.05)
    assert (found.case, found.size, found.work) == (MATMUL, 24, 2 * 24**3)
    assert found.per_s > 0
    assert len(found.times_s) >= 1


def test_a_convolution_counts_nine_products_a_channel_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "CHANNELS", 8)
    found = ceilings.measure(replace(MATMUL, what="convolution"), ENVIRONMENT, 0.05)
    assert (found.size, found.work) == (8, 2 * 4 * 32 * 32 * 9 * 8 * 8)


def test_only_a_cpu_has_a_ceiling_of_convolutions() -> None:
    cpu = [(case.what, case.precision) for case in cases("cpu", ["fp32", "bf16"])]
    products = [("matmul", "fp32"), ("convolution", "fp32"), ("matmul", "bf16"), ("convolution", "bf16")]
    assert cpu == [*products, ("copy", "fp32")]
    assert {case.what for case in cases("cuda", ["tf32"])} == {"matmul", "copy"}


def test_a_copy_counts_its_bytes_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 2**14})
    found = ceilings.measure(COPY, ENVIRONMENT, 0.05)
    assert (found.case.what, found.size, found.work) == ("copy", 2**14, 2**15)


def test_the_fastest_size_is_kept() -> None:
    def taking(seconds: float, side: int) -> Ceiling:
        return ceiling(size=side, work=2 * side**3, times_s=(seconds, seconds, 9.0))

    small, large, slow = taking(1.0, 10), taking(4.0, 20), taking(16.0, 20)
    assert [one.per_s for one in (small, large, slow)] == [2000, 4000, 1000]
    assert ceilings.fastest([small, large, slow]) is large


def test_every_size_has_its_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[int, float]] = []

    def timed(case: CeilingCase, environment: Environment, side: int, budget_s: float) -> Ceiling:
        shares.append((side, budget_s))
        return ceiling(case=case, environment=environment, size=side, times_s=(1.0 / side,))

    monkeypatch.setattr(ceilings, "SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceilings, "matmul", timed)
    assert ceilings.measure(MATMUL, ENVIRONMENT, 3.0).size == 16
    assert shares == [(8, 1.5), (16, 1.5)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command measures tiny sizes in this process; the cases it measured, in order."""
    measured: list[str] = []

    def measure(
        function: str, case: CeilingCase, environment: Environment, timeout_s: float, *, budget_s: float
    ) -> Record:
        assert function == "bench.measure.ceilings:measure"
        assert timeout_s > budget_s
        measured.append(case.label)
        if case.precision == "bf16":
            return Skipped(case=case, environment=environment, status="out of memory", reason="no room")
        return ceilings.measure(case, environment, budget_s)

    monkeypatch.setattr(ceilings, "SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 2**12})
    monkeypatch.setattr(worker, "run", measure)
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: True)
    return measured


def test_stored_ceilings_are_not_measured_again(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "ceilings.jsonl"
    asked = [*HERE, "--out", str(store), "--format", "json"]
    assert run(roofline.main, *asked) == 0
    products = ["matmul, fp32", "convolution, fp32", "matmul, bf16", "convolution, bf16"]
    assert small == [*products, "copy, fp32"]
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["ok", "ok", "out of memory", "out of memory", "ok"]
    assert [row["per_s"] is None for row in rows] == [False, False, True, True, False]
    assert [type(one) for one in read(store).records] == [Ceiling, Ceiling, Skipped, Skipped, Ceiling]
    assert run(roofline.main, *asked) == 0
    assert len(small) == 5
    assert "5 of 5 were in" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_a_table_names_units_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(roofline.main, *HERE) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("GFLOP/s", "GB/s", "out of memory", "no room"))


def test_a_known_gpu_has_the_makers_figures_beside_its_own() -> None:
    gpu = replace(ENVIRONMENT, device="NVIDIA H200", device_type="cuda")
    rows = [ceiling(environment=gpu), ceiling(case=COPY, environment=gpu), ceiling()]
    raw = json.loads(render(floors.CEILINGS, rows, "json"))
    assert [row["sold_per_s"] for row in raw] == [pytest.approx(66.9e12), pytest.approx(4.8e12), None]


def test_a_ceiling_is_measured_in_a_worker_of_its_own() -> None:
    here = environment.gather("cpu", "")
    found = worker.run("bench.measure.ceilings:measure", MATMUL, here, 60, budget_s=0.05)
    assert isinstance(found, Ceiling), found
    assert found.size in ceilings.SIDES["cpu"]


@pytest.mark.parametrize(("has_bf16", "precisions"), [(True, ["fp32", "bf16"]), (False, ["fp32"])])
def test_a_sweep_gets_a_job_for_every_ceiling_of_the_device(
    has_bf16: bool, precisions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: has_bf16)
    jobs = roofline.jobs(roofline.parser().parse_args(list(HERE)))
    assert [job.case for job in jobs] == cases("cpu", precisions)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
        (["--precision", "fp16"], "--precision fp16: has no ceiling on cpu; fp32, bf16 have"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--budget", "0"], "--budget: must be seconds above zero"),
        (["--out", "/dev/null/x"], "--out /dev/null/x: cannot be written"),
    ],
)
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(roofline.main, *HERE, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
