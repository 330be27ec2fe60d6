"""Sweeps: planned in order, resumed wherever they were stopped, with a budget."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from bench import sweep
from bench.cli import options
from bench.records import record
from bench.records.record import Counted, Memory, Run, Skipped, Throughput
from models import Task, contract
from tests.records.test_record import TIMED

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
about = "three cases of a small model"

[[run]]
command = "flops"
model = ["tests.tiny:Tiny"]
res = [64]

[[run]]
command = "throughput"
device = "cpu"
model = ["tests.tiny:Tiny"]
res = [64]
batch = [1, 2]
budget = "1s"

[[run]]
command = "throughput"
device = "cuda"
model = ["tests.tiny:Tiny"]
"""


def run(*args: str) -> int:
    try:
        return sweep.main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def test_a_dry_run_prints_the_plan_and_measures_nothing(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "records.jsonl"
    assert run(str(suite), "--dry-run", "--out", str(out), "--format", "json") == 0
    printed = capsys.readouterr()
    plan = json.loads(printed.out)
    assert [row["case"] for row in plan] == [
        "flops tests.tiny:Tiny 64 px, torch",
        "throughput tests.tiny:Tiny 64 px, batch 1, fp32",
        "throughput tests.tiny:Tiny 64 px, batch 2, fp32",
    ]
    assert not any(row["held"] for row in plan)
    assert "left out without such a device: throughput on cuda" in printed.err
    assert not out.exists()


def test_a_plan_builds_a_model_once_however_many_tables_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, int]] = []

    def build(name: str, task: Task, device: str = "meta") -> nn.Module:
        built.append((name, task.height))
        return contract_build(name, task, device)

    contract_build = contract.build
    monkeypatch.setattr(contract, "build", build)
    options._builds.cache_clear()
    tables = [
        'command = "throughput"\nmodel = ["FCDM-S"]\nres = [288, 320]',
        'command = "latency"\nmodel = ["FCDM-S"]\nres = [288]',
        'command = "throughput"\nmodel = ["FCDM-S"]\nres = [320]\nprecision = ["bf16"]',
    ]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(f"[[run]]\n{table}" for table in tables))
    _, units, _ = sweep.plan([str(path)])
    assert len(units) == 4
    assert built == [("FCDM-S", 36), ("FCDM-S", 40)]


def test_a_model_that_cannot_be_built_is_told_of_every_table_that_names_it() -> None:
    for flag in ("--model", "MODEL"):
        with pytest.raises(options.UsageError, match=rf"^{flag} DiT-S/8: .*multiple of patch 8, got 33"):
            options.check_models(["DiT-S/8"], [264], None, flag)


def test_a_sweep_stops_at_its_budget_and_goes_on_where_it_was(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(suite), "--out", str(tmp_path / "records.jsonl")]
    assert run(*args, "--budget", "1s") == 0
    told = capsys.readouterr().err
    assert "stopped by --budget with 2 of 3 cases left, about" in told
    assert "measured now: 1 ok; held already: 0" in told
    assert run(*args) == 0
    assert "measured now: 2 ok; held already: 1" in capsys.readouterr().err
    assert run(*args) == 0
    assert "measured now: none; held already: 3" in capsys.readouterr().err
    kinds = [type(one) for one in record.read(tmp_path / "records.jsonl")]
    assert kinds == [Counted, Throughput, Throughput]


