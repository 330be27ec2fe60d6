"""The runs of a study: every model is trained with every seed, each run in its own folder."""

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine import failures
from bench.records.base import Environment, Skipped
from bench.records.training import TrainingCase, TrainingRun
from bench.store.codec import key
from bench.store.store import Store
from bench.training import processes, progress
from bench.training.identity import Identity

if TYPE_CHECKING:
    from bench.training.processes import Processes
    from models.task import Task

RUNS = Path("reports/out/convergence")
STARTUP_S = 10.0
FLOPS_PER_S = {"cpu": 3e10, "cuda": 5e13}  # conservative training speed for estimates


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Inputs of a run that do not affect its losses."""

    data: str  # name or path
    data_dir: str | None
    folder: str  # of the run
    checkpoint_every: int  # steps
    train_macs: int  # of one image: forward and backward
    budget_s: float | None  # time limit of this attempt; None: no limit


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of one model and one seed."""

    case: TrainingCase
    environment: Environment  # of the plan
    setup: Setup
    halve_batch: bool  # retry with half the batch of a pass when memory runs out

    @property
    def identity(self) -> Identity:
        return Identity(case=self.case, environment=self.environment)

    @property
    def folder(self) -> Path:
        return Path(self.setup.folder)


class DataChangedError(ValueError):
    """The data has changed since the plan was made."""


def measure(case: TrainingCase, environment: Environment, setup: Setup) -> TrainingRun | Skipped:
    """Train a run in this single process, with its progress written to a file in its folder."""
    write = progress.writer(Path(setup.folder))
    return train(case, environment, setup, processes.join(case.device), write)


def train(
    case: TrainingCase,
    environment: Environment,
    setup: Setup,
    group: "Processes",
    on_progress: Callable[[progress.Progress], None],
) -> TrainingRun | Skipped:
    """Train a run in a group of processes, from its newest checkpoint; Skipped "stopped" at the time limit.

    Raises:
        DataChangedError: the data differs from the recipe's.
        CheckpointError: the folder cannot be used.
    """
    from bench.datasets import datasets
    from bench.training import loop

    begin = time.monotonic()
    limit_s = math.inf if setup.budget_s is None else setup.budget_s
    data_dir = None if setup.data_dir is None else Path(setup.data_dir)
    data = datasets.load(setup.data, data_dir, case.recipe.classes)
    if data.sha256 != case.recipe.data_sha256:
        raise DataChangedError(f"{setup.data}: has changed since the study was planned")
    try:
        return loop.train(
            Identity(case=case, environment=environment),
            data,
            Path(setup.folder),
            processes=group,
            checkpoint_every=setup.checkpoint_every,
            train_macs=setup.train_macs,
            on_progress=on_progress,
            out_of_time=lambda: time.monotonic() - begin > limit_s,
        )
    except loop.OutOfTimeError as error:
        reason = f"at step {error.step} of {case.recipe.steps}: time limit reached"
        return Skipped(case=case, environment=environment, status="stopped", reason=reason)


def batch_halvings(run: PlannedRun) -> Iterator[PlannedRun]:
    """The run; then, if `halve_batch`, the run with a batch per pass that is halved each time."""
    yield run
    while run.halve_batch and run.case.batch > 1:
        run = replace(run, case=replace(run.case, batch=run.case.batch // 2))
        yield run


def resumable(run: PlannedRun) -> PlannedRun:
    """The run with the batch per pass of its checkpoints, which an earlier attempt may have halved.

    CheckpointError: the folder has only checkpoints of another run or damaged ones.
    """
    from bench.training import checkpoint

    first_error: checkpoint.CheckpointError | None = None
    for smaller in batch_halvings(run):
        try:
            checkpoint.check(smaller.folder, smaller.identity)
        except checkpoint.CheckpointError as error:
            first_error = first_error or error
        else:
            return smaller
    assert first_error is not None
    raise first_error


def find_stored(run: PlannedRun, store: Store | None) -> TrainingRun | None:
    """The stored record of a completed run, also with a halved batch per pass; failed runs are repeated."""
    for smaller in batch_halvings(run):
        record = None if store is None else store.find(smaller.case, smaller.environment)
        if isinstance(record, TrainingRun) and record.status in ("ok", "not finite"):
            return record
    return None


def run_folder(case: TrainingCase, environment: Environment, base: Path | None) -> Path:
    """The folder of a run: inside a base folder, or a default folder that is unique to the case."""
    name = _slug(f"{case.model}-seed{case.seed}")
    if base is not None:
        return base / name
    recipe = case.recipe
    study = _slug(f"{recipe.data}-{recipe.objective}-{recipe.steps}")
    return RUNS / study / f"{name}-{key(case, environment)[:8]}"


def _slug(text: str) -> str:
    return re.sub(r"[^\w.@-]+", "-", text)


def estimate_s(run: PlannedRun) -> float:
    """Conservative estimate of the seconds of a run from FLOPS_PER_S, with evaluations."""
    recipe = run.case.recipe
    evaluations = 1 + math.ceil(recipe.steps / recipe.evaluate_every)
    validated = (
        evaluations * (1 + len(recipe.ema_decays)) * recipe.validation_images * recipe.validation_draws
    )
    # a forward pass is a third of a step
    images = recipe.steps * recipe.batch / run.case.processes + validated / 3
    return STARTUP_S + 2 * run.setup.train_macs * images / FLOPS_PER_S[run.case.device]


def count_train_macs(name: str, task: "Task") -> int:
    """MACs of forward and backward of one image, on meta. ValueError: it cannot be built or trained."""
    from bench.counting import counters
    from models.contract import build, check, condition_width
    from models.registry import is_plugin

    model = check(name, task) if is_plugin(name) else build(name, task)
    if condition_width(model) is not None:
        raise ValueError(f"{name}: takes float vectors for y; training works with labels only")
    try:
        return counters.count_step(model, task).train_macs
    except failures.RAISED as error:
        raise ValueError(f"{name}: a training pass raised {failures.describe(error)}") from error
