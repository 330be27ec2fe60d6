"""Sweeps: the order of the plan, resume after a stop at any point, the budget."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import sweep
from bench.cli import models as cli_models
from bench.cli import options
from bench.cli.commands import commands
from bench.jobs import suite as suites
from bench.jobs.job import Job
from bench.machine import device
from bench.records.base import Record, Skipped
from bench.records.counts import MacCount
from bench.records.memory import Memory
from bench.records.throughput import Throughput
from bench.store import codec
from tests.records.examples import THROUGHPUT

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
        "flops tests.tiny:Tiny 64 px, batch 1, torch",
        "throughput tests.tiny:Tiny 64 px, batch 1, fp32",
        "throughput tests.tiny:Tiny 64 px, batch 2, fp32",
    ]
    assert not any(row["stored"] for row in plan)
    assert "left out: 1 throughput on cuda: no such device" in printed.err
    assert not out.exists()


def test_a_plan_builds_no_model_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_models, "_on_meta", None)
    path = tmp_path / "mine.toml"
    tables = ['command = "throughput"\nmodel = ["FCDM-S"]\nres = [288, 320]', 'command = "scaling"']
    path.write_text("\n".join(f"[[run]]\n{table}" for table in tables))
    _, jobs, _ = sweep.plan([str(path)])
    assert len(jobs) > 2


def test_a_model_that_cannot_be_built_is_named_by_each_flag() -> None:
    for flag in ("--model", "MODEL"):
        with pytest.raises(options.UsageError, match=rf"^{flag} DiT-S/8: .*multiple of patch 8, got 33"):
            cli_models.check_models(["DiT-S/8"], [264], None, flag)


def test_a_sweep_stops_at_its_budget_and_resumes(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(suite), "--out", str(tmp_path / "records.jsonl")]
    assert run(*args, "--budget", "1s") == 0
    err = capsys.readouterr().err
    assert "--budget left out 2 of 3 cases, about" in err
    assert "measured now: 1 ok; stored already: 0" in err
    assert run(*args) == 0
    assert "measured now: 2 ok; stored already: 1" in capsys.readouterr().err
    assert run(*args) == 0
    assert "measured now: none; stored already: 3" in capsys.readouterr().err
    kinds = [type(one) for one in codec.read(tmp_path / "records.jsonl").records]
    assert kinds == [MacCount, Throughput, Throughput]


def test_answers_of_other_software_are_reused_only_if_asked(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = '[[run]]\ncommand = "memory"\ndevice = "cpu"\nmodel = ["tests.tiny:Tiny"]\nres = [64]\n'
    suite.write_text(f'{SUITE}{memory}batch = [1, 2]\nwork = ["inference"]\n')
    out = tmp_path / "records.jsonl"
    _, planned, _ = sweep.plan([str(suite)])
    count, first, second, known, failed = (one.job for one in planned)
    older = replace(first.environment, code="0ld")
    predicted = known.measure()
    assert isinstance(predicted, Memory)
    older_meta = replace(known.environment, code="0ld")

    def timed(job: Job, **changes: str) -> Record:
        return replace(THROUGHPUT, case=job.case, environment=replace(older, **changes))

    lines = [
        count.measure(),
        timed(first),
        Skipped(case=second.case, environment=older, status="error", reason="since mended"),
        timed(second, device="another CPU"),
        replace(predicted, environment=older_meta),
        Skipped(case=failed.case, environment=older_meta, status="error", reason="since mended"),
    ]
    out.write_text("".join(map(codec.to_line, lines)))
    for words, passed_over in (
        ((), [True, False, False, False, False]),
        (("--any-software",), [True, True, False, True, False]),
    ):
        assert run(str(suite), "--out", str(out), "--dry-run", "--format", "json", *words) == 0
        assert [row["stored"] for row in json.loads(capsys.readouterr().out)] == passed_over


def test_bf16_is_left_out_where_a_cpu_emulates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[run]]\ncommand = "throughput"\ndevice = "cpu"\nmodel = ["tests.tiny:Tiny"]\n'
        'res = [64]\nprecision = ["fp32", "bf16"]\n'
    )
    for has, count in ((True, 2), (False, 1)):
        monkeypatch.setattr(device, "has_bf16_instructions", lambda has=has: has)
        _, jobs, notes = sweep.plan([str(path)])
        assert len(jobs) == count
        assert bool(notes) != has
    assert notes == ["left out: 1 cases in bf16 and fp16: this CPU has no instructions for them"]


def test_a_case_that_takes_too_long_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow, out = tmp_path / "slow.toml", tmp_path / "records.jsonl"
    slow.write_text('[[run]]\ncommand = "throughput"\nmodel = ["tests.tiny:HangsWhenReal"]\nres = [64]\n')
    assert run(str(slow), "--out", str(out), "--case-timeout", "2s") == 0
    assert "measured now: 1 timed out" in capsys.readouterr().err
    (hung,) = codec.read(out).records
    assert isinstance(hung, Skipped)
    assert hung.reason == "still running after 2 s; killed"


@pytest.mark.parametrize(
    ("text", "message"),
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
        ("[[run]]\ncommand = 'flops'\nout = 'x.jsonl'", "[[run]] 1: out: is not of a case"),
        ("a = " + "[" * 9999, "nested too deep (at line 1)"),
        ("[[run]]\ncommand = 'flops'\ndevice = 'tpu'", "has no case for a cpu"),
    ],
)
def test_a_wrong_suite_is_one_line_and_exit_code_2(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert run(str(path), "--out", str(tmp_path / "records.jsonl")) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "records.jsonl").exists()


def test_an_unknown_suite_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fast") == 2
    assert (
        "fast: no such suite; known are convergence-digits, convergence-s, gpu, gpu-targets, gpu-zoo, "
        "paper-256, paper-512, quick" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", suites.names())
def test_every_suite_is_understood_by_its_commands(name: str) -> None:
    read = suites.read(name, list(commands("jobs")))
    assert read.about.endswith(".")
    for table in read.runs:
        command = importlib.import_module(f"bench.{table['command']}")
        command.parser().parse_args(suites.arguments(table))
