"""Write report.html, report.md and its pages from records and the published tables.

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
from typing import TYPE_CHECKING

from bench.cli import options, records
from bench.cli.options import UsageError
from bench.records.base import Record
from bench.records.note import Note
from bench.store.codec import no_collections
from bench.store.files import why_not_writable

if TYPE_CHECKING:
    from reports.figures.plots import Drawing


def _body(args: argparse.Namespace) -> int:
    found: list[Record] = []
    notes: list[Note] = []
    for path in records.record_files(args.records):
        contents = records.read_contents(path, "--records ")
        found += contents.records
        notes += contents.notes
    if reason := why_not_writable(args.out / "report.html"):  # no folder is made for a name refused later
        raise UsageError(f"--out {args.out}: {reason}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error

    with no_collections():
        from reports import page  # the import of matplotlib takes seconds, which --help and errors avoid

        pages = page.write(found, notes)
    try:
        _save(pages.drawings, args.out / "plots")
        for name, text in pages.texts.items():
            (args.out / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error
    if not found:
        print("no records: only the published numbers are filled in; see report.md", file=sys.stderr)
    others = ", ".join(name for name in pages.texts if name != page.REPORT)
    print(f"{args.out / page.REPORT}, with {others} and {len(pages.drawings)} plots")
    return 0


def _save(drawings: Sequence["Drawing"], folder: Path) -> None:
    """Write the plots, and remove those of an earlier run from their folder."""
    folder.mkdir(exist_ok=True)
    files = {folder / f"{drawing.picture.name}.svg": drawing.svg for drawing in drawings}
    for stale in set(folder.glob("*.svg")) - files.keys():
        stale.unlink()
    for path, svg in files.items():
        path.write_bytes(svg)


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
