"""Growth of a backbone's time, MACs, bytes and memory with image resolution.

    python -m bench.scaling --model FCDM-S DiT-S/2 --res 128 256 512
    python -m bench.scaling --res 256 512 1024 2048 --work inference training --precision bf16 --out r.jsonl
    python -m bench.scaling --no-measure --res 256 512 1024 2048 --show exponents claim

Prints cost per image by size, exponents, slow-downs beside the published ones, and cross-overs.
Method: docs/scaling.md
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis.scaling import resolution, slowdowns
from bench.analysis.scaling.resolution import Study
from bench.analysis.scaling.scaling_tables import ROWS, TABLES, TAKEN_OVER
from bench.cli import models, options, records, settings, values
from bench.cli.progress import progress
from bench.jobs import runner, timed
from bench.jobs.job import Job
from bench.records.base import Record, Size, size_text
from bench.records.scaling import ScalingCase
from bench.stats import power_law
from bench.tables.render import render, titled

if TYPE_CHECKING:
    from torch import nn

CUDA_MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL", "DiG-XL/2")
CUDA_RES = (256, 512, 1024, 2048)
CPU_RES = (128, 256, 512)
BATCH = 16
CPU_BATCH = 1
VISITS = 2
CUDA_BUDGET_S = 10.0  # of a visit
CPU_BUDGET_S = 5.0
# timing options, which parse to None, and two more whose defaults depend on the device
_TIMING = (
    *("impl", "engine", "cuda_graphs", "channels_last", "checkpointing", "attention"),
    *("precision_target", "visits"),
)
_OF_DEVICE = ("device", "budget")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Cases of a study for the first visit, at the requested batch, and their models if they are a user's."""

    cases: tuple[ScalingCase, ...]
    models: dict[tuple[str, Size], "nn.Module | None"]
    visits: int  # 0: counts only

    def visit_job(self, case: ScalingCase) -> Job:
        return timed.pass_job(case, None, settings.startup_s(case))

    def memory_job(self, case: ScalingCase) -> Job:
        from bench.jobs import memory

        return memory.job(memory.of_pass(case, case.work, "cuda" if case.device == "cuda" else "meta"))

    def count_job(self, case: ScalingCase) -> Job:
        from bench.analysis.rooflines.roofline import tensors_of
        from bench.counting.work import operator_case
        from bench.jobs.roofline import operator_job

        tensors = tensors_of(case.precision)
        traced = operator_case(case.model, case.res, case.batch, tensors, case.work)
        return operator_job(traced, self.models[case.model, case.res])


def _plan(args: argparse.Namespace) -> Plan:
    """Check the options and fill in their defaults."""
    given = [name for name in (*_TIMING, *_OF_DEVICE) if getattr(args, name) is not None]
    if args.no_measure and given:
        flag = given[0].replace("_", "-")
        raise options.UsageError(f"--{flag}: has no use with --no-measure, which times nothing")
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: weights do not change costs; leave it out")
    defaults = {name: value for name, value in args.timing_defaults.items() if name not in given}
    args = argparse.Namespace(**{**vars(args), **defaults})
    device = settings.device_of(args)
    if "training" in args.work:
        settings.check_training(args.cuda_graphs, args.precision, args.engine)
    on_cpu = device == "cpu" and not args.no_measure
    args.res = list(dict.fromkeys(args.res or (CPU_RES if on_cpu else CUDA_RES)))
    if len({resolution.side_of(res) for res in args.res}) < 2:
        raise options.UsageError(
            f"--res {_texts(args.res)}: an exponent needs two sizes of different areas, as --res 256 512"
        )
    args.batch = args.batch or [CPU_BATCH if on_cpu else BATCH]
    default = ("*",) if args.no_measure else settings.CPU_MODELS if on_cpu else CUDA_MODELS
    names = models.model_names(args.model, default=default)
    built = models.check_models(names, args.res, None)
    _check_tables(args, names)
    budget_s = args.budget or (CPU_BUDGET_S if device == "cpu" else CUDA_BUDGET_S)
    return Plan(
        cases=tuple(
            ScalingCase(
                **fields,
                work=work,
                budget_s=budget_s,
                precision_target=args.precision_target,
                from_batch=fields["batch"],
                visit=1,
            )
            for work in dict.fromkeys(args.work)
            for group in settings.model_fields(args, device, names)
            for fields in group
        ),
        models=built,
        visits=0 if args.no_measure else args.visits,
    )


def _texts(sizes: Sequence[Size]) -> str:
    return " ".join(map(size_text, sizes))


