"""How many images a second does a backbone denoise?

    python -m bench.throughput --res 512
    python -m bench.throughput --model FCDM-XL DiT-XL/2 --precision fp32 tf32 bf16 --compile off on
    python -m bench.throughput --res 512 --model FCDM-S --batch 4 --format json
    python -m bench.throughput --model 'DiCo-*' --budget 2m --out runs.jsonl
    python -m bench.throughput --model my_pkg.my_mod:factory

Timed: model(x, t, y), one denoising forward pass, in eval mode under inference_mode, from the call until
the device has finished. x is normal noise, t and y are drawn anew for every image, and layers that start
at zero are given random values first. No guidance: the batch is the number of images.
Not timed: building the model, moving it, compiling it, the warm-up passes.

fp32 means no TF32 anywhere: both of torch's switches are set, and recorded. bf16 and fp16 cast weights
and inputs; the timestep features stay float32. Each case runs in a process of its own: one that runs out
of memory or crashes is a row with its reason. Warm-up ends when passes stop changing; sampling ends
when the 95 % interval of the median is within 1 % of it, with at least 10 samples and 0.5 s, or when the
budget is spent. Without a GPU the default is the S-size models; with one it is all of them.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from bench import cli, output, record, worker
from bench.record import Record, Run, Skipped, Throughput, height_width, size_text
from bench.worker import Case

CPU_MODELS = ("FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S")
CPU_BUDGET_S = 45.0  # for each case: four of them and their start-up stay under five minutes
CUDA_BUDGET_S = 30.0
STARTUP_S = 300.0  # for building the largest model, and compiling it


def measure(case: Case) -> Record:
    """Time one case in this process.

    Returns:
        Throughput, or Skipped where memory ran out or the output was not finite.
    """
    import time

    import torch

    from bench import counters, device, timing
    from models.contract import build, condition_width
    from models.registry import task_at
    from models.weights import load_official, randomise_zeros, read_weights

    run = planned(case)
    on_gpu = case.device.startswith("cuda")
    try:
        matmul_tf32, conv_tf32 = device.set_tf32(case.precision == "tf32")
        dtype = device.PRECISIONS[case.precision]
        task = task_at(case.model, *height_width(case.res))
        synchronise = device.synchronise(case.device)
        torch.manual_seed(0)
        begin = time.perf_counter()
        model = build(case.model, task, device=case.device)
        if case.weights:
            load_official(model, read_weights(Path(case.weights)))
        randomise_zeros(model)
        model.to(dtype).eval()
        x, t, y = counters.inputs(task, case.batch, case.device, condition_width(model))
        x = x.to(dtype)
        if case.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
            x = x.to(memory_format=torch.channels_last)
        synchronise()
        build_s = time.perf_counter() - begin

        call = torch.compile(model) if case.compile else model
        with torch.inference_mode():
            begin = time.perf_counter()
            finite = bool(torch.isfinite(call(x, t, y)).all())
            compile_s = time.perf_counter() - begin if case.compile else None
            if not finite:
                return Skipped(
                    run=run, status="not finite", reason=f"the output in {case.precision} holds inf or NaN"
                )
            timed = timing.time_calls(
                lambda: call(x, t, y),
                timing.Policy(budget_s=case.budget_s, precision=case.precision_target),
                clock=time.perf_counter,
                synchronise=synchronise,
                device_timer=device.cuda_timer if on_gpu else None,
            )
    except (torch.OutOfMemoryError, MemoryError) as error:
        return Skipped(run=run, status="out of memory", reason=str(error).partition("\n")[0])
    except RuntimeError as error:
        # the CPU's allocator has no exception of its own
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            return Skipped(run=run, status="out of memory", reason=str(error).partition("\n")[0])
        raise
    return Throughput(
        run=run,
        times_s=timed.wall_s,
        device_times_s=timed.device_s,
        warmup_times_s=timed.warmup_s,
        warmup_stationary=timed.warmup_stationary,
        stopped_by=timed.stopped_by,
        unmet=timed.unmet,
        build_s=build_s,
        compile_s=compile_s,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )


def planned(case: Case) -> Run:
    """What a record says of the case, whatever becomes of it."""
    from bench import environment
    from models.registry import family_of, task_at

    return Run(
        model=case.model,
        family=family_of(case.model),
        res=case.res,
        latent_size=task_at(case.model, *height_width(case.res)).latent_size,
        batch=case.batch,
        precision=case.precision,
        compile=case.compile,
        channels_last=case.channels_last,
        weights=Path(case.weights).name if case.weights else "random",
        environment=environment.gather(case.device),
    )


def row(result: Throughput | Skipped) -> output.Row:
    """One object of the JSON output; what a skipped case lacks is None."""
    run = result.run
    timed = result if isinstance(result, Throughput) else None
    interval = timed.images_per_s_interval if timed else None
    return {
        "model": run.model,
        "family": run.family,
        "res": output.size(run.res),
        "latent_size": output.size(run.latent_size),
        "batch": run.batch,
        "precision": run.precision,
        "compile": run.compile,
        "channels_last": run.channels_last,
        "device": run.environment.device,
        "torch": run.environment.torch,
        "threads": run.environment.threads,
        "date": run.environment.date,
        "status": "ok" if timed else result.status if isinstance(result, Skipped) else "",
        "reason": result.reason if isinstance(result, Skipped) else "",
        "images_per_s": timed.images_per_s if timed else None,
        "images_per_s_interval": list(interval) if interval else None,
        "median_s": timed.median_s if timed else None,
        "samples": len(timed.times_s) if timed else 0,
        "stopped_by": timed.stopped_by if timed else None,
        "unmet": list(timed.unmet) if timed else [],
        "times_s": list(timed.times_s) if timed else [],
    }


def _images_per_s(row: output.Row) -> str:
    if row["images_per_s"] is None:
        return row["status"]
    return output.significant(row["images_per_s"])


def _interval(row: output.Row) -> str:
    bounds = row["images_per_s_interval"]
    return f"{output.significant(bounds[0])} to {output.significant(bounds[1])}" if bounds else "-"


def _stopped(row: output.Row) -> str:
    if row["stopped_by"] is None:
        return str(row["reason"])
    return "; ".join([row["stopped_by"], *(f"not met: {criterion}" for criterion in row["unmet"])])


_COLUMNS: list[output.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
    ("images/s", _images_per_s),
    ("95 % interval", _interval),
    ("ms/pass", lambda row: output.significant(row["median_s"] and 1e3 * row["median_s"])),
    ("samples", lambda row: str(row["samples"])),
    ("stopped by", _stopped),
]


def _columns(rows: Sequence[output.Row]) -> list[output.Column]:
    """The columns, with the settings that some row departs from the default in."""
    switches: list[output.Column] = [
        ("compile", lambda row: "on" if row["compile"] else "off"),
        ("channels_last", lambda row: "on" if row["channels_last"] else "off"),
    ]
    used = [column for column in switches if any(row[column[0]] for row in rows)]
    return [*_COLUMNS[:4], *used, *_COLUMNS[4:]]


def _cases(args: argparse.Namespace, names: Sequence[str], device_name: str) -> list[Case]:
    budget = args.budget or (CUDA_BUDGET_S if device_name.startswith("cuda") else CPU_BUDGET_S)
    settings = itertools.product(
        args.res, args.batch, args.precision, args.compile, args.channels_last, names
    )
    return [
        Case(
            model=name,
            res=res,
            batch=batch,
            device=device_name,
            precision=precision,
            compile=compiled,
            channels_last=channels_last,
            weights=str(args.weights) if args.weights else None,
            budget_s=budget,
            precision_target=args.precision_target,
        )
        for res, batch, precision, compiled, channels_last, name in dict.fromkeys(settings)
    ]


def _body(args: argparse.Namespace) -> int:
    cli.check_output(args.out, args.force)
    from bench import device

    device_name = args.device or device.default()
    for precision in args.precision:
        if (reason := device.why_not(device_name, precision)) is not None:
            raise cli.UsageError(reason)
    names = cli.model_names(args.model, default=["*"] if device_name.startswith("cuda") else CPU_MODELS)
    cli.meta_models(names, args.res, args.weights)
    cases = _cases(args, names, device_name)
    results: list[Throughput | Skipped] = []
    with cli.progress("timing", len(cases)) as begin:
        for case in cases:
            begin(f"{case.model} {size_text(case.res)} px, batch {case.batch}, {case.precision}")
            timeout = STARTUP_S + 4 * case.budget_s
            result = worker.run("bench.throughput:measure", case, planned(case), timeout)
            assert isinstance(result, Throughput | Skipped)
            results.append(result)
            if cli.keeps_records(args.out):
                record.append(args.out, [result])
    rows = [row(result) for result in results]
    text = output.render(rows, _columns(rows), args.format)
    output.emit(text, _notes(results, args.model is None), None if cli.keeps_records(args.out) else args.out)
    return 0


def _notes(results: Sequence[Throughput | Skipped], chosen_for_device: bool) -> list[str]:
    here = results[0].run.environment
    notes = [
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; eager unless said; median pass, 95 % interval"
    ]
    if chosen_for_device:
        what = "all models" if here.device_type == "cuda" else "the S-size models, as there is no GPU"
        notes.append(f"measured by default: {what}; --model chooses others")
    return notes


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("bench.throughput", __doc__)
    cli.add_models(parser, default="all on a GPU, the S sizes on a CPU")
    cli.add_res(parser, default=(256,))
    cli.add_timing(parser, batch=64)
    cli.add_output(parser)
    return cli.run(parser, _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
