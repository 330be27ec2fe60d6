"""Times that no work explains: each kind is refused with its reason."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.jobs.worker import answer
from bench.machine.failures import NoWorkError
from bench.measure import passes, timing
from bench.measure.prepared import prepared, work_check
from bench.records import comparison
from bench.records.base import ModelCase, Record, Skipped
from bench.records.comparison import Comparison, ComparisonCase
from bench.records.throughput import Throughput, ThroughputCase
from bench.store import codec
from bench.tables import render
from models import Task
from tests.records.examples import ENVIRONMENT, PASS
from tests.tiny import Tiny

NAME = "tests.measure.test_work_check"
CASE = ThroughputCase(
    **{**PASS, "model": "tests.tiny:Tiny", "res": 64, "latent_size": 8, "batch": 2, "budget_s": 0.05}
)

TINY = ModelCase(**{field.name: getattr(CASE, field.name) for field in fields(ModelCase)})
COMPILED = replace(TINY, engine="compile")


class CachedByShape(Tiny):
    """Computes once for every shape."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.kept: dict[object, Tensor] = {}

    def key(self, x: Tensor) -> object:
        return tuple(x.shape)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        key = self.key(x)
        if x.is_meta or key not in self.kept:
            self.kept[key] = super().forward(x, t, y)
        return self.kept[key]


class CachedByTensor(CachedByShape):
    def key(self, x: Tensor) -> object:
        return None if x.is_meta else (x.data_ptr(), tuple(x.shape))


class Deferred(Tiny):
    """Returns at once, and fills its output in a thread."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out = super().forward(x, t, y)
        if x.is_meta:
            return out
        later = torch.rand_like(out)
        threading.Timer(0.05, self.fill, (later, out)).start()
        return later

    def fill(self, later: Tensor, out: Tensor) -> None:
        with torch.inference_mode():
            later.copy_(out)


class Subclass(Tensor):
    """A tensor that might compute later."""


class Lazy(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y).as_subclass(Subclass)


class Untrained(Tiny):
    """No gradient reaches its parameters."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y).detach().requires_grad_()


class PatchedClock(Tiny):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        real = time.perf_counter
        time.perf_counter = lambda: real() / 1000

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            time.sleep(0.002)
        return super().forward(x, t, y)


def measured(name: str, **changes: Any) -> Record:  # noqa: ANN401 - fields of any type
    return answer(passes.measure, replace(CASE, model=f"{NAME}:{name}", **changes), ENVIRONMENT, weights=None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CachedByShape", "the output does not depend on its input: no work explains its times"),
        ("CachedByTensor", "a timed output differs from a fresh pass on equal values by"),
        ("Deferred", "work was deferred or skipped"),
        ("Lazy", "the output is a Subclass, which may compute later"),
    ],
)
def test_passes_that_do_no_work_are_refused(name: str, reason: str) -> None:
    record = measured(name)
    assert isinstance(record, Skipped)
    assert record.status == "refused"
    assert reason in record.reason


def test_a_training_step_that_changes_nothing_is_refused() -> None:
    assert isinstance(measured("Untrained"), Throughput)
    record = measured("Untrained", work="training")
    assert isinstance(record, Skipped)
    assert record.reason.startswith("a training step changes no parameter")


def compared(*arms: ModelCase, **inputs: Any) -> Record:  # noqa: ANN401 - of compare
    case = ComparisonCase(device="cpu", arms=arms, budget_s=0.1, precision_target=0.01)
    return answer(passes.compare, case, ENVIRONMENT, **inputs)


def test_a_comparison_with_a_cached_output_has_no_ratio() -> None:
    record = compared(TINY, replace(TINY, model=f"{NAME}:CachedByShape"))
    assert isinstance(record, Skipped)
    assert record.reason.startswith(f"{NAME}:CachedByShape: the output does not depend on its input")


def test_eager_and_compiled_models_are_compared_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    record = compared(TINY, COMPILED)
    assert isinstance(record, Comparison), record
    assert record.arms == ("tests.tiny:Tiny", "tests.tiny:Tiny (torch.compile)")
    assert [seconds is None for seconds in record.compile_s] == [True, False]


def test_a_model_that_fails_to_compile_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(case: ModelCase, model: torch.nn.Module, _: object) -> Callable[..., Tensor]:
        if case.engine == "aoti":
            raise KeyError("no such operator")
        return model if case.engine == "eager" else lambda *inputs: 2 * model(*inputs)

    monkeypatch.setattr("bench.measure.prepared.engine.network", network)
    record = compared(TINY, COMPILED, replace(TINY, engine="aoti"), TINY)
    assert isinstance(record, Comparison), record
    assert record.arms == ("tests.tiny:Tiny", "tests.tiny:Tiny")
    assert codec.from_line(codec.to_line(record).encode()) == record
    rows = comparison.rows(record)
    assert [row.status for row in rows] == ["ok", "refused", "error", "ok"]
    differs = "the output under torch.compile differs from the eager one by 1 of its norm, more than 0.001"
    assert [row.failure for row in rows[1:3]] == [differs, "KeyError: 'no such operator'"]
    assert "KeyError" in render.render(comparison.TABLE, rows, "table")
    again = compared(*record.case.arms, calls=record.calls, failures=record.failures)
    assert isinstance(again, Comparison), again
    assert comparison.merged([record, again], 2).failures == record.failures
    alone = compared(COMPILED, TINY)
    assert isinstance(alone, Skipped)
    assert (alone.status, alone.reason) == ("refused", f"tests.tiny:Tiny (torch.compile): {differs}")


def test_a_patched_clock_does_not_change_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # restored afterwards
    record = measured("PatchedClock")
    assert isinstance(record, Throughput)
    assert record.median_s >= 0.002


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"channels_last": True}, {"work": "training"}, {"protocol": "dico"}],
    ids=str,
)
def test_honest_passes_are_timed(changes: dict[str, Any]) -> None:
    record = passes.measure(replace(CASE, **changes), ENVIRONMENT, weights=None)
    assert isinstance(record, Throughput), record


def test_a_timed_pass_makes_at_most_ten_calls_of_its_own() -> None:
    """A call of Python takes less than 1 us: ten are 0.2 % of a pass of 5 ms."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    inputs = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    checked = work_check.CheckedPass(lambda given: given[0], [inputs] * work_check.POOL, "fp32")
    sys.setprofile(count)
    try:
        timed = timing.sample(
            checked, timing.Policy(budget_s=0), spent_s=0, clock=lambda: calls, synchronise=lambda: None
        )
    finally:
        sys.setprofile(None)
    assert 0 < timed.wall_s[0] <= 10


def test_a_pass_below_the_floor_is_refused() -> None:
    with prepared.prepare(CASE, None, allowance=prepared.Allowance(budget_s=1.0, passes=3)) as model:
        model.call()
        model.verify(1.0)
        with pytest.raises(NoWorkError, match=r"a pass of 1e-09 ms is below its floor of .* GFLOPs at"):
            model.verify(1e-12)


def test_flops_of_linear_and_convolutional_layers_are_counted_once() -> None:
    layers = [
        (torch.nn.Linear(8, 4), (2, 8), 2 * 2 * 8 * 4),
        (torch.nn.Conv2d(4, 6, 3, padding=1, groups=2), (1, 4, 6, 6), 2 * 9 * 2 * 6 * 36 / 4),
    ]
    for layer, shape, flops in layers:
        counted = work_check.CountedCall(layer, partial(layer, torch.ones(shape)))
        for _ in range(2):
            counted()
            assert counted.flops == flops
