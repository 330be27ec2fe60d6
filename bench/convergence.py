"""Train backbones by one recipe and compare their validation losses at equal steps, FLOPs, time and energy.

    python -m bench.convergence --out runs.jsonl
    python -m bench.convergence --model DiT-S/2 FCDM-S DiCo-S --data cifar10 --steps 5000 --precision bf16
    python -m bench.convergence --model DiT-S/2 my_pkg.my_mod:factory --seeds 5 --budget 30m --dir runs
    torchrun --nproc_per_node 4 -m bench.convergence --model DiT-XL/2 FCDM-XL --data path/to/latents

The first model is the reference. A study that was stopped is resumed by the same command.
Method: docs/convergence.md
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.analysis.learning import training_table
from bench.cli import models, options, progress, records, values
from bench.cli.networks import training_options
from bench.jobs import trainings
from bench.jobs.job import Job
from bench.machine import torchrun
from bench.records.base import Size, Skipped, size_text
from bench.records.training import Recipe, TrainingCase, TrainingRun
from bench.store.store import Store
from bench.tables.numbers import duration
from bench.tables.render import render
from bench.tables.table import Column, Table
from bench.tables.text import plain
from bench.training import processes, study
from bench.training.progress import Progress, followed
from bench.training.study import PlannedRun, Setup

if TYPE_CHECKING:
    from bench.training.processes import Processes

MODELS = ("DiT-Ti/2", "FCDM-Ti", "DiCo-Ti", "DiC-Ti")


# planning


def planned(args: argparse.Namespace) -> list[PlannedRun]:
    """Runs of every model from every seed, ordered by seed, checked before training."""
    from bench.machine import environment
    from bench.training.checkpoint import CheckpointError
    from models.registry import family_of

    device, batch = training_options.device_of(args), training_options.pass_batch(args)
    data = training_options.load_data(args)
    _, H, W = data.shape
    size: Size = H if H == W else (H, W)
    recipe = training_options.recipe_of(args, data)
    names = models.model_names(args.model, default=MODELS)
    macs = {name: _train_macs(name, recipe, size, args.data) for name in names}
    runs = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in names:
            case = TrainingCase(
                device=device,
                model=name,
                family=family_of(name),
                res=size if data.kind == "pixels" else _pixels(size),
                latent_size=size,
                batch=batch,
                precision=args.precision,
                impl=args.impl,
                engine="compile" if args.compile else "eager",
                channels_last=args.channels_last,
                checkpointing=args.checkpointing,
                recipe=recipe,
                seed=seed,
                processes=torchrun.world_size(),
            )
            here = environment.of(case)
            setup = Setup(
                data=args.data,
                data_dir=None if args.data_dir is None else str(args.data_dir),
                folder=str(study.run_folder(case, here, args.dir)),
                checkpoint_every=args.checkpoint_every or recipe.evaluate_every,
                train_macs=macs[name],
                budget_s=None,
            )
            halve = args.micro_batch == "auto"
            runs.append(PlannedRun(case=case, environment=here, setup=setup, halve_batch=halve))
    with options.usage_errors("--dir ", of=CheckpointError):
        return list(map(study.resumable, runs))


def _pixels(latent_size: Size) -> Size:
    """Size of the images that latents encode."""
    pixels = values.PIXELS_PER_LATENT
    if isinstance(latent_size, int):
        return pixels * latent_size
    return pixels * latent_size[0], pixels * latent_size[1]


def _train_macs(name: str, recipe: Recipe, size: Size, data: str) -> int:
    from bench.training.objectives import check_noise, task_of
    from models.registry import is_plugin, published_task

    shape = f"{recipe.channels} x {size_text(size)}"
    with options.usage_errors("--model ", f" (for --data {data}, {shape})"):
        if recipe.objective == "edm" and not is_plugin(name):
            check_noise(name, published_task(name), recipe.objective)
        return study.count_train_macs(name, task_of(recipe, size))


# running


def jobs(args: argparse.Namespace) -> list[Job]:
    """The runs of `planned` for a sweep."""
    return list(map(trainings.job, planned(args)))


def _study(
    runs: Sequence[PlannedRun], args: argparse.Namespace, group: "Processes | None"
) -> tuple[list[TrainingRun | Skipped], list[str]]:
    """Train the runs that the store does not contain, until the time limit; returns records and notes.

    Every process of a group of torchrun calls this; without a group each run has a worker.
    """
    begin = time.monotonic()
    first = group is None or group.rank == 0
    answers: list[TrainingRun | Skipped] = []
    notes: list[str] = []
    found = 0
    with (
        records.store(args.out if first else None) as store,
        progress.live_progress("training", len(runs)) as (next_run, show),
    ):
        notes += records.store_notes(store) if store is not None else []
        for at, run in enumerate(runs):
            next_run(run.case.short_label)
            left = None if args.budget is None else args.budget - (time.monotonic() - begin)
            decide = partial(_decide, store, run, args.force, left)
            decision, stored = decide() if group is None else group.broadcast(decide)
            if decision == "stop":
                notes.append(f"stopped by --budget; {len(runs) - at} of {len(runs)} runs not started")
                break
            if stored is not None:
                found += 1
                answers.append(stored)
                continue
            if first and args.force:
                trainings.discard(run)
            run = replace(run, setup=replace(run.setup, budget_s=left))
            if group is None:
                with followed(run.folder, partial(_show_progress, run, show)):
                    record = trainings.train(run)
            else:
                record = _train_in_group(run, group, show)
            answers.append(record)
            if store is not None and record.status != "stopped":
                store.append(record)
    if found:
        notes.append(f"{found} of {len(runs)} were in {args.out} already; --force trains them again")
    if any(record.status == "stopped" for record in answers):
        notes.append("the same command resumes the study")
    return answers, notes


def _decide(
    store: Store | None, run: PlannedRun, force: bool, left: float | None
) -> tuple[str, TrainingRun | None]:
    """The next action for a run: stored (with its record), stop or train."""
    stored = None if force else study.find_stored(run, store)
    if stored is not None:
        return "stored", stored
    return ("stop" if left is not None and left <= 0 else "train"), None


def _show_progress(run: PlannedRun, show: Callable[[str], None], at: Progress) -> None:
    show(f"{run.case.short_label}: {at.text}")


def _train_in_group(
    run: PlannedRun, group: "Processes", show: Callable[[str], None]
) -> TrainingRun | Skipped:
    """Train in the process group of torchrun; without a terminal, each evaluation prints a line."""
    from bench.machine import environment

    every = run.case.recipe.evaluate_every

    def report(at: Progress) -> None:
        text = f"{run.case.short_label}: {at.text}"
        if sys.stderr.isatty():
            show(text)
        elif at.step % every == 0:
            print(plain(text), file=sys.stderr, flush=True)

    return study.train(run.case, environment.of(run.case), run.setup, group, report)


# output


@dataclass(frozen=True, kw_only=True)
class _PlanRow:
    """One line of --dry-run."""

    run: PlannedRun
    stored: bool
    step: int  # of the newest checkpoint


PLAN = Table[_PlanRow](
    title="Planned runs",
    columns=(
        Column("run", lambda r: r.run.case.label, key="case"),
        Column("stored", lambda r: r.stored),
        Column("at step", lambda r: r.step, key="step"),
        Column("at most", lambda r: study.estimate_s(r.run), duration, key="estimate_s"),
        Column("folder", lambda r: r.run.setup.folder),
    ),
)


def _show_plan(runs: Sequence[PlannedRun], args: argparse.Namespace) -> None:
    from bench.training import checkpoint

    with records.store(args.out if args.out and args.out.exists() else None) as store:
        rows = [
            _PlanRow(
                run=run,
                stored=study.find_stored(run, store) is not None,
                step=checkpoint.check(run.folder, run.identity)[0],
            )
            for run in runs
        ]
    records.emit(render(PLAN, rows, args.format), [], None)


def _notes(found: Sequence[TrainingRun | Skipped], runs: Sequence[PlannedRun]) -> list[str]:
    case = runs[0].case
    recipe = case.recipe
    return [
        f"validation loss after {recipe.steps} steps of {recipe.batch} images, {recipe.objective}; "
        f"{recipe.data} ({recipe.train_images} + {recipe.validation_images} images of {recipe.channels} x "
        f"{size_text(case.latent_size)}), {recipe.validation_draws} timesteps for each validation image",
        f"{found[0].environment.describe()}; {case.precision}; {case.processes} processes",
        f"checkpoints: {runs[0].folder.parent}",
    ]


def _body(args: argparse.Namespace) -> int:
    first = torchrun.rank() == 0
    if first:
        records.check_output(args.out, args.force)
    from bench.training.checkpoint import CheckpointError

    runs = planned(args)
    if args.dry_run:
        if first:
            _show_plan(runs, args)
        return 0
    group = processes.join(runs[0].case.device) if torchrun.world_size() > 1 else None
    try:
        with options.usage_errors("--dir ", of=CheckpointError):
            answers, notes = _study(runs, args, group)
    finally:
        if group is not None:
            group.close()
    if first:
        text = ""
        if answers:
            rows = training_table.results(answers, runs[0].case.model)
            text = render(training_table.table(rows), rows, args.format)
            notes += _notes(answers, runs)
        records.emit(text, notes, None if records.keeps_records(args.out) else args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.convergence", __doc__)
    training_options.add_options(made, default=" ".join(MODELS))
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
