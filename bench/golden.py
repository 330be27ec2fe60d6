"""Compare outputs of networks on this device with those of the authors' released code.

    python -m bench.golden
    python -m bench.golden --model FCDM-S DiT-S/2 --precision fp32 bf16 --compile off on
    python -m bench.golden --device cuda --cuda-graphs off on --channels-last off on --out records.jsonl
    python -m bench.golden --model DiG-S/2@torch DiG-S/2@fla

Each network gets the weights and inputs of its file in baselines/golden. Each case runs in its own process.
Exit code 1 unless every case reproduces its golden. Tolerances: docs/golden.md
"""

import argparse
import itertools

from baselines import load
from bench.cli import models, options, records, settings
from bench.jobs.job import Job, in_worker
from bench.records.golden import REPRODUCED, TABLE, Golden, GoldenCase

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DEFAULT = ("fp32", "tf32", "bf16")  # those that the device supports
TIMEOUT_S = {False: 300.0, True: 1200.0}  # without and with torch.compile, which takes minutes on one core
TYPICAL_S = {False: 20.0, True: 90.0}


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs of every requested combination, checked before any network is called."""
    return [
        in_worker(
            "bench.measure.golden_calls:measure",
            case,
            estimate_s=TYPICAL_S[case.engine != "eager"],
            timeout_s=TIMEOUT_S[case.engine != "eager"],
        )
        for case in _cases(args)
    ]


def _cases(args: argparse.Namespace) -> list[GoldenCase]:
    from bench.machine import device
    from bench.measure import golden_calls
    from models.registry import published_task

    where = settings.device_for(args.device, args.precision or DEFAULT[:1])
    precisions = args.precision or [p for p in DEFAULT if device.why_not(where, p) is None]
    settings.check_graphs(args.cuda_graphs, where)
    known = golden_calls.names()
    fields = []
    for name in models.model_names(args.model, default=known):
        model = golden_calls.golden_of(name)
        if model is None:
            raise options.UsageError(f"--model {name}: has no golden output; known are {', '.join(known)}")
        latent = load.goldens()[model]
        res = latent * published_task(name).factor
        if name != model:  # a back end by name, which may be missing here
            models.check_models([name], [res], None)
        sized = settings.sized_fields(name, res, where)
        fields.append({**sized, "latent_size": latent, "batch": len(load.golden(model, latent).t)})
    models.check_impl([one["model"] for one in fields], args.impl)
    products = itertools.product(precisions, args.impl, args.engine, args.cuda_graphs, args.channels_last)
    return [
        GoldenCase(
            **sized,
            precision=precision,
            impl=impl,
            engine=engine,
            cuda_graphs=graphs,
            channels_last=channels_last,
            weights="golden",
        )
        for precision, impl, engine, graphs, channels_last in dict.fromkeys(products)
        for sized in fields
    ]


def parser() -> options.Parser:
    made = options.parser("bench.golden", __doc__)
    text = "with a golden output; a back end after @ where there are several (default: all)"
    options.add_model(made, text)
    options.add_device(made)
    text = "precision of weights and inputs (default: fp32, tf32 and bf16, as far as the device has them)"
    options.add(made, "--precision", PRECISIONS, text, several=True)
    settings.add_impl(made)
    settings.add_engine(made)
    options.add_switch(made, "--cuda-graphs", "replay a CUDA graph of the call")
    options.add_switch(made, "--channels-last", "lay images and kernels out channels last")
    options.add_output(made)
    return made


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    found, notes = records.run_jobs(jobs(args), args.out, force=args.force)
    reproduced = sum(isinstance(record, Golden) and record.verdict == REPRODUCED for record in found)
    notes += [f"{reproduced} of {len(found)} cases reproduced", found[0].environment.describe()]
    records.show(TABLE, found, notes, args)
    return 0 if reproduced == len(found) else 1


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
