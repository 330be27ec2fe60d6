"""Description of a table: its columns, with raw values and formatted text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

from bench.tables.numbers import BLANK, significant

Row = TypeVar("Row")


def plain(value: Any) -> str:  # noqa: ANN401 - a cell holds any value
    """Format a value: four significant digits, yes or no, a dash for None, sequences joined by "; "."""
    if value is None or value == "":
        return BLANK
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return "; ".join(map(plain, value)) or BLANK
    return str(value)


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column."""

    heading: str  # with the unit; not in CSV and JSON
    value: Callable[[Any], Any]  # raw value of a row, for CSV and JSON; None without one
    text: Callable[[Any], str] = plain  # formats the value
    key: str = ""  # name in CSV and JSON; by default the heading in lower case with underscores
    of_case: bool = False  # the value comes from the case, which a skipped row has too
    optional: bool = False  # hidden, except in CSV and JSON, if every row has the value `usual`
    usual: Any = None
    raw: bool = False  # in CSV and JSON only

    @property
    def name(self) -> str:
        return self.key or re.sub(r"\W+", "_", self.heading.lower()).strip("_")

    def is_shown(self, rows: Sequence[Any]) -> bool:
        if self.raw:
            return False
        return not self.optional or any(self.value(row) not in (self.usual, None, (), [], "") for row in rows)


@dataclass(frozen=True, kw_only=True)
class Table(Generic[Row]):
    """Columns of one kind of row; rendered by `bench.tables.render` for commands and the report."""

    title: str  # a noun phrase
    columns: tuple[Column[Row], ...]
    # the source records of a row; by default the row itself
    records: Callable[[Row], Sequence[Any]] = field(default=lambda row: (row,))


def fields(*paths: str, raw: bool = False) -> tuple[Column[Any], ...]:
    """A column for each field of a row, by its path: "case.seed" is a column called seed.

    Fields of the case and of the environment are values of the case, which a skipped row has too.
    """
    return tuple(
        Column(
            path.rpartition(".")[2], _field(path), of_case=path.startswith(("case.", "environment.")), raw=raw
        )
        for path in paths
    )


def _field(path: str) -> Callable[[Any], Any]:
    """Reader of a field; a tuple is read as a list, as in JSON."""
    read = attrgetter(path)

    def value(row: Any) -> Any:  # noqa: ANN401 - a row of any kind
        found = read(row)
        return list(found) if isinstance(found, tuple) else found

    return value


def unit(text: Callable[[Any], str], scale: float) -> Callable[[Any], str]:
    """Scale a value before formatting: `unit(significant, 1e3)` formats seconds as milliseconds."""
    return lambda value: BLANK if value is None else text(scale * value)
