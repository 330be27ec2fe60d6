"""Timed cases: the options that make them, the product of their settings, and measuring what is missing."""

import argparse
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from bench.cli import options, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.jobs.worker import Case
from bench.records import labels
from bench.records.record import Record, Run, Size, Skipped, Throughput, height_width
from bench.stats import intervals

C = TypeVar("C")
R = TypeVar("R", bound=Record)

CPU_MODELS = ("FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S")
CPU_BUDGET_S = 45.0  # for each case: four of them and their start-up stay under five minutes
CUDA_BUDGET_S = 30.0
STARTUP_S = 300.0  # at the most, for building the largest model and compiling it
TYPICAL_STARTUP_S = 5.0
COMPILE_S = 60.0  # of torch.compile: an allowance in estimates, not measured
ATTENTION = ("auto", "flash", "cudnn", "efficient", "math", "flash-attn")


def add_settings(parser: options.Parser, batch: int, *, cpu_batch: int | None = None) -> None:
    """How a model is built and called; settings that take several values are all combined.

    Args:
        parser: gets the options.
        batch: by default.
        cpu_batch: where a CPU gets another one, which the command then fills in.
    """
    several = "; several are combined with the rest"
    on_cpu = "" if cpu_batch is None else f" on a GPU, {cpu_batch} on a CPU"
    parser.add_argument(
        "--batch",
        nargs="+",
        type=options.positive_int,
        default=[batch] if cpu_batch is None else None,
        help=f"images a pass (default: {batch}{on_cpu}){several}",
    )
    options.add_device(parser)
    parser.add_argument(
        "--precision", nargs="+", choices=options.PRECISIONS, default=["fp32"], help=f"default: fp32{several}"
    )
    options.add_switch(parser, "--compile", f"run under torch.compile{several}")
    options.add_switch(parser, "--cuda-graphs", f"replay the pass as a CUDA graph{several}")
    options.add_switch(parser, "--channels-last", f"lay images and kernels out channels last{several}")
    options.add_switch(
        parser, "--checkpointing", f"wrap every block as FCDM's release does, in inference too{several}"
    )
    parser.add_argument(
        "--attention",
        nargs="+",
        choices=ATTENTION,
        default=["auto"],
        help=f"the kernel under scaled_dot_product_attention, by default torch's choice{several}",
    )


def add_options(
    parser: options.Parser, batch: int, *, cpu_batch: int | None = None, cpu_budget_s: float = CPU_BUDGET_S
) -> None:
    """The settings of a timed case, and when its sampling ends."""
    add_settings(parser, batch, cpu_batch=cpu_batch)
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=("suite", "dico"),
        default=["suite"],
        help="dico replays the released timing of DiCo: 20 + 20 passes, clock stopped without synchronising, "
        "one timestep and label for the batch; --precision torch-default is as it was run",
    )
    parser.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="SECONDS",
        help="of each case, warm-up and samples: 90, 90s or 2m (default: "
        f"{CUDA_BUDGET_S:g} s on a GPU, {cpu_budget_s:g} s on a CPU)",
    )
    parser.add_argument(
        "--precision-target",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="stop when the 95 %% interval of the median is within this share of it (default: 0.01)",
    )
    parser.add_argument(
        "--soak",
        type=options.positive_seconds,
        default=0.0,
        metavar="SECONDS",
        help="work on for so long after the burst samples, then take sustained ones; with 5 and more the "
        "energy of a GPU is known too (default: none)",
    )


def planned(args: argparse.Namespace, question: str) -> list[Case]:
    """Every combination of the settings asked for, checked before anything is measured.

    Raises:
        UsageError: names, sizes, weights or settings that cannot be.
    """
    where = device_of(args)
    if "dico" in args.protocol and any(args.cuda_graphs):
        raise options.UsageError("--protocol dico: was not run under --cuda-graphs; leave one of them out")
    names = options.model_names(args.model, default=["*"] if where == "cuda" else CPU_MODELS)
    options.check_models(names, args.res, args.weights)
    weights = named(args.weights) if args.weights else "random"
    budget = args.budget or (CUDA_BUDGET_S if where == "cuda" else CPU_BUDGET_S)
    return [
        Case(
            run=replace(
                run,
                protocol=protocol,
                soak_s=args.soak,
                budget_s=budget,
                precision_target=args.precision_target,
                weights=weights,
            ),
            weights=str(args.weights) if args.weights else None,
        )
        for group in runs(args, question, where, names)
        for protocol in dict.fromkeys(args.protocol)
        for run in group
    ]


