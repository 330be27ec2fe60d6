"""Time denoising passes or training steps: images/s, and the percentiles of single passes.

python -m bench.throughput --res 512
python -m bench.throughput --model FCDM-XL DiT-XL/2 --precision fp32 bf16 --compile off on
python -m bench.throughput --model FCDM-XL --batch 1 --cuda-graphs off on
python -m bench.throughput --work training --model FCDM-S --out runs.jsonl
"""

import argparse

from bench.cli import models, options, records, settings
from bench.jobs import timed
from bench.jobs.job import Job
from bench.records.throughput import TABLE, ThroughputCase

TRAINED = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")  # on a GPU, by default
BATCH = 64
# defaults that depend on the work; training on a CPU: each S-size model twice, under five minutes in total
CPU_BATCH = {"inference": BATCH, "training": 4}
CPU_BUDGET_S = {"inference": settings.CPU_BUDGET_S, "training": 25.0}
CHECKPOINTING = {"inference": [False], "training": [False, True]}


def plan(args: argparse.Namespace) -> list[ThroughputCase]:
    """Cases of every combination of the requested settings, checked before measuring."""
    _check(args)
    device = settings.device_of(args)
    on_cpu = device == "cpu"
    args.batch = args.batch or [CPU_BATCH[args.work] if on_cpu else BATCH]
    args.checkpointing = args.checkpointing or CHECKPOINTING[args.work]
    every = TRAINED if args.work == "training" else ("*",)
    names = models.model_names(args.model, default=settings.CPU_MODELS if on_cpu else every)
    models.check_models(names, args.res, args.weights)
    weights = settings.weights_name(args.weights, models.container_of(args.weights))
    budget_s = args.budget or (CPU_BUDGET_S[args.work] if on_cpu else settings.CUDA_BUDGET_S)
    processes = settings.processes_of(args.processes, settings.PROCESSES, budget_s)
    return [
        ThroughputCase(
            **fields,
            work=args.work,
            protocol=protocol,
            soak_s=args.soak,
            budget_s=budget_s,
            precision_target=args.precision_target,
            processes=1 if protocol == "dico" else processes,
        )
        for group in settings.model_fields(args, device, names, weights)
        for protocol in dict.fromkeys(args.protocol)
        for fields in group
    ]


def _check(args: argparse.Namespace) -> None:
    if "dico" in args.protocol and any(args.cuda_graphs):
        raise options.UsageError("--protocol dico: was not run under --cuda-graphs; leave one of them out")
    if args.work == "inference":
        return
    settings.check_training(args.cuda_graphs, args.precision, args.engine)
    if set(args.protocol) != {"suite"}:
        raise options.UsageError("--protocol dico: is a protocol of inference; leave it out")


def jobs(args: argparse.Namespace) -> list[Job]:
    return [timed.pass_job(case, args.weights, settings.startup_s(case)) for case in plan(args)]


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    results, notes = records.run_jobs(jobs(args), args.out, force=args.force)
    what = "training steps" if args.work == "training" else "single passes"
    notes.append(f"{results[0].environment.describe()}; median and percentiles of {what}")
    if args.model is None and results[0].case.device == "cpu":
        notes.append("the S sizes, as there is no GPU; --model chooses others")
    records.show(TABLE, results, notes, args)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.throughput", __doc__)
    options.add_models(made, default="on a GPU all, or with --work training the XL sizes; else the S sizes")
    options.add_res(made, default=(256,))
    options.add(
        made, "--work", options.WORKS, "a pass (inference), or a step of training", default="inference"
    )
    settings.add_options(made, batch=BATCH)
    made.set_defaults(batch=None, checkpointing=None)
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
