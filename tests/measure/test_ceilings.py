"""Ceilings: what is timed, what is kept, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import ceilings
from bench.ceilings import CeilingCase
from bench.records.record import Ceiling, Skipped, read
from tests.cli.test_cli import run
from tests.records.test_record import HERE

MATMUL = CeilingCase(what="matmul", precision="fp32", budget_s=0.05, environment=HERE)
COPY = replace(MATMUL, what="copy")


def test_a_matrix_product_counts_two_flops_a_multiply_accumulate() -> None:
    ceiling = ceilings.matmul(MATMUL, 24, 0.05)
    assert (ceiling.what, ceiling.precision, ceiling.size, ceiling.work) == ("matmul", "fp32", 24, 2 * 24**3)
    assert ceiling.per_s > 0
    assert len(ceiling.times_s) >= 1


def test_a_convolution_counts_nine_products_for_each_pair_of_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ceilings, "CHANNELS", 8)
    ceiling = ceilings.measure(replace(MATMUL, what="convolution"))
    assert (ceiling.size, ceiling.work) == (8, 2 * 4 * 32 * 32 * 9 * 8 * 8)


def test_only_a_cpu_has_a_ceiling_of_convolutions() -> None:
    cpu = [(case.what, case.precision) for case in ceilings.planned("cpu", ["fp32", "bf16"], 1.0)]
    products = [("matmul", "fp32"), ("convolution", "fp32"), ("matmul", "bf16"), ("convolution", "bf16")]
    assert cpu == [*products, ("copy", "fp32")]


def test_a_copy_counts_its_bytes_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 2**14})
    ceiling = ceilings.measure(COPY)
    assert (ceiling.what, ceiling.size, ceiling.work) == ("copy", 2**14, 2**15)


def test_the_fastest_size_is_kept() -> None:
    def taking(seconds: float, side: int) -> Ceiling:
        return replace(MATMUL.blank, size=side, work=2 * side**3, times_s=(seconds, seconds, 9.0))

    small, large, slow = taking(1.0, 10), taking(4.0, 20), taking(16.0, 20)
    assert [one.per_s for one in (small, large, slow)] == [2000, 4000, 1000]
    assert ceilings.fastest([small, large, slow]) is large


def test_every_size_has_its_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[int, float]] = []

    def timed(_case: CeilingCase, side: int, budget_s: float) -> Ceiling:
        shares.append((side, budget_s))
        return replace(MATMUL.blank, size=side, work=1, times_s=(1.0 / side,))

    monkeypatch.setattr(ceilings, "SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceilings, "matmul", timed)
    assert ceilings.measure(replace(MATMUL, budget_s=3.0)).size == 16
    assert shares == [(8, 1.5), (16, 1.5)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command measures tiny things in this process; what it measured, in order."""
    measured: list[str] = []

    def here(measure: str, case: CeilingCase, timeout_s: float) -> Ceiling | Skipped:
        assert measure == "bench.ceilings:measure"
        assert timeout_s > case.budget_s
        measured.append(f"{case.what} {case.precision}")
        if case.precision == "bf16":
            return Skipped(run=case.run, status="out of memory", reason="no room")
        return ceilings.measure(case)

    monkeypatch.setattr(ceilings, "SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 2**12})
    monkeypatch.setattr("bench.worker.run", here)
    return measured


def test_the_command_keeps_what_it_measured_and_measures_again_what_failed(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "ceilings.jsonl"
    asked = ["--device", "cpu", "--budget", "0.05", "--out", str(store), "--format", "json"]
    assert run(ceilings.main, *asked) == 0
    assert small == [
        "matmul fp32",
        "convolution fp32",
        "matmul bf16",
        "convolution bf16",
        "copy fp32",
    ]
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["ok", "ok", "out of memory", "out of memory", "ok"]
    assert [row["per_s"] is None for row in rows] == [False, False, True, True, False]
    assert [type(record) for record in read(store)] == [Ceiling, Ceiling, Skipped, Skipped, Ceiling]

    small.clear()
    assert run(ceilings.main, *asked) == 0
    assert small == ["matmul bf16", "convolution bf16"]
    assert "3 of 5 were in" in capsys.readouterr().err


def test_a_table_names_units_and_reasons(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ceilings.main, "--device", "cpu", "--budget", "0.05") == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert "GB/s" in printed
    assert "out of memory: no room" in printed


def test_a_ceiling_is_measured_in_a_worker_of_its_own() -> None:
    from bench.jobs import worker
    from bench.machine import environment

    case = replace(MATMUL, environment=environment.gather("cpu", ""))
    found = worker.run("bench.ceilings:measure", case, 60)
    assert isinstance(found, Ceiling)
    assert found.size in ceilings.SIDES["cpu"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
        (["--device", "cpu", "--precision", "fp16"], "--precision fp16: is measured on CUDA only"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--budget", "0"], "--budget: must be seconds above zero"),
        (["--out", "/dev/null/x"], "--out /dev/null/x: cannot be written"),
    ],
)
def test_bad_input_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ceilings.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1