def units(args: argparse.Namespace, question: str) -> list[Unit]:
    """The cases of `planned` for a sweep."""
    return [
        Unit(
            label=label(case),
            about=case.run,
            estimate_s=startup_s(case.run) + case.run.budget_s + 2 * case.run.soak_s,
            measure=partial(measure, case),
        )
        for case in planned(args, question)
    ]


def startup_s(run: Run) -> float:
    """Seconds that building a model takes as a rule, and compiling it."""
    return TYPICAL_STARTUP_S + COMPILE_S * run.compile


def device_of(args: argparse.Namespace) -> str:
    """The device asked for, or the one at hand, checked against the settings that go with it.

    Raises:
        UsageError: the device is not there, or cannot do what a setting asks.
    """
    from bench.machine import device

    where: str = args.device or device.default()
    for precision in args.precision:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
    _check_contradictions(args, where)
    return where


def runs(args: argparse.Namespace, question: str, where: str, names: Sequence[str]) -> list[tuple[Run, ...]]:
    """For every combination of the settings of `add_settings`, the runs of the models in their order."""
    from bench.machine import environment as environment
    from models.registry import family_of, task_at

    def run(name: str, res: Size, settings: dict[str, Any]) -> Run:
        return Run(
            question=question,
            model=name,
            family=family_of(name),
            res=res,
            latent_size=task_at(name, *height_width(res)).latent_size,
            environment=environment.gather(where, name),
            **settings,
        )

    swept = ("batch", "precision", "compile", "cuda_graphs", "channels_last", "attention", "checkpointing")
    products = itertools.product(args.res, *(getattr(args, name) for name in swept))
    return [
        tuple(run(name, res, dict(zip(swept, settings, strict=True))) for name in names)
        for res, *settings in dict.fromkeys(products)
    ]


def check_graphs(cuda_graphs: Sequence[bool], where: str) -> None:
    """Refuse CUDA graphs on a CPU.

    Raises:
        UsageError: they were asked for there.
    """
    if where == "cpu" and any(cuda_graphs):
        raise options.UsageError(
            "--cuda-graphs: needs a CUDA device, got --device cpu; leave one of them out"
        )


def _check_contradictions(args: argparse.Namespace, where: str) -> None:
    check_graphs(args.cuda_graphs, where)
    if where == "cpu":
        for kernel in set(args.attention) - {"auto", "flash", "math"}:
            raise options.UsageError(f"--attention {kernel}: a CPU has auto, flash and math only")
    if "flash-attn" in args.attention:
        from bench.machine.device import DTYPES
        from models.kernels.flash_attn import why_not

        for precision in args.precision:
            if reason := why_not(DTYPES[precision]):
                raise options.UsageError(f"--attention flash-attn: {reason}")


def named(file: Path) -> str:
    """A file's name with the head of its SHA-256."""
    with file.open("rb") as opened:
        return f"{file.name} sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()[:12]}"


def label(case: Case) -> str:
    """The case in words, with the settings that are not as usual."""
    return labels.words(case.run)


def dated(run: Run) -> Run:
    """The run as of now."""
    from bench.machine import environment as environment

    return replace(run, environment=environment.gather(run.environment.device_type, run.model))


def measure(case: Case) -> Throughput | Skipped:
    """Measure one case in a worker of its own, dated now."""
    timeout = STARTUP_S + case.run.soak_s + 4 * case.run.budget_s
    result = worker.run("bench.measure.passes:measure", replace(case, run=dated(case.run)), timeout)
    assert isinstance(result, Throughput | Skipped)
    return result


def each(
    cases: Sequence[C],
    *,
    about: Callable[[C], Run | Record | tuple[Run, ...]],
    measure: Callable[[C], R],
    label: Callable[[C], str],
    args: argparse.Namespace,
) -> tuple[list[R], list[str]]:
    """Measure every case; those that the .jsonl file of --out holds already are taken from it.

    Args:
        cases: what to measure, in order.
        about: what a store knows a case by.
        measure: measures a case; its record is on disk before the next begins.
        label: what the progress bar calls it.
        args: --out, and --force to measure what the store holds too.

    Returns:
        A record for every case, in order, and notes on what was found in the store.
    """
    results: list[R] = []
    notes: list[str] = []
    found = 0
    with options.store(args.out) as store, options.progress("measuring", len(cases)) as begin:
        notes += options.store_notes(store) if store is not None else []
        for case in cases:
            begin(label(case))
            held = store.held(about(case)) if store is not None and not args.force else None
            if held is not None:
                found += 1
                results.append(cast(R, held))  # its key holds the question, and so the kind of answer
                continue
            results.append(measure(case))
            if store is not None:
                store.append(results[-1])
    if found:
        notes.append(f"{found} of {len(cases)} were in {args.out} already; --force measures them again")
    return results, notes


