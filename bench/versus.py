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
too close to call: anything else, told as well with fewer than ten rounds. refused: where clocks can be read,
the device's during the model drifted away from that during the reference, by 2 % or more from the first third
of the rounds to the last. Mean clocks that differ steadily, by more than 1 %, are a remark beside the ratio:
under a power cap that is how fast the device runs that model. A drift of both alike cancels in every round.

Sampling ends when every model has a verdict, or at the budget. Timed: as in bench.throughput, but a visit
to a model is as many passes as fill 50 ms, one at the least, and the device is waited for at its end. Every
comparison runs in a process of its own, with all its models in memory at once.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Comparison, NotCompared, Run, Skipped
from bench.stats import ratios

CPU_BUDGET_S = 30.0  # for each model of a comparison
CUDA_BUDGET_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What a worker is asked to compare: runs that differ in the model only, the reference first."""

    runs: tuple[Run, ...]
    margin: float

    @property
    def run(self) -> Run:
        return self.runs[0]


def measure(case: Contest) -> Comparison | Skipped:
    """Compare in this process.

    Returns:
        Comparison, or Skipped where an output was not finite, torch recompiled, or a kernel is missing.
    """
    from bench.machine import telemetry
    from bench.measure import passes, prepared

    monitor = telemetry.monitor(case.run.environment.device_type)
    with ExitStack() as stack:
        built: list[prepared.Arm] = []
        try:
            for run in case.runs:
                built.append(stack.enter_context(prepared.prepared(run, None)))
            stack.enter_context(prepared.compiled_already(case.run))
            compared = ratios.compare(
                [arm.call for arm in built],
                ratios.Policy(budget_s=case.run.budget_s, margin=case.margin),
                clock=time.perf_counter,
                synchronise=built[0].synchronise,
                read_clock_mhz=monitor.clock_mhz if monitor else None,
            )
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            of = case.runs[min(len(built), len(case.runs) - 1)]
            skipped = passes.skipped(of, error)
            if skipped is None:
                raise
            return replace(skipped, reason=f"{of.model}: {skipped.reason}")
    return Comparison(
        runs=case.runs,
        **compared.recorded(case.margin),
        build_s=tuple(arm.build_s for arm in built),
        compile_s=tuple(arm.compile_s for arm in built),
        matmul_tf32=built[0].matmul_tf32,
        conv_tf32=built[0].conv_tf32,
    )


def rows(result: Comparison | NotCompared) -> list[tables.Row]:
    """One object of the JSON output for every arm, the reference first; what was not compared is None."""
    return [_row(result, arm) for arm in range(len(result.runs))]


def _row(result: Comparison | NotCompared, arm: int) -> tables.Row:
    run = result.runs[arm]
    compared = result if isinstance(result, Comparison) else None
    against = compared if arm else None  # the reference has no ratio to itself
    interval = against.interval(arm) if against else None
    return {
        **settings.described(run),
        "reference": result.runs[0].model,
        "status": "ok" if compared else result.status if isinstance(result, NotCompared) else "",
        "reason": _reason(result, arm),
        "ratio_reference_s_over_s": against.ratio(arm) if against else None,
        "ratio_interval": list(interval) if interval else None,
        "margin": compared.margin if compared else None,
        "verdict": (against.verdict(arm) if against else "reference") if compared else None,
        "rounds": compared.rounds if compared else 0,
        "images_per_s": compared.images_per_s(arm) if compared else None,
        "clock_mhz": ratios.mean_clock_mhz(compared, arm) if compared else None,
        "remark": ratios.clock_remark(compared, arm) if compared else "",
        "stopped_by": compared.stopped_by if compared else None,
        "unmet": list(compared.unmet) if compared else [],
        "noise": list(compared.noise(arm)) if compared else [],
        "times_s": list(compared.times_s(arm)) if compared else [],
    }


def _reason(result: Comparison | NotCompared, arm: int) -> str:
    """Why there is no verdict."""
    if isinstance(result, NotCompared):
        return result.reason
    return ratios.why_refused(result, arm) or ""


def _interval(row: tables.Row) -> str:
    bounds = row["ratio_interval"]
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-"


def _stopped(row: tables.Row) -> str:
    if row["stopped_by"] is None:
        return str(row["reason"])
    told = [row["stopped_by"], *(f"not met: {criterion}" for criterion in row["unmet"])]
    return "; ".join([*told, *filter(None, [row["reason"]])])


_SETTINGS: list[tables.Column] = [
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
]
_RESULTS: list[tables.Column] = [
    ("speed ratio, reference time / time", lambda row: tables.fixed(3, row["ratio_reference_s_over_s"])),
    ("99 % interval of the ratio", _interval),
    ("verdict", lambda row: row["verdict"] or row["status"]),
    ("rounds", lambda row: str(row["rounds"])),
    ("images/s", lambda row: tables.significant(row["images_per_s"])),
    ("stopped by", _stopped),
]


def _columns(rows: Sequence[tables.Row]) -> list[tables.Column]:
    """The columns, with the settings that some row departs from the default in."""
    optional: list[tables.Column] = [
        ("clock, MHz", lambda row: tables.fixed(0, row["clock_mhz"])),
        settings.REMARK,
        settings.NOISE,
    ]
    keys = ("clock_mhz", "remark", "noise")
    return [
        ("model", lambda row: row["model"]),
        ("reference", lambda row: row["reference"]),
        *_SETTINGS,
        *settings.unusual(rows),
        *_RESULTS,
        *(column for key, column in zip(keys, optional, strict=True) if any(row[key] for row in rows)),
    ]


def planned(args: argparse.Namespace) -> list[Contest]:
    """A comparison for every combination of the settings asked for, checked before anything is measured.

    Raises:
        UsageError: fewer than two models, or names, sizes or settings that cannot be.
    """
    where = settings.device_of(args)
    # one by one, as a model may well be compared with itself
    names = [name for given in args.models for name in options.model_names([given], (), flag="MODEL")]
    if len(names) < 2:
        raise options.UsageError(
            f"MODEL: a comparison needs at least two, the reference first, got {names[0]}; twice the same "
            "name would work, and shows the noise"
        )
    options.check_models(names, args.res, None, flag="MODEL")
    each = CUDA_BUDGET_S if where == "cuda" else CPU_BUDGET_S
    budget = args.budget or each * len(names)
    return [
        Contest(
            runs=tuple(replace(run, budget_s=budget, precision_target=args.margin) for run in group),
            margin=args.margin,
        )
        for group in settings.runs(args, "versus", where, names)
    ]


def compare(contest: Contest) -> Comparison | NotCompared:
    """Compare in a worker; whatever becomes of it is a record."""
    now = replace(contest, runs=tuple(map(settings.dated, contest.runs)))
    timeout = settings.STARTUP_S * len(now.runs) + 4 * now.run.budget_s
    result = worker.run("bench.versus:measure", now, timeout)
    if isinstance(result, Comparison):
        return result
    assert isinstance(result, Skipped)
    return NotCompared(runs=now.runs, status=result.status, reason=result.reason)


def label(contest: Contest) -> str:
    """The comparison in words."""
    others = ", ".join(run.model for run in contest.runs[1:])
    return f"{settings.label(worker.Case(run=contest.run, weights=None))}, against {others}"


def units(args: argparse.Namespace) -> list[Unit]:
    """The comparisons of `planned` for a sweep."""
    return [
        Unit(
            label=label(contest),
            about=contest.runs,
            estimate_s=sum(map(settings.startup_s, contest.runs)) + contest.run.budget_s,
            measure=partial(compare, contest),
        )
        for contest in planned(args)
    ]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    results, notes = settings.each(
        planned(args),
        about=lambda contest: contest.runs,
        measure=compare,
        label=label,
        args=args,
    )
    told = [row for result in results for row in rows(result)]
    text = tables.render(told, _columns(told), args.format)
    notes += _notes(results, args.margin)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def _notes(results: Sequence[Comparison | NotCompared], margin: float) -> list[str]:
    here = results[0].runs[0].environment
    return [
        f"ratios are reference time / time of the model: above 1 is faster than {results[0].runs[0].model}; "
        f"same: within {100 * margin:g} %",
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; eager unless said; median visits",
    ]


def parser() -> options.Parser:
    made = options.parser("bench.versus", __doc__)
    made.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="the reference, then those to compare with it: as published, in any case; a pattern such as "
        "'FCDM-*'; or your own my_pkg.my_mod:factory",
    )
    options.add_res(made, default=(256,))
    settings.add_settings(made, batch=64)
    made.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="SECONDS",
        help="of each comparison, warm-up and rounds of all models: 90, 90s or 2m (default: 15 s a model on "
        "a GPU, 30 s on a CPU)",
    )
    made.add_argument(
        "--margin",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="speeds within this share of the reference's are the same (default: 0.01)",
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
