"""Training steps: their effect and their timing."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import throughput
from bench.machine.failures import NotFiniteError
from bench.measure.prepared import prepared
from bench.measure.prepared.train_step import EMA_DECAY, LEARNING_RATE, TrainStep, noise_of
from bench.records.base import ModelCase
from bench.records.throughput import ThroughputCase
from models.checkpointing import checkpointed
from models.contract import build, condition_width, make_inputs
from models.registry import task_at
from models.weights import randomise_zeros
from tests.commands import run
from tests.conftest import UNREAD
from tests.records.examples import MODEL

TRAINING = ("--work", "training")


def step_of(name: str, *, fused: bool = True) -> tuple[nn.Module, TrainStep]:
    """A step over two images of 64 px; no layer is left at zeros, so that all of it has gradients."""
    torch.manual_seed(0)
    task = task_at(name, 64, 64)
    model = build(name, task, device="cpu")
    randomise_zeros(model)
    inputs = make_inputs(task, 2, "cpu", condition_width(model))
    return model, TrainStep(model.train(), inputs, noise_of(inputs[0], task), nullcontext, fused=fused)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["FCDM-Ti", "tests.narrow:mdt", "tests.narrow:dimsum", "tests.narrow:ldm"])
def test_a_step_updates_parameters_and_their_average(name: str) -> None:
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


def test_fused_update_equals_the_unfused_one() -> None:
    (one, fused), (two, unfused) = step_of("tests.tiny:Tiny"), step_of("tests.tiny:Tiny", fused=False)
    for step in (fused, unfused):
        torch.manual_seed(1)  # for the dropped labels
        step()
    torch.testing.assert_close(weights(one), weights(two))


@pytest.mark.parametrize("name", ["FCDM-Ti", "DiT-Ti/2"])
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    model, step = step_of(name)
    found = []
    for wrapped in (nullcontext(), checkpointed(model)):
        torch.manual_seed(1)  # for the dropped labels
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


def test_an_upsamplers_small_image_is_not_predicted() -> None:
    task = replace(task_at("FCDM-S", 64, 64), in_channels=6, given_channels=3)
    assert noise_of(torch.zeros(2, 6, 8, 8), task).shape == (2, 3, 8, 8)


STEP = ModelCase(**{**MODEL, "model": "tests.tiny:Tiny", "res": 64, "latent_size": 8, "batch": 2})


def test_a_prepared_model_trains_in_its_precision() -> None:
    seen = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, out: (
            seen.append((module.training, out.dtype)) if isinstance(module, nn.Conv2d) else None
        )
    )
    try:
        for precision in ("fp32", "bf16"):
            with prepared.prepare_training(replace(STEP, precision=precision), None):
                pass
    finally:
        hook.remove()
    assert seen == [(True, torch.float32)] * 2 + [(True, torch.bfloat16)] * 2


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with (
        pytest.raises(NotFiniteError, match="the loss in fp32 holds inf or NaN"),
        prepared.prepare_training(replace(STEP, model="tests.tiny:Overflows"), None),
    ):
        pass


def test_a_users_backbone_trains_or_is_a_row_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["tests.tiny:Tiny", "tests.tiny:RaisesInTraining"]
    args = ["--model", *names, "--res", "64", "--batch", "2", "--budget", "0.2", "--checkpointing", "off"]
    assert run(throughput.main, *TRAINING, *args, "--device", "cpu", "--format", "json") == 0
    fine, failed = json.loads(capsys.readouterr().out)
    assert fine["images_per_s"] > 0
    assert (fine["status"], failed["status"]) == ("ok", "error")
    assert "only found out in training" in failed["reason"]


def test_training_is_timed_without_and_with_checkpointing() -> None:
    args = [*TRAINING, "--model", "tests.tiny:Tiny", "--device", "cpu"]
    cases = [job.case for job in throughput.jobs(throughput.parser().parse_args(args))]
    assert all(isinstance(case, ThroughputCase) and case.work == "training" for case in cases)
    assert [getattr(case, "checkpointing", None) for case in cases] == [False, True]
    assert {getattr(case, "batch", None) for case in cases} == {4}


@pytest.mark.parametrize(
    ("args", "message"),
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
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(throughput.main, *TRAINING, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
