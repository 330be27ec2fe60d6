"""Files of records that options name, and the runner behind a command."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.cli.options import UsageError
from bench.cli.progress import progress
from bench.jobs import runner
from bench.jobs.job import Job
from bench.records.base import Record, StoreError
from bench.store.codec import Contents, read
from bench.store.store import REPORTED, Store, open_store
from bench.tables.render import render
from bench.tables.table import Row, Table


def run_jobs(jobs: Sequence[Job], out: Path | None, *, force: bool) -> tuple[list[Record], list[str]]:
    """Measure what the .jsonl file of --out does not hold, with a progress bar.

    Returns:
        A record for every job, in order, and notes on what was found in the file.
    """
    with store(out) as opened, progress("measuring", len(jobs)) as begin:
        notes = store_notes(opened) if opened is not None else []
        results = runner.run(jobs, opened, force=force, begin=begin)
    if results.stored:
        notes.append(f"{results.stored} of {len(jobs)} were in {out} already; --force measures them again")
    return list(results.records), notes


def check_output(out: Path | None, force: bool) -> None:
    """Refuse, before anything is measured, an --out that cannot be written or would be lost.

    Raises:
        UsageError: a folder, an unwritable place, or a file with something in it and no --force.
    """
    if out is None:
        return
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file in it")
    if not keeps_records(out) and not force and out.exists() and out.stat().st_size:
        raise UsageError(f"--out {out}: exists; name another file, or one ending in .jsonl, or add --force")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error


@contextmanager
def store(out: Path | None) -> Iterator[Store | None]:
    """The store of records that --out names by ending in .jsonl, open for writing; None for any other --out.

    Raises:
        UsageError: it cannot be opened, another process writes to it, or a line in it is not a record.
    """
    if out is None or not keeps_records(out):
        yield None
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_store(out))
        except StoreError as error:
            raise UsageError(f"--out {error}") from error
        yield opened


def store_notes(opened: Store) -> list[str]:
    """What a user should know of a store that was found."""
    if not opened.torn:
        return []
    where = f"{opened.path}.torn"
    return [f"{opened.path}: a killed writer left its last line unfinished; it is now in {where}"]


def known_records(given: Sequence[Path] | None) -> list[Record]:
    """The records of --records; by default those that python -m reports reads.

    Raises:
        UsageError: a file that cannot be read, or a line in it that is not a record.
    """
    return [record for path in record_files(given) for record in read_contents(path, "--records ").records]


def record_files(given: Sequence[Path] | None) -> list[Path]:
    """The files of --records; by default what a sweep left here, and what the project has measured."""
    from baselines import load

    mine = [REPORTED] if REPORTED.exists() else []
    return list(given) if given else [*mine, *sorted(load.MEASURED.glob("**/*.jsonl"))]


def read_contents(path: Path, flag: str = "") -> Contents:
    """Every whole record of a file that an option, or an argument of its own, names.

    Raises:
        UsageError: the file cannot be read, or a line in it is not a record.
    """
    try:
        return read(path)
    except StoreError as error:
        raise UsageError(f"{flag}{error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}{path}: not a text file: byte {error.start}") from error
    except OSError as error:
        raise UsageError(f"{flag}{path}: {error.strerror}") from error


def records_file(text: str) -> Path:
    """A path for records, which ends in .jsonl."""
    if not keeps_records(Path(text)):
        raise argparse.ArgumentTypeError(f"must end in .jsonl, got {text!r}")
    return Path(text)


def keeps_records(out: Path | None) -> bool:
    return out is not None and out.suffix == ".jsonl"


def show(table: Table[Row], rows: Sequence[Any], notes: Sequence[str], args: argparse.Namespace) -> None:
    """Print a table on stdout in the --format that was asked for, and notes on stderr.

    An --out that keeps no records gets the table too.
    """
    emit(render(table, rows, args.format), notes, None if keeps_records(args.out) else args.out)


def emit(text: str, notes: Sequence[str], out: Path | None) -> None:
    """Print the output on stdout and the notes on stderr; write the output to a file that was named."""
    sys.stdout.write(text)
    sys.stdout.flush()
    for note in notes:
        print(note, file=sys.stderr)
    if out is not None:
        out.write_text(text, encoding="utf-8")
