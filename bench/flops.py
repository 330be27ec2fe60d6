"""MACs of a forward pass and of a training step, under one counter or several; cost of a training.

    python -m bench.flops --model 'FCDM-*' DiT-XL/2 --res 256 512
    python -m bench.flops --model FCDM-XL --by op
    python -m bench.flops --explain FCDM-XL DiT-XL/2
    python -m bench.flops --training --model FCDM-XL --steps 400000

Counts come from tensor shapes: nothing is computed. One MAC is two FLOPs.
Counters, --explain and training costs: docs/flops.md
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bench.analysis.costs import training_cost
from bench.analysis.costs.counts import PAIR
from bench.analysis.costs.training_cost import Training
from bench.cli import models, options, records, settings, values
from bench.cli.progress import progress
from bench.jobs.job import Job
from bench.records.base import Environment, Record, Size, Skipped, height_width, size_text
from bench.records.counts import BY_MODULE, COUNTERS, PACKAGES, SHARES, TABLE, CountCase, MacCount, MacShare
from bench.store.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bench.counting.explain import Explanation

SIZES = options.DefaultSizes([256, 512, 1024])
EXPLAINED_SIZES = options.DefaultSizes([256])
TYPICAL_S = 0.5  # of one model at one size

Built = Mapping[tuple[str, Size], "nn.Module"]  # models on the meta device


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs of every requested count, checked before counting."""
    for mode in ("explain", "training"):
        if getattr(args, mode):
            raise options.UsageError(f"--{mode}: has tables of its own, which no suite runs")
    return _jobs(_built(args), _counters(args), args.batch or 1)


def _counters(args: argparse.Namespace) -> list[str]:
    from bench.counting import count

    counters = list(dict.fromkeys(args.counter or ["torch"]))
    if args.by == "module" and (without := [name for name in counters if name not in BY_MODULE]):
        raise options.UsageError(
            f"--by module: not with --counter {' '.join(without)}; works with {' '.join(BY_MODULE)}"
        )
    for package in PACKAGES:
        if package in counters and (reason := count.why_missing(package)):
            raise options.UsageError(f"--counter {package}: {reason}")
    return counters


def _built(args: argparse.Namespace) -> Built:
    names = models.model_names(args.model, default=["*"])
    return models.meta_models(names, args.res or SIZES, args.weights)


def _case(model: str, res: Size, counter: str, batch: int) -> CountCase:
    device = "cpu" if counter in PACKAGES else "meta"
    return CountCase(**settings.sized_fields(model, res, device), batch=batch, counter=counter)


def _jobs(built: Built, counters: Sequence[str], batch: int) -> list[Job]:
    from bench.counting import count
    from bench.machine import environment

    found = []
    for (name, res), model in built.items():
        for counter in counters:
            case = _case(name, res, counter, batch)
            if counter == "closed-form" and not count.has_closed_form(case):
                raise options.UsageError(
                    f"--counter closed-form: {name} has no formula; --counter torch counts it; docs/flops.md "
                    "says how a backbone gets a formula"
                )
            here = environment.gather(case.device, name)
            found.append(
                Job(
                    case=case,
                    environment=here,
                    measure=partial(count.count, case, here, model),
                    estimate_s=TYPICAL_S,
                    lookup=partial(_stored, case, here),
                )
            )
    return found


def _stored(case: CountCase, here: Environment, store: Store) -> Record | None:
    """The stored count; None for one of --explain under torch's rules, which lacks the training step."""
    found = store.find(case, here)
    if not isinstance(found, MacCount) or case.counter != "torch":
        return found
    return found if found.train_macs is not None or found.remarks else None


def _count(args: argparse.Namespace) -> int:
    """Count each model under each counter; print the counts, or their shares by operator or module."""
    built = _built(args)
    found, notes = records.run_jobs(
        _jobs(built, _counters(args), args.batch or 1), args.out, force=args.force
    )
    notes += _notes(found)
    if args.by:
        records.show(SHARES, _shares(found, built, args.by), notes, args)
    else:
        records.show(TABLE, found, notes, args)
    return 0


def _shares(found: Sequence[Record], built: Built, by: str) -> list[MacShare | Record]:
    """Shares of each count by operator or module, which are not stored; a failed count is one row."""
    from bench.counting import count

    rows: list[MacShare | Record] = []
    for record in found:
        if isinstance(record, MacCount):
            parts = count.parts(record.case, built[record.case.model, record.case.res], by)
            rows += [MacShare(count=record, part=part, macs=macs) for part, macs in parts.items()]
        else:
            rows.append(record)
    return rows


def _notes(found: Sequence[Record]) -> list[str]:
    """Units, versions, and the operators that each counter has no rule for."""
    blind: dict[str, set[str]] = defaultdict(set)
    for record in found:
        if isinstance(record, MacCount):
            blind[record.case.counter].update(record.not_counted)
    remarks = [f"{r.case.label}: {remark}" for r in found if isinstance(r, MacCount) for remark in r.remarks]
    here = found[0].environment
    return [
        f"1 MAC = 2 FLOPs; train: forward + backward, optimizer not counted; torch {here.torch}; {here.date}",
        *(f"not counted by {counter}: {', '.join(sorted(ops)) or '-'}" for counter, ops in blind.items()),
        *remarks,
    ]


