"""Cost of a whole training: against FCDM's Table 17, and from the measured speed of its steps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from baselines import load
from bench import flops
from bench.analysis.costs import training_cost
from bench.analysis.costs.training_cost import Training
from bench.store.codec import to_line
from reports.sections.training_cost import section
from tests.commands import run
from tests.records.examples import COUNT, ENVIRONMENT, THROUGHPUT

XL = Training(model="FCDM-XL", steps=100, batch=10)
COUNTED = replace(
    COUNT,
    case=replace(COUNT.case, model="FCDM-XL", res=256, latent_size=32),
    macs=10,
    train_macs=30,
    train_macs_checkpointed=38,
)
PAPERS = replace(COUNTED, case=replace(COUNTED.case, counter="torchprofile-meta"), macs=11, train_macs=None)
STEP = replace(THROUGHPUT, case=replace(THROUGHPUT.case, model="FCDM-XL", work="training"))


@pytest.fixture
def no_records(tmp_path: Path) -> str:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    return str(path)


def test_published_costs_follow_from_the_printed_macs() -> None:
    trainings = training_cost.published()
    assert [(one.model, one.steps) for one in trainings] == [
        ("MDT-XL/2", 2_500_000),
        ("FasterDiT-XL/2", 2_000_000),
        ("FCDM-XL", 2_000_000),
    ]
    for one in training_cost.costs(trainings, []):
        assert one.verdict == "printed MACs: yes"
        assert one.release_flops is None
    assert any("three times the forward MACs" in statement for statement in training_cost.remarks())


def test_a_printed_cost_that_does_not_follow_is_reported() -> None:
    wrong = replace(training_cost.published()[2], printed=load.Published(value=0.1, as_printed="0.100"))
    (found,) = training_cost.costs([wrong], [])
    assert found.verdict == "printed MACs: no"


def test_flops_are_twice_the_macs_of_all_passes() -> None:
    other = replace(COUNTED, case=replace(COUNTED.case, model="DiT-XL/2"))
    fcdm, dit = training_cost.costs([XL, replace(XL, model="DiT-XL/2")], [COUNTED, PAPERS, other])
    assert fcdm.from_counted == pytest.approx(3 * 11 * 1000 / 1e21)
    assert (fcdm.flops(False), fcdm.flops(True), fcdm.release_flops) == (60_000, 76_000, 76_000)
    assert dit.release_flops == 60_000
    assert dit.from_counted is None


def test_hours_come_from_the_newest_steps_of_each_setting() -> None:
    newer = replace(STEP, environment=replace(ENVIRONMENT, date="2027-01-01T00:00:00Z"), times_s=(2.0,) * 6)
    inference = replace(STEP, case=replace(STEP.case, work="inference"))
    (found,) = training_cost.costs([XL], [newer, STEP, inference])
    (row,) = training_cost.rows([found])
    assert row.hours == pytest.approx(1000 / (4 / 2.0) / 3600)
    assert row.joules is None


def test_the_command_repeats_table_17(no_records: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--training", "--format", "json", "--records", no_records) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["as_printed"] for row in rows] == ["0.228", "0.182", "0.099"]
    for row in rows:
        assert row["verdict"] == "printed MACs: yes; counted MACs: yes"
        assert f"{row['zetta_macs_from_counted']:.3f}" == row["as_printed"]
        released = "flops_recomputed" if row["release_recomputes"] else "flops_kept"
        assert row["flops_as_released"] == row[released]
    assert [row["release_recomputes"] for row in rows] == [False, False, True]


@pytest.mark.parametrize("steps", ["400000", "10"])
def test_costs_are_printed_to_significant_digits(
    steps: str, no_records: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--training", "--model", "FCDM-S", "--steps", steps, "--records", no_records)
    assert run(flops.main, *words, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    exact = {
        "from counted": row["zetta_macs_from_counted"],
        "ZFLOPs kept": row["flops_kept"] / 1e21,
        "recomputed": row["flops_recomputed"] / 1e21,
        "as released": row["flops_as_released"] / 1e21,
    }
    assert run(flops.main, *words, "--format", "md") == 0
    heads, _, cells = (
        [cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()
    )
    printed = dict(zip(heads, cells, strict=True))
    for head, value in exact.items():
        assert float(printed[head]) == pytest.approx(value, rel=1e-3), head


def test_rows_name_the_settings_of_the_timed_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = replace(STEP, case=replace(STEP.case, engine="compile", attention="math"))
    path = tmp_path / "steps.jsonl"
    path.write_text(to_line(STEP) + to_line(compiled))
    words = ("--training", "--model", "FCDM-XL", "--steps", "10", "--records", str(path))
    assert run(flops.main, *words, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["settings"] for row in rows] == ["", "torch.compile, math attention"]
    assert {row["device_hours"] for row in rows} == {10 * 256 / STEP.images_per_s / 3600}
    assert [row["torch"] for row in rows] == [ENVIRONMENT.torch] * 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "5"], "--steps: Table 17 gives its own; name a --model with it"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--model", "DiT-S/2", "--batch", "0"], "--batch: must be a whole number"),
        (["--records", "absent.jsonl"], "--records: absent.jsonl: no such file"),
        (["--res", "512"], "--training: takes no --res; leave --res out"),
        (["--explain", "DiT-S/2"], "--training: takes no --explain"),
    ],
)
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--training", *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_report_shows_steps_and_costs() -> None:
    records = [STEP, replace(STEP, case=replace(STEP.case, checkpointing=True)), COUNTED]
    text, drawings = section(records)
    assert drawings == []
    assert section(list(reversed(records))) == (text, [])
    flat = " ".join(text.split())
    assert "| FCDM-XL | 256 | 4 | fp32 | off | 8.000" in flat
    assert "| FCDM-XL | 2000000 | 256 | 0.099 | 0.09923 |" in flat
    assert f"Counted with torch {ENVIRONMENT.torch}, commit " in text
    assert section([THROUGHPUT]) == ("", [])
