"""MACs: against the released models' counts, the packages, and a real checkpointed step."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from baselines import load
from bench.counting import counters
from bench.counting.counters import StepCount
from bench.counting.dispatch import Count, CountingMode
from bench.counting.rules import TORCH_RULES
from models import Task, create
from models.checkpointing import blocks, checkpointed
from models.contract import build, make_inputs
from models.registry import published_task
from tests.conftest import SMALLEST

RELEASED = load.macs()
SCANNED = load.macs_ssm()


def meta(name: str, latent: int = 32) -> nn.Module:
    return build(name, task_of(name, latent)).eval()


def task_of(name: str, latent: int = 32) -> Task:
    return replace(published_task(name), latent_size=latent)


@cache
def forward_of(name: str) -> Count:
    return counters.count_forward(meta(name), task_of(name), by_module=True)


@cache
def step_of(name: str) -> StepCount:
    return counters.count_step(meta(name), task_of(name))


# test_closed_form.py has all: each network is traced there, and its formula compared with every release
@pytest.mark.parametrize(
    ("name", "latent"), [("FCDM-S", 128), ("DiCo-S", 64), ("DiC-S", 128), ("DiT-S/8", 128), ("U-DiT-S", 64)]
)
def test_torchprofiles_rules_give_the_released_macs_exactly(name: str, latent: int) -> None:
    task = task_of(name, latent)
    count = counters.count_forward(meta(name, latent), task, counter="torchprofile-meta")
    assert count.macs == RELEASED[name, latent][1]


@pytest.mark.parametrize(("name", "latent"), [("DiS-S/2", 64), ("DiM-H/2", 32), ("DiMSUM-L/2", 64)])
def test_torchs_rules_give_the_released_macs_with_scans(name: str, latent: int) -> None:
    model = meta(name, latent)
    count = counters.count_forward(model, task_of(name, latent))
    params, without, whole = SCANNED[name, latent]
    assert sum(p.numel() for p in model.parameters()) == params
    assert (count.macs - count.by_op["selective_scan"], count.macs) == (without, whole)


def test_forward_macs_are_those_of_torchs_counter(smallest: str) -> None:
    model = meta(smallest)
    # the first mode copies the results of repeated operators
    with CountingMode({}), FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(*make_inputs(task_of(smallest), 1, "meta"))
    assert 2 * forward_of(smallest).macs == theirs.get_total_flops()


def test_a_step_costs_just_under_three_forward_passes(smallest: str) -> None:
    step = step_of(smallest)
    # the first layers' input needs no gradient: three of them are 2.7 % of a narrow MPDiTv2
    assert 2.97 < step.train_macs / step.forward.macs < 3


def grouped_backward(groups: int) -> tuple[int, int]:
    """Forward, then forward and backward MACs of one convolution whose input needs a gradient too."""

    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 64, 1)
            self.second = nn.Conv2d(64, 64, 7, padding=3, groups=groups)

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.second(self.first(x))

    with torch.device("meta"):
        step = counters.count_step(Grouped(), Task(8))
    first = 64 * 4 * 64
    return step.forward.macs - first, step.train_macs - 2 * first


@pytest.mark.parametrize("groups", [1, 4, 64])
def test_backward_of_grouped_convolution_costs_two_forwards(groups: int) -> None:
    forward, both = grouped_backward(groups)
    assert forward == 64 * 64 * 49 * 64 // groups
    assert both == 3 * forward


@pytest.mark.parametrize("name", SMALLEST)
def test_checkpointed_macs_are_those_of_recomputed_blocks(name: str) -> None:
    model, task = meta(name), task_of(name)
    step = step_of(name)
    counted = CountingMode(TORCH_RULES)
    # by default torch stops recomputing a block once it has what the gradients need: without DiC's 1x1
    # skips, and without the last product of a branch that is added unchanged, as in ADM and DiS
    with counted, checkpointed(model), set_checkpoint_early_stop(False):
        model(*make_inputs(task, 1, "meta")).sum().backward()
    assert step.train_macs < counted.total == step.train_macs_checkpointed


def test_checkpointing_changes_no_gradient_and_no_model() -> None:
    model = create("DiT-S/8", latent_size=16)
    args = make_inputs(Task(16), 2, "cpu")
    model(*args).sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with checkpointed(model):
        model(*args).sum().backward()
    assert all(torch.allclose(model.get_parameter(name).grad, grad) for name, grad in plain.items())
    assert all("forward" not in vars(block) for block in blocks(model))


def test_blocks_are_those_that_a_network_repeats() -> None:
    assert len(blocks(meta("DiT-XL/2"))) == 28
    assert len(blocks(meta("FCDM-XL"))) == 30
    assert len(blocks(meta("DiC-S"))) == 29


def test_parts_by_operator_and_module_add_up_to_the_whole(smallest: str) -> None:
    count = forward_of(smallest)
    assert sum(count.by_op.values()) == sum(count.by_module.values()) == count.macs
    assert not any(part.isdigit() for name in count.by_module for part in name.split("."))


def test_operators_without_a_rule_are_named(smallest: str) -> None:
    unknown = forward_of(smallest).not_counted
    assert "add" in unknown
    assert {"silu", "gelu"}.intersection(unknown)
