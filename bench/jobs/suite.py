"""Suites: named lists of cases in TOML files, and running their jobs under a budget.

A suite is a file of [[run]] tables in the order of measurement. A table has a command and its options, each
with a list of values; all values are combined. `device = "cuda"` or "cpu" restricts a table to that device.
"""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.jobs import worker
from bench.jobs.job import Job
from bench.store.files import why_not_regular
from bench.store.store import Store
from bench.tables.numbers import duration
from models.guard import reading

SUITES = Path(__file__).parent / "suites"
OF_THE_SWEEP = ("out", "force", "format", "help")  # options that no table of a suite has


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One file: its purpose and its tables."""

    about: str
    runs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A job of a sweep with its command."""

    command: str
    job: Job

    @property
    def label(self) -> str:
        return self.job.case.name


def names() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def read(name: str, commands: Sequence[str]) -> Suite:
    """Read a suite by its name or its path. ValueError: unknown, invalid TOML, or of another form."""
    path = SUITES / f"{name}.toml" if name in names() else Path(name)
    if path.suffix != ".toml":
        raise ValueError(
            f"{name}: no such suite; known are {', '.join(names())}, or the path of a .toml file"
        )
    if reason := why_not_regular(path):
        raise ValueError(f"{name}: {reason}")
    with reading(path, "TOML"):
        tables = _tables(path.read_text(encoding="utf-8"))
    runs = tables.get("run")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ValueError(f"{name}: holds no [[run]] table")
    for number, run in enumerate(runs, start=1):
        if not isinstance(run.get("command"), str) or run["command"] not in commands:
            known = ", ".join(commands)
            raise ValueError(f"{name}: [[run]] {number}: command {run.get('command')!r}; known are {known}")
        if own := [key for key in OF_THE_SWEEP if key in run]:
            raise ValueError(f"{name}: [[run]] {number}: {own[0]}: is not of a case; bench.sweep decides it")
    return Suite(about=str(tables.get("about", "")), runs=tuple(runs))


def _tables(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        opening = [line.count("[") + line.count("{") for line in text.split("\n")]
        line = 1 + opening.index(max(opening))
        raise ValueError(f"nested too deep (at line {line})") from error  # as tomllib names lines


def arguments(run: dict[str, Any]) -> list[str]:
    """Command-line arguments of a [[run]] table, without its command and device."""
    words: list[str] = []
    for option, value in run.items():
        if option in ("command", "device"):
            continue
        values = value if isinstance(value, list) else [value]
        switch = {True: "on", False: "off"}
        texts = [switch[v] if isinstance(v, bool) else str(v) for v in values]
        if option == "models":  # positional arguments of versus
            words = [*texts, *words]
        elif value is True:
            words.append(f"--{option}")
        else:
            words += [f"--{option}", *texts]
    return words


def uses_half_on_cpu(job: Job) -> bool:
    """Whether a job computes in bf16 or fp16 on a CPU."""
    cases = getattr(job.case, "arms", (job.case,))
    return any(case.device == "cpu" and getattr(case, "precision", "") in ("bf16", "fp16") for case in cases)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Results of a sweep."""

    statuses: Counter[str]  # number of executed jobs by status
    stored: int  # number of jobs that were already stored
    left: list[Planned] = field(default_factory=list)  # jobs beyond the budget
    left_s: float = 0.0  # estimated seconds of the jobs beyond the budget


def is_stored(planned: Planned, store: Store, *, any_software: bool) -> bool:
    """Whether a job is already stored; with any_software, from any software version of this device."""
    job = planned.job
    if job.stored(store) is not None:
        return True
    return any_software and not job.lookup and store.is_answered(job.case, job.environment)


def run(
    planned: Sequence[Planned],
    store: Store,
    *,
    force: bool,
    any_software: bool,
    budget_s: float | None,
    case_timeout_s: float,
    begin: Callable[[str], None],
    clock: Callable[[], float],
) -> Sweep:
    """Run the jobs that are not stored, within the budget.

    Args:
        any_software: also skip jobs stored from other software versions of this device.
        budget_s: jobs that are expected to end later do not start, except the first.
        case_timeout_s: a worker that runs longer is killed.
    """
    start = clock()
    spent: defaultdict[str, float] = defaultdict(float)  # seconds so far, by command
    estimated: defaultdict[str, float] = defaultdict(float)  # of the same jobs

    def expected_s(entry: Planned) -> float:
        """The estimate, an upper bound, scaled by the actual times of the command's earlier jobs."""
        pace = spent[entry.command] / estimated[entry.command] if estimated[entry.command] else 1.0
        return entry.job.estimate_s * pace

    missing = [entry for entry in planned if force or not is_stored(entry, store, any_software=any_software)]
    sweep = Sweep(statuses=Counter(), stored=len(planned) - len(missing))
    left: list[Planned] = []
    for number, entry in enumerate(missing):
        if budget_s is not None and number and clock() - start + expected_s(entry) > budget_s:
            left.append(entry)  # a later one may still fit
            continue
        begin(f"{entry.label}; about {duration(sum(map(expected_s, missing[number:])))} left")
        started = clock()
        if force and entry.job.discard_checkpoint:
            entry.job.discard_checkpoint()
        with worker.killed_after(case_timeout_s):
            record = entry.job.measure()
        store.append(record)
        spent[entry.command] += clock() - started
        estimated[entry.command] += entry.job.estimate_s
        sweep.statuses[getattr(record, "status", "ok")] += 1
    return Sweep(statuses=sweep.statuses, stored=sweep.stored, left=left, left_s=sum(map(expected_s, left)))
