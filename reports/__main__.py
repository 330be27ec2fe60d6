"""Write report.md and claims.md, with their plots, from records and the published tables.

    python -m reports
    python -m reports --records a.jsonl b.jsonl --out /tmp/report

Without --records it reads reports/out/records.jsonl, if it exists, and the records of the suite
(baselines/measured). The newest record of a case counts. The same records give the same bytes. Without
records the measured columns are blank, with the command that fills them. Nothing is measured or downloaded.
docs/report.md describes the pages.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli import options, records
from bench.cli.options import UsageError
from bench.records.base import Record
from bench.records.note import Note


def _body(args: argparse.Namespace) -> int:
    found: list[Record] = []
    notes: list[Note] = []
    for path in records.record_files(args.records):
        contents = records.read_contents(path, "--records ")
        found += contents.records
        notes += contents.notes
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error

    from reports import page  # the import of matplotlib takes seconds, which --help and errors avoid

    texts, drawings = page.write(found, notes)
    try:
        for drawing in drawings:
            (args.out / f"{drawing.picture.name}.png").write_bytes(drawing.png)
            (args.out / f"{drawing.picture.name}.svg").write_bytes(drawing.svg)
        for name, text in texts.items():
            (args.out / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error
    if not found:
        print("no records: only the published numbers are filled in; see report.md", file=sys.stderr)
    print(f"{args.out / page.REPORT} with its plots: {', '.join(d.picture.name for d in drawings)}")
    return 0


def parser() -> options.Parser:
    made = options.parser("reports", __doc__)
    options.add_records(made, "of the commands; only these are read")
    made.add_argument(
        "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="default: %(default)s"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
