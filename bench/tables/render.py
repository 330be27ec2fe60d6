"""Tables as text for a terminal, markdown, CSV, JSON or LaTeX."""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from bench.tables.table import Column, Row, Table
from bench.tables.text import plain

FORMATS = ("table", "md", "csv", "json", "latex")


def render(table: Table[Row], rows: Sequence[Any], form: str) -> str:
    """Lay out rows of records in a form of FORMATS: raw values in JSON and CSV, formatted text in the others.

    The row of a skipped case, which has no measurement, shows its case, its status in the first measured
    column, and its reason in the last column.
    """
    if form in ("json", "csv"):
        values = [raw(table, row) for row in rows]
        return json.dumps(values, indent=2) + "\n" if form == "json" else _csv(values)
    header, cells = texts(table, rows)
    if form == "md":
        cells = [[_without_markup(text) for text in line] for line in cells]
    return layout(header, cells, form)


def titled(title: str, text: str, form: str) -> str:
    """The text of a table in a form below its title, which CSV leaves out."""
    return {"md": "### {}\n\n", "latex": "% {}\n", "csv": ""}.get(form, "{}\n\n").format(title) + text


def texts(table: Table[Row], rows: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Headings of the visible columns, and the formatted cells of each row."""
    measured = [row for row in rows if not _is_skipped(row)]
    columns = [column for column in table.columns if column.is_shown(rows if column.of_case else measured)]
    header = [column.heading for column in columns]
    cells = [_cells(columns, row) for row in rows]
    if len(measured) < len(rows):
        header.append("reason")
        for row, line in zip(rows, cells, strict=True):
            line.append(row.reason if _is_skipped(row) else "")
    return header, cells


def _is_skipped(row: Any) -> bool:  # noqa: ANN401 - rows are of any kind
    return bool(getattr(row, "is_skipped", False))


def _cells(columns: Sequence[Column[Any]], row: Any) -> list[str]:  # noqa: ANN401 - rows are of any kind
    if not _is_skipped(row):
        return [column.text(column.value(row)) for column in columns]
    line = []
    status = row.status
    for column in columns:
        if column.of_case:
            line.append(column.text(column.value(row)))
        else:
            line.append(status or "-")
            status = ""
    return line


def raw(table: Table[Row], row: Any) -> dict[str, Any]:  # noqa: ANN401 - rows are of any kind
    """Values of a row by name of the column, as in JSON and CSV."""
    skipped = _is_skipped(row)
    values = {
        column.name: None if skipped and not column.of_case else column.value(row) for column in table.columns
    }
    status = {"status": row.status, "reason": row.reason} if skipped else {"status": "ok", "reason": ""}
    return {**values, **{key: value for key, value in status.items() if values.get(key) is None}}


def layout(header: Sequence[str], cells: Sequence[Sequence[str]], form: str) -> str:
    """Lay out a header and rows of cells of text as table, md or latex."""
    header, cells = [plain(text) for text in header], [[plain(text) for text in line] for line in cells]
    if form == "latex":
        return _latex(header, cells)
    if form == "md":
        header, cells = [_escaped(text) for text in header], [[_escaped(t) for t in line] for line in cells]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [all(_is_number(line[i]) for line in cells) for i in range(len(header))]

    def line(words: Sequence[str]) -> list[str]:
        return [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(words, widths, numeric, strict=True)
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


def _escaped(text: str) -> str:
    """Escape text for a cell of a markdown table."""
    return text.replace("|", r"\|")


def _without_markup(text: str) -> str:
    """Escape what markdown would render: elements, links, code and emphasis."""
    text = re.sub(r"[\\`*~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(").replace("][", "]\\[")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        nested = {key: json.dumps(v) for key, v in row.items() if isinstance(v, list | dict | tuple)}
        texts = {key: plain(v) for key, v in row.items() if isinstance(v, str)}
        writer.writerow({**row, **nested, **texts})
    return file.getvalue()


_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%#_${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def _latex_escaped(text: str) -> str:
    return text.translate(_LATEX)


def _latex(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [" & ".join(map(_latex_escaped, line)) + r" \\" for line in cells]
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(map(_latex_escaped, header)) + r" \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )
