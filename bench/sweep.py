"""What does a named list of cases say, one after another, resumed wherever it was stopped?

    python -m bench.sweep quick convergence-digits
    python -m bench.sweep gpu --budget 8m
    python -m bench.sweep paper-256 --dry-run
    python -m bench.sweep my_cases.toml --out runs.jsonl

A suite is a TOML file of [[run]] tables: a command (flops, golden, operators, ceilings, depthwise,
throughput, latency, train_step, versus, scaling, memory, convergence, sample) and its options, each with the
values that are combined, in the order in which they are to be measured; `device = "cuda"` or "cpu" in a table
leaves it out on another device. quick, paper-256, paper-512, gpu, gpu-zoo, convergence-digits and
convergence-s come with the project; any path to a .toml works as well.

What a device computes is measured in a process of its own, case by case, and every case is on disk before
the next begins. What --out holds already, for this device and this software, is passed over: a sweep that
was stopped, by --budget, by hand or by a kill, goes on when the same command is given again. An edit of the
code is other software, as its numbers may differ: --any-software passes over those cases too, but for
failures and trainings.
"""

import argparse
import importlib
import math
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cli import options, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Memory, NotCompared, Skipped, Trained
from bench.records.store import Store

SUITES = Path(__file__).parent / "suites"
OUT = Path("reports/out/records.jsonl")
# modules of bench that a suite may name: each has a parser() and units(args)
COMMANDS = (
    "flops",
    "golden",
    "operators",
    "ceilings",
    "depthwise",
    "throughput",
    "latency",
    "train_step",
    "versus",
    "scaling",
    "memory",
    "convergence",
    "sample",
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A case in its place in a sweep."""

    command: str
    label: str  # with the command
    unit: Unit


def suites() -> dict[str, Path]:
    """The suites that come with the project, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.toml"), key=lambda path: path.stem)}


def read_suite(name: str) -> tuple[str, list[dict[str, Any]]]:
    """Read a suite by its name or its path.

    Returns:
        What it is for, and its [[run]] tables.

    Raises:
        UsageError: no such suite, not TOML, or not of the form that the module's docstring gives.
    """
    path = suites().get(name, Path(name))
    if path.suffix != ".toml" or not path.is_file():
        known = ", ".join(suites())
        raise options.UsageError(f"{name}: no such suite; known are {known}, or the path of a .toml file")
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise options.UsageError(f"{name}: not TOML: {error}") from error
    runs = held.get("run")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise options.UsageError(f"{name}: holds no [[run]] table")
    for number, run in enumerate(runs, start=1):
        if run.get("command") not in COMMANDS:
            what = f"command {run.get('command')!r}; known are {', '.join(COMMANDS)}"
            raise options.UsageError(f"{name}: [[run]] {number}: {what}")
    return str(held.get("about", "")), runs


def arguments(run: dict[str, Any]) -> list[str]:
    """The command line that a [[run]] table stands for, without its command and the device it is for."""
    words: list[str] = []
    for option, value in run.items():
        if option in ("command", "device"):
            continue
        values = value if isinstance(value, list) else [value]
        switch = {True: "on", False: "off"}
        texts = [switch[v] if isinstance(v, bool) else str(v) for v in values]
        if option == "models":  # of versus, whose models are no option
            words = [*texts, *words]
        elif value is True:
            words.append(f"--{option}")
        else:
            words += [f"--{option}", *texts]
    return words


def plan(names: Sequence[str]) -> tuple[list[str], list[Planned], list[str]]:
    """Every case of some suites in their order, each once.

    Returns:
        What each suite is for, the cases, and notes on what this device leaves out.

    Raises:
        UsageError: no such suite, an option that its command does not know, or nothing for this device.
    """
    from bench.machine import device

    here = device.default()
    units: dict[str, Planned] = {}
    left_out: Counter[str] = Counter()
    purposes = []
    for name in names:
        about, runs = read_suite(name)
        purposes.append(about)
        for number, run in enumerate(runs, start=1):
            if run.get("device", here) != here:
                left_out[f"{run['command']} on {run['device']}"] += 1
                continue
            command = importlib.import_module(f"bench.{run['command']}")
            parser = command.parser()
            parser.prog = f"{name}: [[run]] {number}"
            for unit in command.units(parser.parse_args(arguments(run))):
                label = f"{run['command']} {unit.label}"
                units.setdefault(label, Planned(command=run["command"], label=label, unit=unit))
    if not units:
        raise options.UsageError(
            f"{', '.join(names)}: every table of it is for another device than the {here} here"
        )
    notes = [f"left out without such a device: {what} ({n} tables)" for what, n in left_out.items()]
    return purposes, list(units.values()), notes


def duration(seconds: float) -> str:
    """45 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _measure(units: Sequence[Planned], args: argparse.Namespace, clock: Callable[[], float]) -> list[str]:
    """Measure what the store does not hold, while the budget lasts; returns what there is to say of it."""
    begin = clock()
    done: Counter[str] = Counter()
    took: defaultdict[str, float] = defaultdict(float)  # seconds so far, by command; of estimates likewise
    expected: defaultdict[str, float] = defaultdict(float)

    def likely(one: Planned) -> float:
        """The estimate, which is an upper bound, corrected by what that command's cases took so far."""
        pace = took[one.command] / expected[one.command] if expected[one.command] else 1.0
        return one.unit.estimate_s * pace

    with options.store(args.out) as store, options.progress("measuring", len(units)) as say:
        assert store is not None
        notes = options.store_notes(store)
        missing = [one for one in units if args.force or not _held(one, store, args)]
        held = len(units) - len(missing)
        for at, one in enumerate(missing):
            left = sum(map(likely, missing[at:]))
            if args.budget is not None and at and clock() - begin + likely(one) > args.budget:
                notes.append(
                    f"stopped by --budget with {len(missing) - at} of {len(units)} cases left, about "
                    f"{duration(left)}; the same command goes on with them"
                )
                break
            say(f"{one.label}; about {duration(left)} left")
            started = clock()
            if args.force and one.unit.forget:
                one.unit.forget()
            with worker.killed_after(args.case_timeout):
                record = one.unit.measure()
            store.append(record)
            took[one.command] += clock() - started
            expected[one.command] += one.unit.estimate_s
            done[record.status if isinstance(record, Skipped | NotCompared | Memory | Trained) else "ok"] += 1
    told = ", ".join(f"{count} {status}" for status, count in done.most_common()) or "none"
    return [*notes, f"measured now: {told}; held already: {held}; {duration(clock() - begin)}; in {args.out}"]


def _body(args: argparse.Namespace) -> int:
    purposes, units, notes = plan(args.suite)
    if args.dry_run:
        with options.store(args.out if args.out.exists() else None) as store:
            rows = [_row(one, store, args) for one in units]
        text = tables.render(rows, _COLUMNS, args.format)
        left = sum(row["estimate_s"] for row in rows if not row["held"])
        tables.emit(text, [*purposes, *notes, f"at the most about {duration(left)} are left"], None)
        return 0
    options.check_output(args.out, args.force)
    notes += _measure(units, args, time.monotonic)
    tables.emit("", notes, None)
    return 0


def _held(one: Planned, store: Store, args: argparse.Namespace) -> bool:
    if one.unit.held(store) is not None:
        return True
    return bool(args.any_software) and not one.unit.found and store.answered(one.unit.about)


def _row(one: Planned, store: Store | None, args: argparse.Namespace) -> tables.Row:
    held = store is not None and _held(one, store, args)
    return {"case": one.label, "held": held, "estimate_s": one.unit.estimate_s}


_COLUMNS: list[tables.Column] = [
    ("case", lambda row: row["case"]),
    ("held", lambda row: "yes" if row["held"] else "no"),
    ("at most", lambda row: duration(row["estimate_s"])),
]


def main(argv: Sequence[str] | None = None) -> int:
    parser = options.parser("bench.sweep", __doc__)
    parser.add_argument(
        "suite",
        nargs="+",
        metavar="SUITE",
        help=f"{', '.join(suites())}, or the path of a .toml file; several are measured one after another",
    )
    parser.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="TIME",
        help="begin no case that would end later: 8m",
    )
    parser.add_argument(
        "--case-timeout",
        type=options.positive_seconds,
        default=math.inf,
        metavar="TIME",
        help="kill a case in a process of its own that is still running after this, and go on: 3m; what is "
        "only counted or predicted has none and ends by itself (default: what its command allows, "
        "minutes for timings, days for trainings)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is held of it")
    parser.add_argument(
        "--format", choices=options.FORMATS, default="table", help="of the plan that --dry-run prints"
    )
    parser.add_argument(
        "--out", type=options.records_file, default=OUT, metavar="FILE.jsonl", help=f"default: {OUT}"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--force", action="store_true", help="measure again what --out holds already")
    again.add_argument(
        "--any-software",
        action="store_true",
        help="pass over what --out holds a number of for this device, whatever its code, driver and torch: "
        "after a mend of one command, say; failures of other software are measured again; trainings of it "
        "are not passed over",
    )
    return options.run(parser, _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
