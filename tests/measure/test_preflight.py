"""The preflight pass of one image before a case, and failures recognised by their types."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.jobs.worker import answer
from bench.machine.failures import NoKernelError, OverBudgetError, RecompiledError, known_failure
from bench.measure import passes
from bench.measure.prepared import engine, prepared, work_check
from bench.measure.prepared.preflight import ALWAYS_S, Allowance, NamesMissingKernel, check_budget
from bench.records.base import Skipped
from bench.records.comparison import ComparisonCase
from bench.records.throughput import Throughput
from tests.records.examples import CASE, ENVIRONMENT

TINY = replace(CASE, model="tests.tiny:Tiny", res=64, latent_size=8, batch=2, budget_s=0.2)


class Slow:
    """Four modules, each of which advances a clock by a given time; the first pass may take longer."""

    def __init__(self, seconds: float, *, first: float = 1) -> None:
        self.now = 0.0
        self.entered = 0
        self.model = nn.Sequential(*(nn.Identity() for _ in range(4)))
        self._seconds, self._first = seconds, first
        for part in self.model:
            part.register_forward_hook(self._spend)

    def _spend(self, *_: object) -> None:
        self.now += self._seconds / 4 * (self._first if self.entered < 4 else 1)
        self.entered += 1

    def check(self, budget_s: float, passes: int = 3, images: float = 10) -> None:
        check_budget(
            self.model,
            lambda: self.model(torch.zeros(1)),
            Allowance(budget_s=budget_s, passes=passes),
            images=images,
            clock=lambda: self.now,
        )


def test_a_case_within_its_limit_takes_one_pass() -> None:
    slow = Slow(1.0)
    slow.check(budget_s=10)  # 30 s of the 40 that are allowed
    assert slow.entered == 4


def test_a_case_beyond_its_limit_is_refused() -> None:
    with pytest.raises(OverBudgetError, match=r"more than 1\.3 s: 3 passes, .* 40 s in a budget of 10 s"):
        Slow(1.5).check(budget_s=10)


def test_a_slow_first_pass_is_repeated() -> None:
    slow = Slow(1.0, first=5)
    slow.check(budget_s=10)
    assert slow.entered == 8


def test_a_pass_that_is_far_too_slow_is_broken_off() -> None:
    slow = Slow(400.0)
    with pytest.raises(OverBudgetError):
        slow.check(budget_s=10)
    assert slow.entered == 1
    assert not any(part._forward_pre_hooks for part in slow.model.modules())


def test_short_cases_begin_whatever_the_budget() -> None:
    Slow(ALWAYS_S / 31).check(budget_s=1e-3)


def test_a_case_over_its_budget_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure.prepared.preflight.ALWAYS_S", 0.0)
    for case in (TINY, replace(TINY, work="training"), replace(TINY, protocol="dico")):
        row = answer(passes.measure, replace(case, budget_s=1e-12), ENVIRONMENT, weights=None)
        assert isinstance(row, Skipped)
        assert row.status == "over budget"
    compared = ComparisonCase(device="cpu", arms=(TINY, TINY), budget_s=1e-12, precision_target=0.01)
    row = answer(passes.compare, compared, ENVIRONMENT)
    assert isinstance(row, Skipped)
    assert (row.status, row.reason[:17]) == ("over budget", "tests.tiny:Tiny: ")


def test_a_missing_attention_kernel_is_named_by_its_type() -> None:
    q = torch.zeros(1, 2, 8, 16)
    with (
        sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),  # not available on a CPU
        pytest.raises(NoKernelError, match="No viable backend"),
        NamesMissingKernel(),
    ):
        F.scaled_dot_product_attention(q, q, q)


class Attends(nn.Module):
    """An attention call, and an error of another kind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No viable backend, says a model")


def test_an_error_of_the_model_keeps_its_type() -> None:
    with pytest.raises(RuntimeError, match="says a model") as raised, NamesMissingKernel():
        Attends()(torch.zeros(1))
    with pytest.raises(RuntimeError, match="says a model"):
        known_failure(TINY, ENVIRONMENT, raised.value)


def test_a_chosen_kernel_is_probed_and_timed() -> None:
    record = passes.measure(replace(TINY, model="DiT-S/8", attention="math"), ENVIRONMENT, weights=None)
    assert isinstance(record, Throughput)


def scaled(x: torch.Tensor, by: int) -> torch.Tensor:
    return x * by


def shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    return x + by


@pytest.mark.parametrize(
    ("call", "by", "message"),
    [(scaled, 2, "Recompiling function"), (shifted, 1, "compiled 1 more functions")],
    ids=["again", "another function"],
)
def test_compiling_while_timing_is_a_failure(
    call: Callable[[torch.Tensor, int], torch.Tensor], by: int, message: str
) -> None:
    torch.compiler.reset()
    first, second = (torch.compile(one, backend="eager") for one in (scaled, call))
    first(torch.zeros(3), 1)
    case = replace(TINY, engine="compile")
    with engine.compiled_already(case):
        first(torch.zeros(3), 1)
    with pytest.raises(RecompiledError, match=message) as raised, engine.compiled_already(case):
        second(torch.zeros(3), by)
    row = known_failure(case, ENVIRONMENT, raised.value)
    assert (row.status, row.reason.count("\n")) == ("recompiled", 0)


@pytest.mark.parametrize("ready", [prepared.prepare, prepared.prepare_training])
def test_no_input_of_the_pool_compiles_again(
    ready: Callable[..., AbstractContextManager[prepared.PreparedModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    case = replace(TINY, model="DiT-Ti/2", family="DiT", engine="compile")
    with ready(case, None) as model, engine.compiled_already(case):
        for _ in range(2 * work_check.POOL):
            model.call()
            model.keep()
