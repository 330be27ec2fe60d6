"""Description of a table: its columns, with raw values and formatted text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from bench.tables.numbers import BLANK, significant


class Answer(Protocol):
    """Source record of a row."""

    @property
    def name(self) -> str: ...


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
    """One column.

    Attributes:
        heading: with the unit; not in CSV and JSON.
        value: returns the raw value of a row, for CSV and JSON; None without one.
        text: formats the value.
        key: name in CSV and JSON; by default the heading in lower case with underscores.
        of_case: the value comes from the case, which a skipped row has too.
        optional: hidden, except in CSV and JSON, if every row has the value `usual`.
        usual: the default value of an optional column.
        raw: in CSV and JSON only.
    """

    heading: str
    value: Callable[[Any], Any]
    text: Callable[[Any], str] = plain
    key: str = ""
    of_case: bool = False
    optional: bool = False
    usual: Any = None
    raw: bool = False

    @property
    def name(self) -> str:
        return self.key or re.sub(r"\W+", "_", self.heading.lower()).strip("_")

    def is_shown(self, rows: Sequence[Any]) -> bool:
        if self.raw:
            return False
        return not self.optional or any(self.value(row) not in (self.usual, None, (), [], "") for row in rows)


@dataclass(frozen=True, kw_only=True)
class Table(Generic[Row]):
    """Columns of one kind of row; rendered by `bench.tables.render` for commands and the report.

    Attributes:
        title: a noun phrase.
        columns: in order.
        records: returns the source records of a row; by default the row itself.
    """

    title: str
    columns: tuple[Column[Row], ...]
    records: Callable[[Row], Sequence[Any]] = field(default=lambda row: (row,))


def unit(text: Callable[[Any], str], scale: float) -> Callable[[Any], str]:
    """Scale a value before formatting: `unit(significant, 1e3)` formats seconds as milliseconds."""
    return lambda value: BLANK if value is None else text(scale * value)
