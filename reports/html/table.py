"""The rows of the results table as markup, which the script of the page reads as text."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from markupsafe import Markup, escape

from bench.tables.numbers import rounded
from reports.html.rows import QUANTITIES, Row


def body(rows: Sequence[Row], names: Mapping[int, str], anchors: Mapping[int, Sequence[str]]) -> Markup:
    """A line for each row, with ids and deep links by position; all texts are escaped: a "<" begins a tag."""
    lines = [_line(row, names.get(at, ""), anchors.get(at, ())) for at, row in enumerate(rows)]
    return Markup("\n".join(lines))


def _line(row: Row, name: str, anchors: Sequence[str]) -> str:
    tag = f' id="{name}"' if name else ""
    tag += f' data-n="{row.place} {row.view}{"" if row.is_newest else " old"}"'
    tag += f' data-o="{_escaped(row.other)}"' if row.other else ""
    links = "".join(f'<a id="{_escaped(anchor)}"></a>' for anchor in anchors)
    numbers: list[str] = []
    for one in QUANTITIES:
        numbers += [row.text(one.key)] + [_interval(row)] * (one.key == "rate")
    case = (row.model, row.family, row.device, row.what, row.status)
    settings = (row.res, row.batch, row.precision, row.settings)
    texts = map(_escaped, (*case, *settings, *numbers, row.result, row.date))
    return f"<tr{tag}><td>{links}{'<td>'.join(texts)}"


@lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    return str(escape(text))


def _interval(row: Row) -> str:
    return "" if row.interval is None else f"{rounded(row.interval[0])} to {rounded(row.interval[1])}"
