"""Files of records named by options, and execution of a command's jobs."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.cli.options import UsageError, usage_errors
from bench.cli.progress import progress
from bench.jobs import runner
from bench.jobs.job import Job
from bench.records.base import Record
from bench.store.codec import Contents, parse, read
from bench.store.files import whole, why_not_writable
from bench.store.store import REPORTED, Store, open_store
from bench.tables.render import render
from bench.tables.table import Row, Table
from bench.tables.text import plain


def run_jobs(jobs: Sequence[Job], out: Path | None, *, force: bool) -> tuple[list[Record], list[str]]:
    """Measure the jobs that are missing from the .jsonl file of --out, a record for each, and notes."""
    steps = sum(job.repetition.processes if job.repetition else 1 for job in jobs)
    with store(out) as opened, progress("measuring", steps) as begin:
        notes = store_notes(opened) if opened is not None else []
        results = runner.run(jobs, opened, force=force, begin=begin)
    if results.stored:
        notes.append(f"{results.stored} of {len(jobs)} were in {out} already; --force measures them again")
    return list(results.records), notes


def check_output(out: Path | None, force: bool, flag: str = "--out") -> None:
    """Refuse an --out that is not writable or would be overwritten, before measuring; nothing is made."""
    if out is None:
        return
    if reason := why_not_writable(out):
        raise UsageError(f"{flag} {out}: {reason}")
    takes_records = flag == "--out"
    if not (takes_records and keeps_records(out)) and not force and out.exists() and out.stat().st_size:
        other = "another file, or one ending in .jsonl," if takes_records else "another file"
        raise UsageError(f"{flag} {out}: exists; name {other} or add --force")


def check_table_output(out: Path | None, force: bool, what: str = "this command") -> None:
    """Check the --out of a command that makes no records: a .jsonl file could keep nothing of its table."""
    if keeps_records(out):
        raise UsageError(f"--out {out}: {what} makes no records; name a file without .jsonl")
    check_output(out, force)


@contextmanager
def store(out: Path | None) -> Iterator[Store | None]:
    """Store of an --out that ends in .jsonl, open for writing; None for any other --out."""
    if out is None or not keeps_records(out):
        yield None
        return
    with ExitStack() as stack:
        with usage_errors("--out "):
            opened = stack.enter_context(open_store(out))
        yield opened


def store_notes(opened: Store) -> list[str]:
    """Notes for the user on an opened store."""
    if not opened.torn:
        return []
    where = f"{opened.path}.torn"
    return [f"{opened.path}: a killed writer left its last line unfinished; it is now in {where}"]


def known_records(given: Sequence[Path] | None) -> list[Record]:
    """Records of --records; by default those of python -m reports."""
    return [record for path in record_files(given) for record in read_contents(path, "--records ").records]


def record_files(given: Sequence[Path] | None) -> list[Path]:
    """Files of --records; by default a sweep's file in this folder, and the project's measured records."""
    mine = [REPORTED] if REPORTED.exists() else []
    return list(given) if given else [*mine, *suite_files()]


def suite_files() -> list[Path]:
    """Files of the project's measured records."""
    from baselines import load

    return sorted(load.MEASURED.glob("**/*.jsonl"))


def suite_records(kind: str) -> list[Record]:
    """The project's measured records of one kind; the lines of other kinds are not decoded."""
    found: list[Record] = []
    for path in suite_files():
        with path.open("rb") as file:
            found += parse((line for line in file if f'"kind": "{kind}"'.encode() in line), str(path)).records
    return [record for record in found if record.case.kind == kind]


def read_contents(path: Path, flag: str = "") -> Contents:
    """Complete records of a file named by an option or a positional argument."""
    try:
        with usage_errors(flag):
            return read(path)
    except OSError as error:
        raise UsageError(f"{flag}{path}: {error.strerror}") from error


def records_file(text: str) -> Path:
    """A path that ends in .jsonl."""
    if not keeps_records(Path(text)):
        raise ValueError(f"must end in .jsonl, got {text!r}")
    return Path(text)


def keeps_records(out: Path | None) -> bool:
    return out is not None and out.suffix == ".jsonl"


def show(table: Table[Row], rows: Sequence[Any], notes: Sequence[str], args: argparse.Namespace) -> None:
    """Print a table on stdout in the form of --format, and in an --out without .jsonl; notes on stderr."""
    emit(render(table, rows, args.format), notes, None if keeps_records(args.out) else args.out)


def emit(text: str, notes: Sequence[str], out: Path | None) -> None:
    """Print text on stdout and notes on stderr; write the text to `out` too, if given."""
    sys.stdout.write(text)
    sys.stdout.flush()
    for note in notes:
        print(plain(note), file=sys.stderr)
    if out is not None:
        with whole(out) as file:
            file.write(text.encode())
