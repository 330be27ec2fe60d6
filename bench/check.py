"""Check files of records before they are submitted: one line for each finding.

    python -m bench.check runs.jsonl
    python -m bench.check baselines/measured/*/*.jsonl
    python -m bench.check --schema > record.schema.json

Checked: schema, units, device identity, times below the floor of the device, golden outputs of the same
device and commit, duplicates, notes. Files named together are one submission. Nothing is measured.
Exit code 1 if there are findings. Method: docs/check.md
"""

import argparse
import json
import sys
from pathlib import Path

from bench.cli import options, records
from bench.cli.options import UsageError
from bench.store.files import why_not_regular
from bench.tables.text import plain


def _text(path: Path) -> str:
    try:
        if reason := why_not_regular(path):
            raise UsageError(f"{path}: {reason}")
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1  # a torn last line may end in half a character
        return data[:whole].decode() + data[whole:].decode(errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file: byte {error.start} is not UTF-8") from error


def _body(args: argparse.Namespace) -> int:
    if args.schema:
        if args.files:
            raise UsageError(f"--schema: prints the schema and takes no FILE, got {args.files[0]}")
        from bench.store.schema import schema

        print(json.dumps(schema(), indent=2))
        return 0
    if not args.files:
        raise UsageError("FILE: name at least one file of records, or --schema")
    from bench.analysis.submissions import submission

    files = [(str(path), _text(path)) for path in dict.fromkeys(args.files)]
    suite = [path for path in records.suite_files() if not any(path.samefile(own) for own in args.files)]
    found = submission.findings(files, records.known_records(suite) if suite else [])
    for line in found:
        print(plain(line))
    lines = sum(text.count("\n") for _, text in files)
    print(f"findings: {len(found)}; lines: {lines}; files: {len(files)}", file=sys.stderr)
    return int(bool(found))


def parser() -> options.Parser:
    made = options.parser("bench.check", __doc__, "[FILE ...]")
    made.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSON lines of the commands")
    options.add_flag(made, "--schema", "print the JSON Schema of a line")
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
