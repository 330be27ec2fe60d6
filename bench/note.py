"""What should a reader of these records know that no number in them says?

    python -m bench.note runs.jsonl "measured while another job held the CPU"
    python -m bench.note runs.jsonl "clocks were locked at 1500 MHz" --author "A. Author"
    python -m bench.note runs.jsonl "driver updated in between" --about 'throughput FCDM-XL*'

Appends one remark to a file of records, one that --out of another command wrote; nothing that is in it is
changed. The remark holds the date and the devices of the records it is about: all of the file, or those
whose case --about names, as bench.agree prints it. Reports show it under "Notes on the records".
"""

import argparse
import datetime
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.analysis import agreement
from bench.cli import options, tables
from bench.records import labels
from bench.records.record import Note, Record


def now() -> str:
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return moment.replace("+00:00", "Z")


def devices_of(records: Sequence[Record], pattern: str) -> tuple[str, ...]:
    """The devices of the records whose case the pattern names; blank: of all.

    Raises:
        UsageError: there are no such records.
    """
    cases = [(labels.name(record), record) for record in records if not isinstance(record, Note)]
    meant = [record for name, record in cases if not pattern or fnmatchcase(name, pattern)]
    if not meant and not cases:
        raise options.UsageError("FILE: holds no record to say anything about")
    if not meant:
        raise options.UsageError(
            f"--about {pattern!r}: names no case of the file; one of them is {cases[0][0]!r}"
        )
    return tuple(agreement.devices(meant))


def append(path: Path, note: Note) -> list[str]:
    """Put a note at the end of a file of records; what a user should know of the file comes back.

    Raises:
        UsageError: another process writes to the file.
    """
    with options.store(path) as store:
        assert store is not None
        store.append(note)
        return options.store_notes(store)


def _body(args: argparse.Namespace) -> int:
    if not args.text.strip():
        raise options.UsageError(f"TEXT: must say something, got {args.text!r}")
    devices = devices_of(options.records_of(args.file), args.about)
    note = Note(
        text=args.text.strip(), about=args.about, devices=devices, author=args.author.strip(), date=now()
    )
    told = append(args.file, note)
    where = ", ".join(devices) or "no device"
    tables.emit(f"{args.file}: noted on {args.about or 'all records'} of {where}\n", told, None)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.note", __doc__)
    made.add_argument("file", type=options.records_file, metavar="FILE", help="of records, ends in .jsonl")
    made.add_argument("text", metavar="TEXT", help="the remark")
    made.add_argument(
        "--about", default="", metavar="PATTERN", help="names of cases, * for anything (default: all)"
    )
    made.add_argument("--author", default="", metavar="NAME", help="who says so (default: not said)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