def described(run: Run) -> dict[str, Any]:
    """What the JSON output says of a run before it comes to what was measured."""
    return {
        "model": run.model,
        "family": run.family,
        "res": tables.size(run.res),
        "latent_size": tables.size(run.latent_size),
        "batch": run.batch,
        "precision": run.precision,
        "compile": run.compile,
        "cuda_graphs": run.cuda_graphs,
        "channels_last": run.channels_last,
        "attention": run.attention,
        "checkpointing": run.checkpointing,
        "protocol": run.protocol,
        "device": run.environment.device,
        "torch": run.environment.torch,
        "threads": run.environment.threads,
        "date": run.environment.date,
    }


def row(result: Throughput | Skipped) -> tables.Row:
    """One object of the JSON output; what a skipped case lacks is None."""
    run = result.run
    timed = result if isinstance(result, Throughput) else None
    interval = timed.images_per_s_interval if timed else None
    times = timed.times_s if timed else ()
    return {
        **described(run),
        "status": result.status if isinstance(result, Skipped) else "ok",
        "reason": result.reason if isinstance(result, Skipped) else "",
        "images_per_s": timed.images_per_s if timed else None,
        "images_per_s_interval": list(interval) if interval else None,
        "sustained_images_per_s": timed.sustained_images_per_s if timed else None,
        "joules_per_image": timed.joules_per_image if timed else None,
        "median_s": timed.median_s if timed else None,
        "p50_s": intervals.quantile(times, 0.5) if times else None,
        "p90_s": intervals.quantile(times, 0.9) if times else None,
        "p99_s": intervals.quantile(times, 0.99) if times else None,
        "compile_s": timed.compile_s if timed else None,
        "samples": len(times),
        "stopped_by": timed.stopped_by if timed else None,
        "unmet": list(timed.unmet) if timed else [],
        "noise": list(timed.noise) if timed else [],
        "times_s": list(times),
    }


def columns(rows: Sequence[tables.Row], measured: Sequence[tables.Column]) -> list[tables.Column]:
    """The case, the settings that some row has not at their default, and what was measured."""
    return [
        ("model", lambda row: row["model"]),
        ("res", lambda row: str(row["res"])),
        ("batch", lambda row: str(row["batch"])),
        ("precision", lambda row: row["precision"]),
        *unusual(rows),
        *measured,
        *([_SUSTAINED] if any(row["sustained_images_per_s"] for row in rows) else []),
        *([JOULES] if any(row["joules_per_image"] for row in rows) else []),
        ("samples", lambda row: str(row["samples"])),
        ("stopped by", _stopped),
        *([NOISE] if any(row["noise"] for row in rows) else []),
    ]


def unusual(rows: Sequence[tables.Row]) -> list[tables.Column]:
    """Columns for the settings that some row has not at their default."""
    usual: dict[str, object] = {
        "compile": False,
        "cuda_graphs": False,
        "channels_last": False,
        "attention": "auto",
        "checkpointing": False,
        "protocol": "suite",
    }
    return [_setting(name) for name in usual if any(row[name] != usual[name] for row in rows)]


def _setting(name: str) -> tables.Column:
    words = {True: "on", False: "off"}
    return name.replace("_", "-"), lambda row: words.get(row[name], row[name])


def _stopped(row: tables.Row) -> str:
    if row["stopped_by"] is None:
        return f"{row['status']}: {row['reason']}"
    return "; ".join([row["stopped_by"], *(f"not met: {criterion}" for criterion in row["unmet"])])


_SUSTAINED: tables.Column = (
    "sustained images/s",
    lambda row: tables.significant(row["sustained_images_per_s"]),
)
REMARK: tables.Column = ("remark", lambda row: row["remark"] or "-")
NOISE: tables.Column = ("noise", lambda row: "; ".join(row["noise"]) or "-")
JOULES: tables.Column = ("J/image", lambda row: tables.significant(row["joules_per_image"]))


def show(args: argparse.Namespace, question: str, measured: Sequence[tables.Column], default: str) -> int:
    """Plan, measure and print: what bench.throughput and bench.latency have in common."""
    options.check_output(args.out, args.force)
    results, notes = each(
        planned(args, question),
        about=lambda case: case.run,
        measure=measure,
        label=label,
        args=args,
    )
    rows = [row(result) for result in results]
    here = results[0].run.environment
    notes.append(
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; {default}"
    )
    if args.model is None:
        what = "all models" if here.device_type == "cuda" else "the S-size models, as there is no GPU"
        notes.append(f"measured by default: {what}; --model chooses others")
    text = tables.render(rows, columns(rows, measured), args.format)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0
