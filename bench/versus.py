"""Which of several backbones is faster, by how much, and is that more than noise?

    python -m bench.versus DiT-XL/2 FCDM-XL DiCo-XL
    python -m bench.versus DiT-S/2 FCDM-S --res 512 --batch 4 --precision fp32 bf16 --budget 2m
    python -m bench.versus DiT-S/2 DiT-S/2                       # what this machine's noise does
    python -m bench.versus DiT-S/2 my_pkg.my_mod:factory --format json --out runs.jsonl

The first model is the reference. All of them are built in one process and called in turn, in a random order
and then in the reverse of it, round after round: a machine that slows down or speeds up does so for all.
Ratios are those of speeds, reference time / time of the model: above 1, the model is the faster one. The
99 % interval is bootstrapped from the rounds, each with its own pair of times.

faster, slower: the whole interval lies beyond 1 + margin, or below 1 - margin. same: all of it lies within.
too close to call: anything else, told as well with fewer than ten rounds. refused: the mean clocks of the
device differ by more than 1 % between the model and the reference, where clocks can be read.

Sampling ends when every model has a verdict, or at the budget. Timed: as in bench.throughput, but a visit
to a model is as many passes as fill 50 ms, and the device is waited for at its end. Every comparison runs
in a process of its own, with all its models in memory at once.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench import cli, output, paired, record, throughput, worker
from bench.record import Comparison, NotCompared, Skipped, size_text
from bench.worker import Case

CPU_BUDGET_S = 30.0  # for each model of a comparison
CUDA_BUDGET_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What a worker is asked to compare: cases that differ in the model only, the reference first."""

    cases: tuple[Case, ...]
    device: str
    budget_s: float  # warm-up and rounds of all arms together
    margin: float


def measure(case: Contest) -> Comparison | Skipped:
    """Compare in this process.

    Returns:
        Comparison, or Skipped where memory ran out or an output was not finite, with the model's name.
    """
    import torch

    from bench import arms

    runs = tuple(throughput.planned(one) for one in case.cases)
    built: list[arms.Arm] = []
    for one, run in zip(case.cases, runs, strict=True):
        arm = arms.unless_impossible(run, partial(arms.prepare, one))
        if isinstance(arm, Skipped):
            return replace(arm, reason=f"{one.model}: {arm.reason}")
        built.append(arm)

    def timed() -> paired.Compared:
        with torch.inference_mode():
            return paired.compare(
                [arm.call for arm in built],
                paired.Policy(budget_s=case.budget_s, margin=case.margin),
                clock=time.perf_counter,
                synchronise=built[0].synchronise,
            )

    compared = arms.unless_impossible(runs[0], timed)
    if isinstance(compared, Skipped):
        return replace(compared, reason=f"while timing: {compared.reason}")
    return Comparison(
        runs=runs,
        order=compared.order,
        visits_s=compared.visits_s,
        calls=compared.calls,
        clocks_mhz=compared.clocks_mhz,
        warmup_times_s=compared.warmup_s,
        warmup_stationary=compared.warmup_stationary,
        margin=case.margin,
        stopped_by=compared.stopped_by,
        unmet=compared.unmet,
        build_s=tuple(arm.build_s for arm in built),
        compile_s=tuple(arm.compile_s for arm in built),
        matmul_tf32=built[0].matmul_tf32,
        conv_tf32=built[0].conv_tf32,
    )


def rows(result: Comparison | NotCompared) -> list[output.Row]:
    """One object of the JSON output for every arm, the reference first; what was not compared is None."""
    return [_row(result, arm) for arm in range(len(result.runs))]


def _row(result: Comparison | NotCompared, arm: int) -> output.Row:
    run = result.runs[arm]
    compared = result if isinstance(result, Comparison) else None
    against = compared if arm else None  # the reference has no ratio to itself
    interval = against.interval(arm) if against else None
    return {
        "model": run.model,
        "reference": result.runs[0].model,
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
        "status": "ok" if compared else result.status if isinstance(result, NotCompared) else "",
        "reason": _reason(result, arm),
        "ratio_reference_s_over_s": against.ratio(arm) if against else None,
        "ratio_interval": list(interval) if interval else None,
        "margin": compared.margin if compared else None,
        "verdict": (against.verdict(arm) if against else "reference") if compared else None,
        "rounds": compared.rounds if compared else 0,
        "images_per_s": compared.images_per_s(arm) if compared else None,
        "clock_mhz": paired.mean_clock_mhz(compared, arm) if compared else None,
        "stopped_by": compared.stopped_by if compared else None,
        "unmet": list(compared.unmet) if compared else [],
        "noise": list(compared.noise(arm)) if compared else [],
        "times_s": list(compared.times_s(arm)) if compared else [],
    }


def _reason(result: Comparison | NotCompared, arm: int) -> str:
    """Why there is no verdict."""
    if isinstance(result, NotCompared):
        return result.reason
    return paired.why_refused(result, arm) or ""


def _interval(row: output.Row) -> str:
    bounds = row["ratio_interval"]
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-"


def _stopped(row: output.Row) -> str:
    if row["stopped_by"] is None:
        return str(row["reason"])
    told = [row["stopped_by"], *(f"not met: {criterion}" for criterion in row["unmet"])]
    return "; ".join([*told, *filter(None, [row["reason"]])])


