"""Training steps: what one of them does, how it is timed, and what a whole training costs."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines import load
from bench import train_step, training_cost
from bench.analysis import training_cost as cost
from bench.analysis.training_cost import Training
from bench.checkpointing import checkpointed
from bench.counting import counters
from bench.measure import prepared
from bench.measure.train_step import EMA_DECAY, LEARNING_RATE, Step, noise_of
from bench.records.record import Throughput, to_line
from models.contract import build, condition_width
from models.registry import task_at
from models.weights import randomise_zeros
from reports.sections import training_cost as report
from tests.cli.test_cli import run
from tests.conftest import UNREAD
from tests.records.test_record import COUNTED, RUN, TIMED


def step_of(name: str, *, fused: bool = True) -> tuple[nn.Module, Step]:
    """A step over two images of 64 px; no layer is left at zeros, so that all of it has gradients."""
    torch.manual_seed(0)
    task = task_at(name, 64, 64)
    model = build(name, task, device="cpu")
    randomise_zeros(model)
    inputs = counters.inputs(task, 2, "cpu", condition_width(model))
    return model, Step(model.train(), inputs, noise_of(inputs[0], task), nullcontext, fused=fused)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["FCDM-S", "MDT-S/2", "tests.narrow:dimsum", "tests.narrow:ldm"])
def test_a_step_updates_every_parameter_that_is_read_and_their_average(name: str) -> None:
    model, step = step_of(name)
    before = weights(model)
    step()
    after, averaged = weights(model), weights(step.ema)
    for key, p in model.named_parameters():
        moved = not torch.equal(before[key], after[key])
        assert moved == (p.requires_grad and not UNREAD.search(key)), key
        torch.testing.assert_close(averaged[key], before[key].lerp(after[key], 1 - EMA_DECAY))
        assert p.grad is None
        # AdamW's first step moves a weight by the learning rate, whatever its gradient
        assert (after[key] - before[key]).abs().max() <= 1.01 * LEARNING_RATE


def test_steps_lower_the_loss_over_their_batch() -> None:
    _, step = step_of("tests.tiny:Tiny")
    losses = [float(step()) for _ in range(50)]
    assert losses[-1] < losses[0]
    assert losses == sorted(losses, reverse=True)


def test_the_fused_update_is_the_unfused_one() -> None:
    (one, fused), (two, unfused) = step_of("tests.tiny:Tiny"), step_of("tests.tiny:Tiny", fused=False)
    for step in (fused, unfused):
        torch.manual_seed(1)  # of dropped labels
        step()
    torch.testing.assert_close(weights(one), weights(two))


@pytest.mark.parametrize("name", ["FCDM-S", "DiT-S/8"])
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    model, step = step_of(name)
    found = []
    for wrapped in (nullcontext(), checkpointed(model)):
        torch.manual_seed(1)  # of dropped labels
        with wrapped:
            step.loss().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert found[0].keys() == found[1].keys()
    torch.testing.assert_close(found[0], found[1])


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_checkpointed_model_can_be_compiled() -> None:
    model, x = Blocks(), torch.randn(2, 8)
    model(x).sum().backward()
    kept = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with checkpointed(model):
        torch.compile(model, backend="aot_eager")(x).sum().backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], kept)


def test_an_upsamplers_small_image_is_no_noise_to_predict() -> None:
    task = replace(task_at("FCDM-S", 64, 64), in_channels=6, given_channels=3)
    assert noise_of(torch.zeros(2, 6, 8, 8), task).shape == (2, 3, 8, 8)


STEP = replace(RUN, question="train_step", model="tests.tiny:Tiny", res=64, latent_size=8, batch=2)


def test_an_arm_trains_in_the_type_that_it_says() -> None:
    seen = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, out: (
            seen.append((module.training, out.dtype)) if isinstance(module, nn.Conv2d) else None
        )
    )
    try:
        for precision in ("fp32", "bf16"):
            with prepared.training(replace(STEP, precision=precision), None):
                pass
    finally:
        hook.remove()
    assert seen == [(True, torch.float32)] * 2 + [(True, torch.bfloat16)] * 2


def test_a_loss_that_is_not_finite_is_told() -> None:
    with (
        pytest.raises(prepared.NotFiniteError, match="the loss in fp32 holds inf or NaN"),
        prepared.training(replace(STEP, model="tests.tiny:Overflows"), None),
    ):
        pass


def test_the_work_of_a_run_is_in_its_question() -> None:
    asked = {
        "train_step": "training",
        "scaling of training from batch 4, visit 1": "training",
        "scaling of inference from batch 4, visit 1": "inference",
        "throughput": "inference",
    }
    assert {question: replace(RUN, question=question).work for question in asked} == asked


def test_a_users_backbone_trains_and_one_that_does_not_is_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["tests.tiny:Tiny", "tests.tiny:RaisesInTraining"]
    args = ["--model", *names, "--res", "64", "--batch", "2", "--budget", "0.2", "--checkpointing", "off"]
    assert run(train_step.main, *args, "--device", "cpu", "--format", "json") == 0
    fine, failed = json.loads(capsys.readouterr().out)
    assert fine["images_per_s"] > 0
    assert (fine["status"], failed["status"]) == ("ok", "error")
    assert "only found out in training" in failed["reason"]


def test_each_model_is_timed_without_and_with_checkpointing_by_default() -> None:
    args = ["--model", "tests.tiny:Tiny", "--device", "cpu"]
    units = train_step.units(train_step.parser().parse_args(args))
    runs = [unit.about for unit in units]
    assert [getattr(run, "checkpointing", None) for run in runs] == [False, True]
    assert {getattr(run, "question", None) for run in runs} == {"train_step"}
    assert {getattr(run, "batch", None) for run in runs} == {train_step.CPU_BATCH}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--cuda-graphs"], "--cuda-graphs: a training step is not captured as a graph; leave it out"),
        (["--precision", "fp16"], "--precision fp16: training in it would need a scaled loss; bf16 would"),
        (["--protocol", "dico"], "--protocol dico: is a protocol of inference"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--res", "100"], "--res: must be a multiple of 8 pixels, one latent, got 100; try 96"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
        (["--out", "/"], "--out /: is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train_step.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


# what a training costs


def test_table_17s_costs_are_those_of_its_own_macs_to_the_printed_digit() -> None:
    trainings = cost.published()
    assert [(one.model, one.steps) for one in trainings] == [
        ("MDT-XL/2", 2_500_000),
        ("FasterDiT-XL/2", 2_000_000),
        ("FCDM-XL", 2_000_000),
    ]
    for one in cost.costs(trainings, []):
        assert one.verdict == "as the printed MACs give"
        assert one.release_flops is None
    assert any("three times the forward MACs" in statement for statement in cost.remarks())


def test_a_printed_cost_that_does_not_follow_is_told() -> None:
    wrong = replace(cost.published()[2], printed=load.Published(value=0.1, as_printed="0.100"))
    (found,) = cost.costs([wrong], [])
    assert found.verdict == "not as the printed MACs give"


XL = Training(model="FCDM-XL", steps=100, batch=10, source="", printed_macs=None, printed=None)
COUNT = replace(
    COUNTED, model="FCDM-XL", res=256, counter="torch", macs=10, train_macs=30, train_macs_checkpointed=38
)
TIMED_STEP = replace(TIMED, run=replace(STEP, model="FCDM-XL", res=256, batch=4))


def test_real_flops_are_twice_the_macs_of_both_passes_and_of_what_is_recomputed() -> None:
    papers = replace(COUNT, counter="torchprofile-meta", macs=11, train_macs=None)
    other = replace(COUNT, model="DiT-XL/2")
    fcdm, dit = cost.costs([XL, replace(XL, model="DiT-XL/2")], [COUNT, papers, other])
    assert fcdm.from_counted == pytest.approx(3 * 11 * 1000 / 1e21)
    assert (fcdm.flops(False), fcdm.flops(True), fcdm.release_flops) == (60_000, 76_000, 76_000)
    assert dit.release_flops == 60_000
    assert dit.from_counted is None


def test_hours_come_from_the_newest_steps_of_each_setting() -> None:
    assert isinstance(TIMED_STEP, Throughput)
    newer = replace(
        TIMED_STEP,
        run=replace(TIMED_STEP.run, environment=replace(RUN.environment, date="2027-01-01T00:00:00Z")),
        times_s=(2.0,) * 6,
    )
    other = replace(TIMED_STEP, run=replace(TIMED_STEP.run, question="throughput"))
    (found,) = cost.costs([XL], [newer, TIMED_STEP, other])
    (measured,) = found.measured
    assert measured.hours == pytest.approx(1000 / (4 / 2.0) / 3600)
    assert measured.joules is None


def test_the_command_gives_table_17_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "empty.jsonl"
    nothing.write_text("")
    assert run(training_cost.main, "--format", "json", "--records", str(nothing)) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["as_printed"] for row in rows] == ["0.228", "0.182", "0.099"]
    for row in rows:
        assert row["verdict"] == "as the printed MACs give; as the counted MACs give"
        assert f"{row['zetta_macs_from_counted']:.3f}" == row["as_printed"]
        released = "flops_recomputed" if row["release_recomputes"] else "flops_kept"
        assert row["flops_as_released"] == row[released]
    assert [row["release_recomputes"] for row in rows] == [False, False, True]


@pytest.mark.parametrize("steps", ["400000", "10"])
def test_costs_of_a_small_training_are_printed_to_significant_digits(
    steps: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "empty.jsonl"
    nothing.write_text("")
    asked = ("--model", "FCDM-S", "--steps", steps, "--records", str(nothing))
    assert run(training_cost.main, *asked, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    exact = {
        "from counted": row["zetta_macs_from_counted"],
        "ZFLOPs kept": row["flops_kept"] / 1e21,
        "recomputed": row["flops_recomputed"] / 1e21,
        "as released": row["flops_as_released"] / 1e21,
    }
    assert run(training_cost.main, *asked, "--format", "md") == 0
    heads, _, cells = (
        [cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()
    )
    printed = dict(zip(heads, cells, strict=True))
    for head, value in exact.items():
        assert float(printed[head]) == pytest.approx(value, rel=1e-3), head


def test_rows_of_a_training_say_under_which_settings_and_with_what_its_steps_were_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = replace(TIMED_STEP, run=replace(TIMED_STEP.run, compile=True, attention="math"))
    path = tmp_path / "steps.jsonl"
    path.write_text(to_line(TIMED_STEP) + to_line(compiled))
    asked = ("--model", "FCDM-XL", "--steps", "10", "--records", str(path))
    assert run(training_cost.main, *asked, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["settings"] for row in rows] == ["", "torch.compile, math attention"]
    assert {row["device_hours"] for row in rows} == {10 * 256 / TIMED_STEP.images_per_s / 3600}
    assert run(training_cost.main, *asked) == 0
    here = TIMED_STEP.run.environment
    assert capsys.readouterr().out.count(f"torch {here.torch}, {here.date[:10]}") == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--steps", "5"], "--steps: Table 17 says its own; name a --model with it"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--model", "DiT-S/2", "--batch", "0"], "--batch: must be a whole number"),
        (["--records", "absent.jsonl"], "--records absent.jsonl: No such file"),
        (["--records", "runs.csv"], "--records: must end in .jsonl"),
    ],
)
def test_bad_input_of_training_cost_is_one_line(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(training_cost.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_the_report_shows_steps_and_costs_with_published_ones_apart() -> None:
    records = [TIMED_STEP, replace(TIMED_STEP, run=replace(TIMED_STEP.run, checkpointing=True)), COUNT]
    text, drawings = report.section(records)
    assert drawings == []
    assert report.section(list(reversed(records))) == (text, [])
    flat = " ".join(text.split())
    assert "| FCDM-XL | 256 | 4 | fp32 | off | 8.000" in flat
    assert "| FCDM-XL | 2000000 | 0.099 | 0.09923 |" in flat
    assert f"Counted with torch {COUNT.environment.torch}, commit " in text
    assert report.section([TIMED]) == ("", [])
