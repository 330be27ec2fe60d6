"""Run a suite of cases; the same command resumes an interrupted suite.

python -m bench.sweep quick
python -m bench.sweep gpu --budget 8m
python -m bench.sweep paper-256 --dry-run
python -m bench.sweep my_cases.toml --out runs.jsonl
"""

import argparse
import importlib
import math
import time
from collections import Counter
from collections.abc import Sequence

from bench.cli import options, records, values
from bench.cli.commands import commands
from bench.cli.progress import progress
from bench.jobs import suite
from bench.jobs.suite import Planned
from bench.store.store import REPORTED, Store
from bench.tables.numbers import duration
from bench.tables.render import FORMATS, render
from bench.tables.table import Column, Table


def plan(names: Sequence[str]) -> tuple[list[str], list[Planned], list[str]]:
    """The purpose of each suite, their distinct jobs in order, and notes on omitted ones."""
    from bench.machine import device

    here = device.default()
    halves = here != "cpu" or device.has_bf16_instructions()
    jobs: dict[str, Planned] = {}
    left_out: Counter[str] = Counter()
    purposes = []
    for name in names:
        with options.usage_errors():
            read = suite.read(name, list(commands("jobs")))
        purposes.append(read.about)
        for number, run in enumerate(read.runs, start=1):
            if run.get("device", here) != here:
                left_out[f"{run['command']} on {run['device']}: no such device"] += 1
                continue
            command = importlib.import_module(f"bench.{run['command']}")
            parser = command.parser()
            parser.raises = True
            with options.usage_errors(f"{name}: [[run]] {number}: ", of=options.UsageError):
                parsed = parser.parse_args(suite.arguments(run))
            for job in command.jobs(parsed):
                planned = Planned(command=run["command"], job=job)
                if not halves and suite.uses_half_on_cpu(job):
                    left_out["cases in bf16 and fp16: this CPU has no instructions for them"] += 1
                else:
                    jobs.setdefault(planned.label, planned)
    if not jobs:
        raise options.UsageError(f"{', '.join(names)}: has no case for a {here}")
    return purposes, list(jobs.values()), [f"left out: {count} {what}" for what, count in left_out.items()]


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    purposes, planned, notes = plan(args.suite)
    if args.dry_run:
        with records.store(args.out if args.out.exists() else None) as store:
            rows = [_Row(job, store, args.any_software) for job in planned]
        left_s = sum(row.planned.job.estimate_s for row in rows if not row.is_stored)
        notes = [*purposes, *notes, f"at most about {duration(left_s)} are left"]
        records.emit(render(PLAN, rows, args.format), notes, None)
        return 0
    start = time.monotonic()
    with records.store(args.out) as store, progress("measuring", len(planned)) as begin:
        assert store is not None
        notes += records.store_notes(store)
        sweep = suite.run(
            planned,
            store,
            force=args.force,
            any_software=args.any_software,
            budget_s=args.budget,
            case_timeout_s=args.case_timeout,
            begin=begin,
            clock=time.monotonic,
        )
    if sweep.left:
        by_command = Counter(job.command for job in sweep.left)
        notes.append(
            f"--budget left out {len(sweep.left)} of {len(planned)} cases, about {duration(sweep.left_s)}: "
            f"{', '.join(f'{count} of {command}' for command, count in by_command.items())}; "
            f"python -m bench.sweep {' '.join(args.suite)} --out {args.out} goes on with them"
        )
    measured = ", ".join(f"{count} {status}" for status, count in sweep.statuses.most_common()) or "none"
    took = duration(time.monotonic() - start)
    notes.append(f"measured now: {measured}; stored already: {sweep.stored}; {took}; in {args.out}")
    records.emit("", notes, None)
    return 0


class _Row:
    """A line of the plan."""

    def __init__(self, planned: Planned, store: Store | None, any_software: bool) -> None:
        self.planned = planned
        self.is_stored = store is not None and suite.is_stored(planned, store, any_software=any_software)


PLAN = Table[_Row](
    title="Plan",
    columns=(
        Column("case", lambda row: row.planned.label),
        Column("stored", lambda row: row.is_stored),
        Column("at most", lambda row: row.planned.job.estimate_s, duration, key="estimate_s"),
    ),
)


def parser() -> options.Parser:
    made = options.parser("bench.sweep", __doc__, "SUITE...")
    made.add_argument(
        "suite", nargs="+", metavar="SUITE", help=f"{', '.join(suite.names())}, or the path of a .toml file"
    )
    options.add_flag(made, "--dry-run", "print the plan and which cases are stored")
    text = "begin no case that would end later, as 8m (default: none)"
    options.add(made, "--budget", values.positive_seconds, text)
    text = "kill a case that is still running after this, as 3m (default: its command's own)"
    options.add(made, "--case-timeout", values.positive_seconds, text, default=math.inf)
    options.add(made, "--out", records.records_file, default=REPORTED, metavar="FILE.jsonl")
    made.add_argument(
        "--format", choices=FORMATS, default="table", help="format of the plan (default: table)"
    )
    again = made.add_mutually_exclusive_group()
    options.add_flag(again, "--force", "measure again what --out contains")
    text = "skip cases stored for this device under any code or torch version; trainings are repeated"
    options.add_flag(again, "--any-software", text)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
