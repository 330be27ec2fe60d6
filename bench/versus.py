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
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench import cases, cli, output, paired, worker
from bench.record import Comparison, NotCompared, Run, Skipped, size_text
from bench.worker import Case

CPU_BUDGET_S = 30.0  # for each model of a comparison
CUDA_BUDGET_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Contest(Case):
    """What a worker is asked to compare: run is the reference, and its budget that of all arms together."""

    rivals: tuple[Run, ...]
    margin: float

    @property
    def runs(self) -> tuple[Run, ...]:
        return (self.run, *self.rivals)

    def without(self, status: str, reason: str) -> NotCompared:
        """The record of this contest if it gives no number."""
        return NotCompared(run=self.run, rivals=self.rivals, margin=self.margin, status=status, reason=reason)


def measure(case: Contest) -> Comparison | NotCompared:
    """Compare in this process.

    Returns:
        Comparison, or NotCompared where memory ran out, an output was not finite, torch recompiled while
        timing, or the device has no kernel of the kind asked for; the reason names the model.
    """
    import torch

    from bench import engine, telemetry
    from bench.arms import Arm, NotFiniteError, prepared

    monitor = telemetry.monitor(case.run.environment.device_type)
    arms: list[Arm] = []
    at = ""
    try:
        with ExitStack() as settings:
            for run in case.runs:
                at = run.model
                # an arm that is ready forbids to compile, and the next has still to be compiled
                with torch.compiler.set_stance("default"):
                    arms.append(settings.enter_context(prepared(run, None)))
            at = "while timing"
            compared = paired.compare(
                [arm.call for arm in arms],
                paired.Policy(budget_s=case.run.budget_s, margin=case.margin),
                clock=time.perf_counter,
                synchronise=arms[0].synchronise,
                read_clock_mhz=monitor.clock_mhz if monitor else None,
            )
    except MemoryError as error:
        return case.without("out of memory", f"{at}: {error}")
    except (NotFiniteError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if (reason := worker.out_of_memory(error)) is not None:
            return case.without("out of memory", f"{at}: {reason}")
        skipped = engine.known_failure(case.run, error)
        if skipped is None:
            raise
        return case.without(skipped.status, f"{at}: {skipped.reason}")
    return Comparison(
        run=case.run,
        rivals=case.rivals,
        order=compared.order,
        visits_s=compared.visits_s,
        calls=compared.calls,
        clocks_mhz=compared.clocks_mhz,
        warmup_times_s=compared.warmup_s,
        warmup_stationary=compared.warmup_stationary,
        margin=case.margin,
        stopped_by=compared.stopped_by,
        unmet=compared.unmet,
        build_s=tuple(arm.build_s for arm in arms),
        compile_s=tuple(arm.compile_s for arm in arms),
        matmul_tf32=arms[0].matmul_tf32,
        conv_tf32=arms[0].conv_tf32,
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
        "cuda_graphs": run.cuda_graphs,
        "channels_last": run.channels_last,
        "attention": run.attention,
        "checkpointing": run.checkpointing,
        "protocol": run.protocol,
        "device": run.environment.device,
        "torch": run.environment.torch,
        "threads": run.environment.threads,
        "date": run.environment.date,
        "status": result.status if isinstance(result, NotCompared) else "ok",
        "reason": _reason(result, arm),
        "ratio_reference_s_over_s": against.ratio(arm) if against else None,
        "ratio_interval": list(interval) if interval else None,
        "margin": result.margin,
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


_RESULTS: list[output.Column] = [
    ("speed ratio, reference time / time", lambda row: output.fixed(3, row["ratio_reference_s_over_s"])),
    ("99 % interval of the ratio", _interval),
    ("verdict", lambda row: row["verdict"] or row["status"]),
    ("rounds", lambda row: str(row["rounds"])),
    ("images/s", lambda row: output.significant(row["images_per_s"])),
    ("stopped by", _stopped),
]


_CLOCK: output.Column = ("clock, MHz", lambda row: output.fixed(0, row["clock_mhz"]))


def columns(rows: Sequence[output.Row]) -> list[output.Column]:
    """The arms, the settings that some row has not at their default, and what was found."""
    return [
        ("model", lambda row: row["model"]),
        ("reference", lambda row: row["reference"]),
        ("res", lambda row: str(row["res"])),
        ("batch", lambda row: str(row["batch"])),
        ("precision", lambda row: row["precision"]),
        *cases.unusual(rows),
        *_RESULTS,
        *([_CLOCK] if any(row["clock_mhz"] for row in rows) else []),
        *([cases.NOISE] if any(row["noise"] for row in rows) else []),
    ]


def planned(args: argparse.Namespace) -> list[Contest]:
    """A contest for every combination of the settings asked for, checked before anything is measured.

    Raises:
        UsageError: fewer than two models, or names, sizes or settings that cannot be.
    """
    from bench import device

    # one by one, as a model may well be compared with itself
    names = [name for given in args.models for name in cli.model_names([given], ())]
    if len(names) < 2:
        raise cli.UsageError(
            f"MODEL: a comparison needs at least two, the reference first, got {names[0]}; twice the same "
            "name would work, and shows the noise"
        )
    each = CUDA_BUDGET_S if (args.device or device.default()) == "cuda" else CPU_BUDGET_S
    args.model = names
    args.budget = args.budget or each * len(names)
    runs = [case.run for case in cases.planned(args, "versus")]
    different = len(set(names))  # the models are what varies fastest among the runs
    contests = []
    for i in range(0, len(runs), different):
        by_name = {run.model: run for run in runs[i : i + different]}
        reference, *rivals = (by_name[name] for name in names)
        contests.append(Contest(run=reference, weights=None, rivals=tuple(rivals), margin=args.margin))
    return contests


def compare(contest: Contest) -> Comparison | NotCompared:
    """Compare in a worker of its own, dated now; whatever becomes of it is a record."""
    from bench import environment

    dated = [
        replace(run, environment=environment.gather(run.environment.device_type, run.model))
        for run in contest.runs
    ]
    contest = replace(contest, run=dated[0], rivals=tuple(dated[1:]))
    timeout = cases.STARTUP_S * len(dated) + 4 * contest.run.budget_s
    result = worker.run("bench.versus:measure", contest, timeout)
    if isinstance(result, Skipped):
        return contest.without(result.status, result.reason)
    assert isinstance(result, Comparison | NotCompared)
    return result


def _body(args: argparse.Namespace) -> int:
    cli.check_output(args.out, args.force)
    contests = planned(args)
    results: list[Comparison | NotCompared] = []
    notes: list[str] = []
    found = 0
    with cli.store(args.out) as store, cli.progress("comparing", len(contests)) as begin:
        notes += cli.store_notes(store) if store is not None else []
        for contest in contests:
            run = contest.run
            begin(f"{len(contest.runs)} models, {size_text(run.res)} px, batch {run.batch}, {run.precision}")
            asked = contest.without("not yet", "")
            held = store.held(asked) if store is not None and not args.force else None
            if isinstance(held, Comparison | NotCompared):
                found += 1
                results.append(held)
                continue
            result = compare(contest)
            results.append(result)
            if store is not None:
                store.append(result)
    if found:
        notes.append(f"{found} of {len(contests)} comparisons were in {args.out}; --force repeats them")
    told = [row for result in results for row in rows(result)]
    text = output.render(told, columns(told), args.format)
    notes += _notes(results[0])
    output.emit(text, notes, None if cli.keeps_records(args.out) else args.out)
    return 0


def _notes(result: Comparison | NotCompared) -> list[str]:
    here = result.run.environment
    return [
        f"ratios are reference time / time of the model: above 1 is faster than {result.run.model}; "
        f"same: within {100 * result.margin:g} %",
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; medians of visits",
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
    cases.add_settings(parser, batch=64)
    # what a case of the engine has besides, and a comparison has not
    parser.set_defaults(protocol=["suite"], soak=0.0, precision_target=0.01, weights=None)
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