def test_what_other_software_measured_here_is_passed_over_only_if_asked_and_only_if_it_ended_well(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = '[[run]]\ncommand = "memory"\ndevice = "cpu"\nmodel = ["tests.tiny:Tiny"]\nres = [64]\n'
    suite.write_text(f'{SUITE}{memory}batch = [1, 2]\nwork = ["inference"]\n')
    out = tmp_path / "records.jsonl"
    _, planned, _ = sweep.plan([str(suite)])
    counted, *runs = (one.unit.about for one in planned)
    assert isinstance(counted, Counted)
    first, second, known, failed = (
        replace(run, environment=replace(run.environment, code="0ld")) for run in runs if isinstance(run, Run)
    )
    predicted = planned[3].unit.measure()
    assert isinstance(predicted, Memory)
    elsewhere = replace(second, environment=replace(second.environment, device="another CPU"))
    lines = [
        counted,
        replace(TIMED, run=first),
        Skipped(run=second, status="error", reason="since mended"),
        replace(TIMED, run=elsewhere),
        replace(predicted, run=known),
        replace(predicted, run=failed, use=None, status="error", reason="since mended"),
    ]
    out.write_text("".join(map(record.to_line, lines)))
    for words, passed_over in (
        ((), [True, False, False, False, False]),
        (("--any-software",), [True, True, False, True, False]),
    ):
        assert run(str(suite), "--out", str(out), "--dry-run", "--format", "json", *words) == 0
        assert [row["held"] for row in json.loads(capsys.readouterr().out)] == passed_over


def test_a_case_that_takes_too_long_is_killed_and_is_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, out = tmp_path / "slow.toml", tmp_path / "records.jsonl"
    slow.write_text('[[run]]\ncommand = "throughput"\nmodel = ["tests.tiny:HangsWhenReal"]\nres = [64]\n')
    assert run(str(slow), "--out", str(out), "--case-timeout", "2s") == 0
    assert "measured now: 1 timed out" in capsys.readouterr().err
    (hung,) = record.read(out)
    assert isinstance(hung, Skipped)
    assert hung.reason == "still running after 2 s; killed"


def test_a_sweep_that_is_killed_leaves_nothing_running_and_loses_the_case_in_flight_only(
    suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "records.jsonl"
    command = [sys.executable, "-m", "bench.sweep", str(suite), "--out", str(out)]
    killed = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    workers: set[str] = set()
    while time.monotonic() < deadline and not (len(workers) == 2 and out.read_text().count("\n") >= 2):
        time.sleep(0.02)
        workers = _workers_of(killed.pid)  # the nursery and the worker in flight
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = record.read(out)
    assert len(before) >= 2
    assert workers
    while time.monotonic() < deadline and workers & set(_processes()):
        time.sleep(0.1)
    assert not workers & set(_processes())
    assert run(str(suite), "--out", str(out)) == 0
    after = record.read(out)
    assert after[: len(before)] == before
    assert len(after) == 3


def _workers_of(parent: int) -> set[str]:
    """Process numbers of the nursery of a sweep and of its workers."""
    parents = _processes()
    nurseries = {pid for pid, ppid in parents.items() if ppid == str(parent)}
    return nurseries | {pid for pid, ppid in parents.items() if ppid in nurseries}


def _processes() -> dict[str, str]:
    """Process numbers of all nurseries and workers at work, and those of their parents."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return {
        pid: ppid for pid, ppid, state, args in rows if "bench.jobs.forkserver" in args and state[0] != "Z"
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not toml [", "not TOML"),
        ("about = 'nothing'", "holds no [[run]] table"),
        ("[[run]]\ncommand = 'dance'", "[[run]] 1: command 'dance'; known are flops"),
        ("[[run]]\ncommand = 'flops'\nmodel = ['FDCM-S']", "did you mean FCDM-S"),
        (
            "[[run]]\ncommand = 'throughput'\ncolour = 'red'",
            "[[run]] 1: unrecognized arguments: --colour",
        ),
        ("[[run]]\ncommand = 'throughput'\nres = [100]", "[[run]] 1: --res: must be a multiple of 8"),
        ("[[run]]\ncommand = 'flops'\ndevice = 'tpu'", "every table of it is for another device"),
    ],
)
def test_a_suite_that_cannot_be_is_one_line_and_exit_code_2(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert run(str(path), "--out", str(tmp_path / "records.jsonl")) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "records.jsonl").exists()


def test_an_unknown_suite_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fast") == 2
    assert (
        "fast: no such suite; known are convergence-digits, convergence-s, gpu, gpu-zoo, paper-256, "
        "paper-512, quick" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", sweep.suites())
def test_every_suite_of_the_project_says_what_it_is_for_and_is_understood_by_its_commands(name: str) -> None:
    about, runs = sweep.read_suite(name)
    assert about.endswith(".")
    for table in runs:
        command = importlib.import_module(f"bench.{table['command']}")
        command.parser().parse_args(sweep.arguments(table))