def _explain(args: argparse.Namespace) -> int:
    """Print the differences between counters; exit code 1 where closed form and traced count differ."""
    from bench.counting import explain, explain_tables
    from bench.machine import environment

    sizes = args.res or EXPLAINED_SIZES
    names = models.model_names(args.explain, [], "--explain")
    built = models.meta_models(names, sizes, None, "--explain")
    packages = explain.packages_to_run(args.counter, len(built))
    max_macs = math.inf if args.counter else explain.MAX_MACS
    everything = {**built, **_pair(sizes, built)}
    done: dict[tuple[str, Size], Explanation | Skipped] = {}
    with records.store(args.out) as store, progress("explaining", len(everything)) as begin:
        for (name, res), model in everything.items():
            begin(f"{name} {size_text(res)}")
            case, here = _case(name, res, "torch", args.batch or 1), environment.gather("meta", name)
            # packages are slow: they do not run for the ratio alone
            chosen = packages if (name, res) in built else {}
            done[name, res] = explained = explain.explain(case, here, model, chosen, max_macs)
            for record in [explained] if isinstance(explained, Skipped) else explained.counted.values():
                if store and (args.force or store.find(record.case, record.environment) is None):
                    store.append(record)
    wanted = [done[case] for case in built]
    pair = [
        explained
        for (name, _), explained in done.items()
        if name in PAIR and not isinstance(explained, Skipped)
    ]
    text = explain_tables.render(wanted, pair, args.format)
    records.emit(text, explain_tables.notes(wanted), None if records.keeps_records(args.out) else args.out)
    return 0 if all(isinstance(explained, Skipped) or explained.agrees for explained in wanted) else 1


def _pair(sizes: Sequence[Size], built: Built) -> Built:
    """The models of the ratio that are not built, at the sizes that both support."""
    from models.contract import build
    from models.registry import task_at

    found: dict[tuple[str, Size], nn.Module] = {}
    for res in sizes:
        try:
            found |= {
                (name, res): build(name, task_at(name, *height_width(res)))
                for name in PAIR
                if (name, res) not in built
            }
        except ValueError as error:
            print(f"no ratio at {size_text(res)} px: {error}", file=sys.stderr)
    return found


def _training(args: argparse.Namespace) -> int:
    """Print training costs of FCDM's Table 17, or of given models."""
    trainings = _trainings(args)
    steps = records.known_records(args.records)
    names = list(dict.fromkeys(training.model for training in trainings))
    built = models.meta_models(names, [training_cost.RES], None)
    counts, notes = records.run_jobs(_jobs(built, training_cost.COUNTERS, 1), args.out, force=args.force)
    rows = training_cost.rows(training_cost.costs(trainings, [*steps, *counts]))
    here = counts[0].environment
    notes.append(
        "ZMACs, which the papers print as training FLOPs: 3 x MACs x steps x batch / 1e21; "
        f"1 MAC = 2 FLOPs; 256 px; torch {here.torch}; {here.date}"
    )
    if args.model is None:
        notes += [f"published: FCDM Table 17. {statement}" for statement in training_cost.remarks()]
    records.show(training_cost.TABLE, rows, notes, args)
    return 0


def _trainings(args: argparse.Namespace) -> list[Training]:
    if args.model is None:
        for option in ("steps", "batch"):
            if getattr(args, option) is not None:
                raise options.UsageError(f"--{option}: Table 17 gives its own; name a --model with it")
        return list(training_cost.published())
    return [
        Training(model=name, steps=args.steps or training_cost.STEPS, batch=args.batch or training_cost.BATCH)
        for name in models.model_names(args.model, default=())
    ]


def parser() -> options.Parser:
    made = options.parser("bench.flops", __doc__)
    options.add_models(made, default="all; for --training the rows of FCDM's Table 17")
    options.add_res(made, default=SIZES)
    made.set_defaults(res=None)  # --explain has another default
    text = "images in a counted call (1), or in a training step (256)"
    options.add(made, "--batch", values.positive_int, text)
    text = f"some of {', '.join(COUNTERS)} (default: torch); for --explain packages to run, or torch"
    options.add(made, "--counter", COUNTERS, text, several=True, metavar="COUNTER")
    made.add_argument("--by", choices=("module", "op"), help="break each model's forward MACs down")
    options.add(made, "--explain", str, "why counters differ on these models (at 256 px)", several=True)
    cost = made.add_argument_group("cost of a training, at 256 px")
    options.add_flag(cost, "--training", "ZFLOPs, device-hours and joules of a training")
    text = f"training steps, with --model (default: {training_cost.STEPS})"
    options.add(cost, "--steps", values.positive_int, text)
    text = "with timed training steps (default: those that the report reads)"
    options.add(cost, "--records", values.file, text, several=True)
    options.add_output(made)
    return made


def _refuse(args: argparse.Namespace, mode: str, *names: str) -> None:
    for name in names:
        if getattr(args, name):
            raise options.UsageError(f"{mode}: takes no --{name}; leave --{name} out")


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    if args.training:
        _refuse(args, "--training", "explain", "by", "counter", "weights", "res")
        return _training(args)
    _refuse(args, "without --training", "steps", "records")
    if not args.explain:
        return _count(args)
    _refuse(args, "--explain", "model", "by", "weights")
    if present := [name for name in args.counter or () if name not in ("torch", *PACKAGES)]:
        raise options.UsageError(
            f"--explain: has {', '.join(present)} already; --counter names the packages to run, "
            f"{' or '.join(PACKAGES)}, or torch to run none"
        )
    return _explain(args)


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