def _check_tables(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse requested tables that would be empty, and several tables as CSV."""
    shown = args.show or ()
    if args.format == "csv" and len(set(shown)) > 1:
        raise options.UsageError(f"--show {' '.join(shown)}: csv holds one table; name one, or use json")
    if "crossovers" in shown and len(names) < 2:
        raise options.UsageError(f"--show crossovers: a cross-over needs two models, got --model {names[0]}")
    if "claim" in shown and not power_law.doubled([resolution.side_of(res) for res in args.res]):
        raise options.UsageError(
            "--show claim: a slow-down needs a size of twice the side of another, "
            f"got --res {_texts(args.res)}"
        )


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs for a sweep: every visit, then memory and counts at the requested batches."""
    plan = _plan(args)
    found = []
    if plan.visits:
        from bench.jobs import visits

        found += [plan.visit_job(case) for _, case in visits.visited(plan.cases, plan.visits)]
        found += map(plan.memory_job, plan.cases)
    return [*found, *map(plan.count_job, plan.cases)]


def _measured(plan: Plan, args: argparse.Namespace) -> tuple[list[Record], list[str]]:
    """Every record of the study, measured or from the store, and notes on the store."""
    found: list[Record] = []
    cases: Sequence[ScalingCase] = plan.cases
    stored = 0
    total = len(cases) * (plan.visits + 2 if plan.visits else 1)
    with records.store(args.out) as store, progress("measuring", total) as begin:
        notes = records.store_notes(store) if store is not None else []

        def answer(job: Job) -> Record:
            nonlocal stored
            results = runner.run([job], store, force=args.force, begin=begin)
            stored += results.stored
            return results.records[0]

        if plan.visits:
            from bench.jobs import visits

            found, cases = visits.run(cases, plan.visits, lambda case: answer(plan.visit_job(case)))
            found += [answer(plan.memory_job(case)) for case in cases]
        found += [answer(plan.count_job(case)) for case in cases]
    if stored:
        notes.append(f"{stored} records were in {args.out} already; --force measures them again")
    return found, notes


def rendered(studies: Sequence[Study], shown: Sequence[str], form: str) -> str:
    """Requested tables as text: JSON is an object with one entry a table, CSV a single table."""
    rows = {name: [row for study in studies for row in ROWS[name](study)] for name in shown}
    if form == "json":
        tables = {name: json.loads(render(TABLES[name], rows[name], form)) for name in shown}
        return json.dumps(tables, indent=2) + "\n"
    return "\n".join(
        titled(TABLES[name].title, render(TABLES[name], rows[name], form), form)
        for name in shown
        if rows[name]
    )


def _shown(args: argparse.Namespace) -> list[str]:
    """Tables of --show; by default sizes for CSV, otherwise all, without cross-overs under --no-measure."""
    if args.show:
        return list(dict.fromkeys(args.show))
    if args.format == "csv":
        return ["sizes"]
    return [table for table in TABLES if table != "crossovers" or not args.no_measure]


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    shown = _shown(args)
    plan = _plan(args)
    found, notes = _measured(plan, args)
    studies = resolution.studies(found) if plan.visits else resolution.counts(found)
    text = rendered(studies, shown, args.format)
    notes += _notes(found, studies, shown)
    records.emit(text, notes, None if records.keeps_records(args.out) else args.out)
    return 0


def _notes(found: Sequence[Record], studies: Sequence[Study], shown: Sequence[str]) -> list[str]:
    notes = [
        "1 MAC = 2 FLOPs; an exponent in pixels is half of that in the side; memory of the passes excludes "
        "parameters, moments and EMA"
    ]
    notes += [
        f"{study.setting.work} {study.setting.precision}: {resolution.drift_summary(study.drift)}"
        for study in studies
        if study.records
    ]
    if "claim" in shown and any(row.of.published for study in studies for row in ROWS["claim"](study)):
        notes.append(f"published: {slowdowns.slowdown_remark()}")
        notes.append(f"{TAKEN_OVER}: {slowdowns.TAKEN_OVER}")
    return [*notes, found[0].environment.describe()]


def parser() -> options.Parser:
    made = options.parser("bench.scaling", __doc__)
    options.add_models(
        made, default=f"{', '.join(CUDA_MODELS)} on a GPU, S sizes on a CPU; all with --no-measure"
    )
    options.add_res(made, default=CUDA_RES)
    options.add(made, "--work", options.WORKS, default=["inference"], several=True)
    settings.add_settings(made, batch=BATCH, cpu_batch=CPU_BATCH)
    text = f"time for each visit (default: {CUDA_BUDGET_S:g}s on a GPU, {CPU_BUDGET_S:g}s on a CPU)"
    options.add(made, "--budget", values.positive_seconds, text)
    text = "end a visit when the 95 %% interval of its median is within this share of it"
    options.add(made, "--precision-target", values.share, text, default=0.01, metavar="SHARE")
    text = f"visits of each case (default: {VISITS}); one gives no intervals and no verdicts"
    options.add(made, "--visits", values.repetitions, text, default=VISITS)
    options.add_flag(made, "--no-measure", "counts only: MACs and bytes")
    text = f"{', '.join(TABLES)} (default: all, without the cross-overs of counts; for csv: sizes)"
    options.add(made, "--show", TABLES, text, several=True)
    options.add_output(made)
    made.set_defaults(res=None, timing_defaults={name: made.get_default(name) for name in _TIMING})
    made.set_defaults(**dict.fromkeys(_TIMING))
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
