"""Rows as a text table, markdown, CSV, JSON or LaTeX."""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.record import Size, size_text

Row = Mapping[str, Any]  # what a machine reads: raw values, units in the keys
Column = tuple[str, Callable[[Row], str]]  # what a person reads: a heading and the text under it


def size(value: Size) -> int | str:
    """A square's side as a number, anything else as height x width."""
    return value if isinstance(value, int) else size_text(value)


def fixed(digits: int, value: float | None) -> str:
    """A number with so many decimals; a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def milliseconds(seconds: float | None) -> str:
    return significant(None if seconds is None else 1e3 * seconds)


def significant(value: float | None) -> str:
    """Four significant digits, with an exponent below 0.0001 only; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def render(rows: Sequence[Row], columns: Sequence[Column], form: str) -> str:
    """Lay out rows; JSON and CSV hold every raw value, the other forms the columns.

    Args:
        rows: raw values, all with the same keys.
        columns: headings and how each is written.
        form: table, md, csv, json or latex.
    """
    if form == "json":
        return json.dumps(list(rows), indent=2) + "\n"
    if form == "csv":
        return _csv(rows)
    header = [heading for heading, _ in columns]
    cells = [[write(row) for _, write in columns] for row in rows]
    if form == "latex":
        return _latex(header, cells)
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [all(_is_number(line[i]) for line in cells) for i in range(len(header))]

    def line(texts: Sequence[str]) -> list[str]:
        return [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ]

    if form == "md":
        rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, numeric, strict=True)]
        lines = [f"| {' | '.join(parts)} |" for parts in (line(header), rule, *map(line, cells))]
    else:
        rule = ["-" * width for width in widths]
        lines = ["  ".join(parts).rstrip() for parts in (line(header), rule, *map(line, cells))]
    return "\n".join(lines) + "\n"


def _is_number(text: str) -> bool:
    return text.lstrip("+-")[:1].isdigit() or text in ("-", "")


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in row.items()})
    return file.getvalue()


def _latex(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    def escape(text: str) -> str:
        for sign in "&%#_$":
            text = text.replace(sign, f"\\{sign}")
        return text

    lines = [" & ".join(map(escape, line)) + r" \\" for line in cells]
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(map(escape, header)) + r" \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def emit(text: str, notes: Sequence[str], out: Path | None) -> None:
    """Print the output on stdout and the notes on stderr; write the output to a file that was named."""
    sys.stdout.write(text)
    sys.stdout.flush()
    for note in notes:
        print(note, file=sys.stderr)
    if out is not None:
        out.write_text(text, encoding="utf-8")
