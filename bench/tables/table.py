"""Description of a table: its columns, with raw values and formatted text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from bench.tables.numbers import BLANK, significant

Row = TypeVar("Row")
OF_CASE = ("case.", "environment.")  # starts of paths whose values are of the case


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
    source: Callable[[Any], Any] | str  # raw value of a row, or the path of a field, None on it: "case.batch"
    text: Callable[[Any], str] = plain  # formats the value
    key: str = ""  # name in CSV and JSON; by default the field's, or the heading with underscores
    of_case: bool = False  # the value comes from the case, which a skipped row has too; as in OF_CASE
    optional: bool = False  # hidden, except in CSV and JSON, if every row has the value `usual`
    usual: Any = None
    raw: bool = False  # in CSV and JSON only

    def __post_init__(self) -> None:
        if isinstance(self.source, str) and self.source.startswith(OF_CASE):
            object.__setattr__(self, "of_case", True)

    @property
    def name(self) -> str:
        if isinstance(self.source, str):
            return self.key or self.source.rpartition(".")[2]
        return self.key or re.sub(r"\W+", "_", self.heading.lower()).strip("_")

    @cached_property
    def value(self) -> Callable[[Any], Any]:
        """Reader of the raw value, for CSV and JSON, None without one; tuples of fields become lists."""
        if not isinstance(self.source, str):
            return self.source
        names = self.source.split(".")

        def value(found: Any) -> Any:  # noqa: ANN401 - a row of any kind
            for name in names:
                found = None if found is None else getattr(found, name)
            return list(found) if isinstance(found, tuple) else found

        return value

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
    """A column for each field of a row, by its path: "case.seed" is a column called seed."""
    return tuple(Column(path.rpartition(".")[2], path, raw=raw) for path in paths)


def unit(text: Callable[[Any], str], scale: float) -> Callable[[Any], str]:
    """Scale a value before formatting: `unit(significant, 1e3)` formats seconds as milliseconds."""
    return lambda value: BLANK if value is None else text(scale * value)
