"""Compare two record files: ratio with interval, verdict and likely causes of every shared case.

    python -m bench.compare before.jsonl after.jsonl --fail-if-slower 3% --format md
    python -m bench.compare h200.jsonl h100.jsonl --across
    python -m bench.compare runs.jsonl
    python -m bench.compare runs.jsonl --note "clocks were locked at 1500 MHz"

With one file, the newest record of each case is compared with every older one. Nothing is measured.
Exit code 1: a pair differs, or a case has a result in one file only; with --fail-if-slower, a case became
slower or failed. Method: docs/compare.md
"""

import argparse
import datetime
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.analysis.repeats import agreement, pairing
from bench.analysis.repeats.agreement import AGREE, Agreement
from bench.analysis.repeats.pairing import Matched
from bench.cli import options, records, values
from bench.cli.options import UsageError
from bench.records.base import Record
from bench.records.note import Note
from bench.tables.render import render


def tolerance(text: str) -> float:
    """A relative tolerance: 2% or 0.02."""
    try:
        value = values.number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ValueError(f"must be above 0 and below 100 %, as 2% or 0.02, got {text!r}")
    return value


def _pairs(files: Sequence[Path], *, across: bool) -> tuple[list[Matched], list[str]]:
    """Pairs of records, and a remark on cases without a partner."""
    if len(files) > 2:
        raise UsageError(f"FILE: must be one or two files, got {len(files)}")
    first = records.read_contents(files[0]).records
    if len(files) == 1:
        if across:
            raise UsageError("--across: needs two files")
        found = pairing.repeats(first)
        if not found:
            raise UsageError(f"{files[0]}: has no repeated case; name a second file")
        return found, []
    second = records.read_contents(files[1]).records
    if files[0].samefile(files[1]):
        raise UsageError(f"{files[0]}: named twice; name it once to compare it with itself")
    found = pairing.match(first, second, across=across)
    if found:
        counts = zip(pairing.unpaired(first, second, across=across), files, strict=True)
        only = ", ".join(f"{count} only in {file.name}" for count, file in counts if count)
        return found, [f"cases without a partner: {only}"] if only else []
    if not across and pairing.match(first, second, across=True):
        a, b = (", ".join(pairing.devices(of)) for of in (first, second))
        raise UsageError(f"{files[0]} is of {a}, {files[1]} of {b}; --across compares different devices")
    raise UsageError(f"{files[0]}, {files[1]}: no timed case in common (equal records do not count)")


def _summary(files: Sequence[Path], compared: Agreement) -> list[str]:
    if len(files) == 1:
        sides = f"{files[0].name}: B is the newest record of a case, A an older one"
    else:
        sides = "; ".join(_dates(compared, side, file) for side, file in enumerate(files))
    agreeing = f"{compared.verdicts[AGREE]} of {len(compared.pairs)} pairs agree"
    return [f"{agreeing} within {100 * compared.within:g} %; {sides}", *compared.findings()]


def _dates(compared: Agreement, side: int, file: Path) -> str:
    dates = sorted({pair.dates[side] for pair in compared.pairs})
    between = f", {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else ""
    return f"{'AB'[side]}: {file.name}{between}"


def _regressions(compared: Agreement, limit: float) -> list[str]:
    slower = compared.slower(limit)
    cases = [f"{pair.case}, {pair.quantity}: B/A {pair.ratio:.4f}" for pair in slower]
    found = [f"slower by more than {100 * limit:g} %: {case}" for case in cases]
    return found + [f"failed in B: {case}" for case in compared.lost]


def _compare(args: argparse.Namespace) -> int:
    records.check_table_output(args.out, args.force, "a comparison")
    matched, notes = _pairs(args.files, across=args.across)
    compared = agreement.compare(matched, args.within)
    if not compared.pairs and not compared.one_sided:
        raise UsageError(f"{', '.join(map(str, args.files))}: no shared case gave a number")
    summary = [*_summary(args.files, compared), *notes]
    regressions = None if args.fail_if_slower is None else _regressions(compared, args.fail_if_slower)
    if regressions is not None:
        summary += regressions or [f"no case is slower by more than {100 * args.fail_if_slower:g} %"]
    text = render(agreement.table(dated=len(args.files) == 1), compared.pairs, args.format)
    if args.format == "md":  # complete text of a pull-request comment
        text = "".join(f"- {line}\n" for line in summary) + f"\n{text}"
        summary = []
    if args.note is not None:
        devices = sorted({pair.device for pair in compared.pairs})
        finding = "; ".join([*_summary(args.files, compared), *notes])
        summary += _append(args.files[-1], finding, "", devices, "bench.compare")
    records.emit(text, summary, args.out)
    return int(compared.differs if regressions is None else bool(regressions))


def _remark(args: argparse.Namespace) -> int:
    """Append the text of --note to the file."""
    if len(args.files) > 1:
        raise UsageError("--note TEXT: takes one FILE; --note alone appends the summary of a comparison")
    if not args.note.strip():
        raise UsageError(f"--note: must be a text, got {args.note!r}")
    contents = records.read_contents(args.files[0])
    devices = devices_of(contents.records, args.about)
    notes = _append(args.files[0], args.note.strip(), args.about, devices, args.author.strip())
    subject = f"{args.about or 'all records'} of {', '.join(devices) or 'no device'}"
    records.emit(f"{args.files[0]}: noted on {subject}\n", notes, None)
    return 0


def devices_of(found: Sequence[Record], pattern: str) -> list[str]:
    """Devices of the records whose case matches a pattern; a blank pattern matches all."""
    if not found:
        raise UsageError("FILE: holds no records")
    meant = [record for record in found if not pattern or fnmatchcase(record.name, pattern)]
    if not meant:
        raise UsageError(f"--about {pattern!r}: names no case of the file, such as {found[0].name!r}")
    return pairing.devices(meant)


def _append(path: Path, text: str, about: str, devices: Sequence[str], author: str) -> list[str]:
    """Append a note to a file of records; returns remarks on the file."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    note = Note(text=text, about=about, devices=tuple(devices), author=author, date=now)
    with records.store(path) as store:
        assert store is not None
        store.append(note)
        return records.store_notes(store)


def _body(args: argparse.Namespace) -> int:
    if args.note is None and (args.about or args.author):
        raise UsageError("--about, --author: belong to --note TEXT")
    if args.note is not None and not records.keeps_records(args.files[-1]):
        raise UsageError(f"--note: {args.files[-1]} must end in .jsonl")
    return _remark(args) if isinstance(args.note, str) else _compare(args)


def parser() -> options.Parser:
    made = options.parser("bench.compare", __doc__, "FILE [FILE]")
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="A and B, or one file")
    text = "relative tolerance of medians that agree (default: 2%%)"
    options.add(made, "--within", tolerance, text, default=agreement.WITHIN, metavar="LIMIT")
    text = "exit with 1 only if a case failed in B or its whole interval is slower by more than LIMIT"
    options.add(made, "--fail-if-slower", tolerance, text, metavar="LIMIT")
    options.add_flag(made, "--across", "pair cases of different devices too")
    notes = made.add_argument_group("notes")
    notes.add_argument(
        "--note",
        nargs="?",
        const=True,
        metavar="TEXT",
        help="append TEXT to FILE as a note; without TEXT, the summary of the comparison",
    )
    notes.add_argument(
        "--about", default="", metavar="PATTERN", help="cases the note is about (default: all)"
    )
    notes.add_argument("--author", default="", metavar="NAME", help="author of the note")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
