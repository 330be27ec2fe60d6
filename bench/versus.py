"""Compare the speeds of models in interleaved rounds: ratios with intervals, and verdicts.

python -m bench.versus DiT-XL/2 FCDM-XL DiCo-XL
python -m bench.versus DiT-S/2 FCDM-S --res 512 --batch 4 --precision fp32 bf16 --budget 2m
python -m bench.versus DiT-S/2 DiT-S/2        # the noise of this machine
python -m bench.versus FCDM-S DiT-S/2 --impl reference fast --engine eager compile
python -m bench.versus DiT-S/2 path/net.py:Net --model-args depth=12 --format json --out runs.jsonl
"""

import argparse
import math

from bench.cli import models, options, records, settings
from bench.jobs import timed
from bench.jobs.job import Job
from bench.records import comparison
from bench.records.base import ModelCase, Record
from bench.records.comparison import Comparison, ComparisonCase
from bench.stats import ratios

CPU_BUDGET_S = 30.0  # for each model of a comparison
CUDA_BUDGET_S = 15.0
# Two equal models that draw one of two speeds in every process differ in one direction in all of three
# processes once in 32 comparisons, in all of five once in 512.
PROCESSES = 5


def plan(args: argparse.Namespace) -> list[ComparisonCase]:
    """One comparison for every combination of the requested settings, checked before measuring.

    Implementations and engines are compared, not combined: each model takes part once with each.
    """
    device = settings.device_of(args)
    # expanded one at a time: a model may be compared with itself
    names = [name for given in args.models for name in models.model_names([given], (), flag="MODEL")]
    impls, engines = (list(dict.fromkeys(given)) for given in (args.impl, args.engine))
    if len(names) * len(impls) * len(engines) < 2:
        raise options.UsageError(
            f"MODEL: a comparison needs at least two, the reference first, got {names[0]}; the same name "
            "twice would work, and shows the noise; or --impl reference fast"
        )
    models.check_models(names, args.res, None, flag="MODEL")
    each_s = CUDA_BUDGET_S if device == "cuda" else CPU_BUDGET_S
    models.check_impl(names, impls)
    of_each = argparse.Namespace(**{**vars(args), "impl": impls[:1], "engine": engines[:1]})
    groups = [
        [
            {**fields, "impl": impl, "engine": engine}
            for fields in group
            for impl in impls
            for engine in engines
        ]
        for group in settings.model_fields(of_each, device, names)
    ]
    budget_s = args.budget or each_s * len(groups[0])
    return [
        ComparisonCase(
            device=device,
            arms=tuple(ModelCase(**fields) for fields in group),
            budget_s=budget_s,
            precision_target=args.margin,
            processes=settings.processes_of(args.processes, PROCESSES, budget_s, len(groups[0])),
        )
        for group in groups
    ]


def jobs(args: argparse.Namespace) -> list[Job]:
    """The comparisons, ready to be measured."""
    return [timed.comparison_job(case, sum(map(settings.startup_s, case.arms))) for case in plan(args)]


def _too_few(result: Record) -> list[str]:
    """What would bound the ratios of a comparison of too few rounds; empty if they are bounded."""
    if not isinstance(result, Comparison) or result.interval(1) is not None:
        return []
    budget_s = math.ceil(result.case.budget_s + ratios.LEAST_ROUNDS * sum(result.visits_s) / result.rounds)
    return [
        f"{result.rounds} rounds in one process say nothing of the noise, so the ratios have no interval; "
        f"--processes {PROCESSES} or, for {ratios.LEAST_ROUNDS} rounds, --budget {budget_s}s would give one"
    ]


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    results, notes = records.run_jobs(jobs(args), args.out, force=args.force)
    rows = [row for result in results for row in comparison.rows(result)]
    notes += [
        f"ratios are reference time / time of the model: above 1 is faster than {rows[0].reference}; "
        f"same: within {100 * args.margin:g} %",
        f"{results[0].environment.describe()}; median visits",
    ]
    notes += dict.fromkeys(note for result in results for note in _too_few(result))
    records.show(comparison.TABLE, rows, notes, args)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.versus", __doc__, "REFERENCE MODEL...")
    made.add_argument(
        "models", nargs="+", metavar="MODEL", help="the reference, then the models to compare with it"
    )
    options.add_model_args(made)
    options.add_res(made, default=(256,))
    settings.add_settings(made, batch=64)
    default = f"{CUDA_BUDGET_S:g}s a model on a GPU, {CPU_BUDGET_S:g}s on a CPU"
    group = made.add_argument_group("how long")
    settings.add_stopping(group, default)
    settings.add_processes(group, PROCESSES)
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