_SETTINGS: list[output.Column] = [
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
]
_SWITCHES: list[output.Column] = [
    ("compile", lambda row: "on" if row["compile"] else "off"),
    ("channels_last", lambda row: "on" if row["channels_last"] else "off"),
]
_RESULTS: list[output.Column] = [
    ("speed ratio, reference time / time", lambda row: output.fixed(3, row["ratio_reference_s_over_s"])),
    ("99 % interval of the ratio", _interval),
    ("verdict", lambda row: row["verdict"] or row["status"]),
    ("rounds", lambda row: str(row["rounds"])),
    ("images/s", lambda row: output.significant(row["images_per_s"])),
    ("stopped by", _stopped),
]


def _columns(rows: Sequence[output.Row]) -> list[output.Column]:
    """The columns, with the settings that some row departs from the default in."""
    optional: list[output.Column] = [
        ("clock, MHz", lambda row: output.fixed(0, row["clock_mhz"])),
        ("noise", lambda row: "; ".join(row["noise"]) or "-"),
    ]
    keys = ("clock_mhz", "noise")
    return [
        ("model", lambda row: row["model"]),
        ("reference", lambda row: row["reference"]),
        *_SETTINGS,
        *(column for column in _SWITCHES if any(row[column[0]] for row in rows)),
        *_RESULTS,
        *(column for key, column in zip(keys, optional, strict=True) if any(row[key] for row in rows)),
    ]


def _contests(args: argparse.Namespace, names: Sequence[str], device_name: str) -> list[Contest]:
    each = CUDA_BUDGET_S if device_name.startswith("cuda") else CPU_BUDGET_S
    budget = args.budget or each * len(names)
    settings = itertools.product(args.res, args.batch, args.precision, args.compile, args.channels_last)
    return [
        Contest(
            cases=tuple(
                Case(
                    model=name,
                    res=res,
                    batch=batch,
                    device=device_name,
                    precision=precision,
                    compile=compiled,
                    channels_last=channels_last,
                    weights=None,
                    budget_s=budget,  # this and the next are the contest's to decide
                    precision_target=args.margin,
                )
                for name in names
            ),
            device=device_name,
            budget_s=budget,
            margin=args.margin,
        )
        for res, batch, precision, compiled, channels_last in dict.fromkeys(settings)
    ]


def _compare(contest: Contest) -> Comparison | NotCompared:
    """Compare in a worker; whatever becomes of it is a record."""
    planned = tuple(throughput.planned(case) for case in contest.cases)
    timeout = throughput.STARTUP_S * len(planned) + 4 * contest.budget_s
    result = worker.run("bench.versus:measure", contest, planned[0], timeout)
    if isinstance(result, Comparison):
        return result
    assert isinstance(result, Skipped)
    return NotCompared(runs=planned, status=result.status, reason=result.reason)


def _body(args: argparse.Namespace) -> int:
    cli.check_output(args.out, args.force)
    from bench import device

    device_name = args.device or device.default()
    for precision in args.precision:
        if (reason := device.why_not(device_name, precision)) is not None:
            raise cli.UsageError(reason)
    # one by one, as a model may well be compared with itself
    names = [name for given in args.models for name in cli.model_names([given], (), flag="MODEL")]
    if len(names) < 2:
        raise cli.UsageError(
            f"MODEL: a comparison needs at least two, the reference first, got {names[0]}; twice the same "
            "name would work, and shows the noise"
        )
    cli.meta_models(names, args.res, None, flag="MODEL")
    contests = _contests(args, names, device_name)
    results = []
    with cli.progress("comparing", len(contests)) as begin:
        for contest in contests:
            case = contest.cases[0]
            begin(f"{len(names)} models, {size_text(case.res)} px, batch {case.batch}, {case.precision}")
            result = _compare(contest)
            results.append(result)
            if cli.keeps_records(args.out):
                record.append(args.out, [result])
    told = [row for result in results for row in rows(result)]
    text = output.render(told, _columns(told), args.format)
    output.emit(text, _notes(results, args.margin), None if cli.keeps_records(args.out) else args.out)
    return 0


def _notes(results: Sequence[Comparison | NotCompared], margin: float) -> list[str]:
    here = results[0].runs[0].environment
    return [
        f"ratios are reference time / time of the model: above 1 is faster than {results[0].runs[0].model}; "
        f"same: within {100 * margin:g} %",
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; eager unless said; median visits",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("bench.versus", __doc__)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="the reference, then those to compare with it: as published, in any case; a pattern such as "
        "'FCDM-*'; or your own my_pkg.my_mod:factory",
    )
    cli.add_res(parser, default=(256,))
    cli.add_settings(parser, batch=64)
    parser.add_argument(
        "--budget",
        type=cli.positive_seconds,
        metavar="SECONDS",
        help="of each comparison, warm-up and rounds of all models: 90, 90s or 2m (default: 15 s a model on "
        "a GPU, 30 s on a CPU)",
    )
    parser.add_argument(
        "--margin",
        type=cli.share,
        default=0.01,
        metavar="SHARE",
        help="speeds within this share of the reference's are the same (default: 0.01)",
    )
    cli.add_output(parser)
    return cli.run(parser, _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
