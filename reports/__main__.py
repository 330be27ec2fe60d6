"""What do the records say beside the published tables?

    python -m reports
    python -m reports --records a.jsonl b.jsonl --out /tmp/report

Writes report.md, claims.md (what holds of the papers' claims) and their plots, as PNG
and SVG, to --out and prints where. Without
--records it reads reports/out/records.jsonl, if there is one, and the records that come
with the suite (baselines/measured). Without any record it still writes the published
tables, with blanks beside them and the command that fills them.

The newest record of a case counts. The same records give the same bytes. Nothing is
measured or downloaded.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines import load
from bench.records.record import Record, StoreError, read

RECORDS = Path("reports/out/records.jsonl")
# modules of reports whose section(records) gives markdown, blank without records of theirs, and its drawings
SECTIONS = (
    "golden",
    "counters",
    "roofline",
    "depthwise",
    "resolution",
    "memory",
    "projection",
    "training_cost",
    "convergence",
    "samples",
    "trained_networks",
    "repeats",
    "notes",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--records",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="JSON lines of the benches; only these are read",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)

    records: list[Record] = []
    for path in args.records or _found():
        try:
            records += read(path)
        except (StoreError, UnicodeDecodeError) as error:
            where = "" if str(path) in str(error) else f"{path}: not a text file: "
            return _refuse(f"--records {where}{error}")
        except OSError as error:
            return _refuse(f"--records {path}: {error.strerror}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refuse(f"--out {args.out}: {error.strerror}")

    # imported here: pandas and matplotlib take seconds that --help and a wrong argument need not wait for
    from reports import contents, overview, selection
    from reports.claims import page as claims
    from reports.figures import plots

    gathered = selection.gather(records)
    drawings = plots.draw(gathered)
    judged = claims.page(records)
    text = overview.report(gathered, [drawing.picture for drawing in drawings], judged.summary)
    drawings += judged.drawings
    for section in SECTIONS:
        written, drawn = importlib.import_module(f"reports.sections.{section}").section(records)
        text += f"\n{written}\n" if written else ""
        drawings += drawn
    try:
        for drawing in drawings:
            (args.out / f"{drawing.picture.name}.png").write_bytes(drawing.png)
            (args.out / f"{drawing.picture.name}.svg").write_bytes(drawing.svg)
        for name, page in (("report.md", text), (claims.FILE, judged.text)):
            (args.out / name).write_text(contents.with_contents(page), encoding="utf-8", newline="\n")
    except OSError as error:
        return _refuse(f"--out {args.out}: {error.strerror}")
    if not records:
        print("no records: only the published numbers are filled in; see report.md", file=sys.stderr)
    print(f"{args.out / 'report.md'} with its plots: {', '.join(d.picture.name for d in drawings)}")
    return 0


def _found() -> list[Path]:
    mine = [RECORDS] if RECORDS.exists() else []
    return mine + sorted(load.MEASURED.glob("**/*.jsonl"))


def _refuse(message: str) -> int:
    print(" ".join(f"python -m reports: {message}".split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
